"""`slimline up`: checks what was asked, claims the data folder, runs the process tree."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli.edge import ExitCode, print_refusal, usage
from app.cli.environment import read_settings
from app.contracts.failure import FaultKind, SlimlineError
from app.up.address import find_port, require_key
from app.up.lock import claim
from app.up.tree import Plan, Tree


def up(
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other machines reach it only once there is a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    data: Annotated[
        Path, typer.Option(envvar="SLIMLINE_DATA", help="Folder of everything that is kept.", file_okay=False)
    ] = Path("slimline-data"),
    workers: Annotated[int, typer.Option(min=1, help="Jobs that run at the same time.")] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="auto: a GPU if there is one; cpu: never; cuda: refuse to start without."),
    ] = "auto",
    insecure_open: Annotated[
        bool, typer.Option("--insecure-open", help="Let --host be reached from other machines though there is no key.")
    ] = False,
) -> None:
    """Run everything on this machine: API, worker, broker, database. Ctrl-C stops it.

    SLIMLINE_DATABASE_URL, SLIMLINE_BROKER_URL and SLIMLINE_STORAGE_URL replace the embedded parts.

    Example: slimline up --port 8080 --data ~/slimline
    """
    with usage():
        settings = read_settings(data=data, **({"insecure_open": True} if insecure_open else {}))
        require_key(host, settings)
        if device == "cuda":
            _require_gpu()
        with claim(data):
            plan = Plan(settings, host, find_port(host, port), workers, device)
            _run(plan)


def _run(plan: Plan) -> None:
    typer.echo(f"Slimline is starting on {plan.url} …")
    try:
        asyncio.run(Tree(plan).run(on_ready=lambda: typer.echo(_banner(plan))))
    except SlimlineError as failed:
        if failed.failure.kind == FaultKind.USER:
            raise
        print_refusal(failed)
        raise typer.Exit(ExitCode.FAILED) from None


def _banner(plan: Plan) -> str:
    return f"""
  Slimline is ready.

    API        {plan.url}/v1
    Docs       {plan.url}/docs
    Data       {plan.settings.data.absolute()}
    Stop       Ctrl-C

  Try:  slimline compress model.onnx --recipe quantize.dynamic -o small.onnx --url {plan.url}
"""


def _require_gpu() -> None:
    if not Path("/dev/nvidiactl").exists():
        raise SlimlineError("NO_CUDA", "no NVIDIA GPU is visible here", hint="use --device auto or --device cpu")
