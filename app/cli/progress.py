"""Live bars on stderr: bytes on their way, and a job at work with the server's own estimate of the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from app.cli.quantities import show_duration
from app.client import Client, Event, Resource
from app.client.transfer import OnBytes
from app.contracts.events import Trained
from app.contracts.states import JobState


@contextmanager
def transfer_bar(verb: str, name: str) -> Iterator[OnBytes]:
    """A bar for one file; the yielded function takes bytes done and in all."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{verb} {name}", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def follow_job(client: Client, job_id: str) -> Resource:
    """Show a job until its state is final and return it: a bar, and a line for each point of a loss curve.

    Without a terminal the bar is a line per phase.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    with _job_bar(console) if console.is_terminal else _job_lines(console) as show:
        for event in client.watch(job_id):
            if event.type == "log" and event.data["level"] == "warning":  # the rest is in the report's notes
                console.print(event.data["message"], soft_wrap=True)
            elif event.type == "trained":
                console.print(str(Trained.model_validate(event.data)), soft_wrap=True)
            show(event)
    return client.job(job_id)


@contextmanager
def _job_bar(console: Console) -> Iterator[Callable[[Event], None]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("queued", total=1, left="")

        def show(event: Event) -> None:
            if event.type == "state":
                state = event.data["state"]
                completed = 1 if state == JobState.SUCCEEDED else None
                progress.update(bar, description=state, left="", completed=completed)
            elif event.type == "progress":
                left = event.data.get("eta_s")
                progress.update(
                    bar,
                    completed=event.data["fraction"],
                    description=_describe(event.data),
                    left="" if left is None else f"{show_duration(left)} left",
                )

        yield show


@contextmanager
def _job_lines(console: Console) -> Iterator[Callable[[Event], None]]:
    shown: tuple[Any, ...] = ()

    def show(event: Event) -> None:
        nonlocal shown
        at = (event.data.get("step"), event.data.get("phase"))
        if event.type == "state":
            console.print(event.data["state"])
        elif event.type == "progress" and at != shown:
            shown = at
            console.print(f"{event.data['fraction']:4.0%} {_describe(event.data)}", soft_wrap=True)

    yield show


def _describe(progress: Resource) -> str:
    step = f"step {progress['step']}/{progress['steps']} " if progress.get("step") else ""
    message = f": {progress['message']}" if progress.get("message") else ""
    return f"{step}{progress['phase']}{message}"
