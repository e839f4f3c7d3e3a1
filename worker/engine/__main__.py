"""The engine's own command: compress, inspect or run a model with no server. Only words and exit codes live here."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from app.contracts.failure import SlimlineError
from app.contracts.job_spec import Device, Task
from app.contracts.preprocess import Preprocess
from app.contracts.recipe import METHODS, DataRole
from app.contracts.recipe.notation import parse_recipe, validate_recipe
from app.contracts.targets import Targets

DONE, FAILED, USAGE, MISSED, INTERRUPTED = 0, 1, 2, 3, 130
_EXAMPLES = """examples:
  python -m worker.engine compress net.onnx --recipe quantize.static --calibrate c.npz --evaluate e.npz -o small.onnx
  python -m worker.engine compress net.onnx --recipe 'prune.magnitude:amount=0.5 + quantize.dynamic' -o small.onnx
  python -m worker.engine compress net.onnx --recipe recipe.yaml --max-size-ratio 0.3 --json -o small.onnx
  python -m worker.engine inspect net.onnx
  python -m worker.engine run net.onnx --data test.npz -o outputs.npz
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 failed, 2 usage, 3 targets missed, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except SlimlineError as error:
        if options.traceback:
            raise
        from worker.engine.terminal import format_failure  # noqa: PLC0415 - `--help` stays instant

        sys.stderr.write(format_failure(error.failure) + "\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except Exception as error:  # the edge of the command: a defect is told as one
        if options.traceback:
            raise
        sys.stderr.write(
            f"ENGINE_DEFECT: {type(error).__name__}: {error}\n  run again with --traceback and report it\n"
        )
        return FAILED


def _compress(options: argparse.Namespace) -> int:
    from worker.engine.compression import compress  # noqa: PLC0415 - loads ONNX Runtime
    from worker.engine.terminal import (  # noqa: PLC0415 - same
        ProgressLine,
        format_comparison,
        format_layers,
        format_verdict,
    )

    line = ProgressLine()
    try:
        result = compress(
            options.model,
            recipe=options.recipe,
            output=options.output,
            calibrate=options.calibrate,
            evaluate=options.evaluate,
            train=options.train,
            task=options.task,
            targets={name: value for name in Targets.model_fields if (value := getattr(options, name)) is not None},
            preprocess=options.preprocess,
            seed=options.seed,
            device=options.device,
            on_event=line,
        )
    finally:
        line.end()
    if options.json:
        _print_json(result)
    else:
        final = result.comparison.final
        sys.stdout.write(format_comparison(result.comparison) + "\n")
        sys.stdout.writelines(f"note: {note}\n" for note in (final.notes if final else []))
        sys.stdout.write(format_verdict(result.verdict) + "\n" if result.verdict else "")
        if options.layers:
            given = [role for role in DataRole if getattr(options, role)]
            sys.stdout.write(format_layers(result.layers, options.recipe, given) + "\n")
        sys.stdout.write(f"wrote {options.output}\n")
    return MISSED if result.verdict and not result.verdict.met else DONE


def _inspect(options: argparse.Namespace) -> int:
    from worker.engine.ingest import ingest_model  # noqa: PLC0415 - loads onnx
    from worker.engine.methods import applicability  # noqa: PLC0415 - same
    from worker.engine.pruning.report import describe_channels  # noqa: PLC0415 - same
    from worker.engine.terminal import format_table  # noqa: PLC0415 - same

    _, facts = ingest_model(options.model, applicability=applicability, channels=describe_channels)
    if options.json:
        _print_json(facts)
        return DONE
    for direction, tensors in (("input", facts.inputs), ("output", facts.outputs)):
        sys.stdout.writelines(f"{direction} {spec.name}: {spec.dtype} {spec.shape}\n" for spec in tensors)
    macs = "unknown" if facts.macs is None else f"{facts.macs:,}"
    sys.stdout.write(f"opset {facts.opset}, {facts.parameters:,} parameters, {macs} MACs\n")
    sys.stdout.writelines(f"note: {note}\n" for note in facts.notes)
    rows = [
        [layer.name, layer.op, f"{layer.parameters:,}", "-" if layer.macs is None else f"{layer.macs:,}"]
        + [str(layer.channels) if layer.channels else "-"]
        + ["yes" if layer.methods.get(name) and layer.methods[name].applies else "-" for name in METHODS]
        for layer in facts.layers
    ]
    sys.stdout.write(format_table(["layer", "operator", "parameters", "MACs", "can go", *METHODS], rows) + "\n")
    return DONE


def _run(options: argparse.Namespace) -> int:
    from worker.engine.running import run_model, summarize  # noqa: PLC0415 - loads ONNX Runtime

    outputs = run_model(options.model, options.data, options.preprocess, limit=options.limit, seed=options.seed)
    summary = summarize(outputs)
    if options.output:
        import numpy as np  # noqa: PLC0415 - loaded by now

        np.savez(options.output, allow_pickle=False, **outputs)
    if options.json:
        sys.stdout.write(json.dumps(summary) + "\n")
    else:
        for name, facts in summary.items():
            told = ", ".join(f"{key} {value}" for key, value in facts.items())
            sys.stdout.write(f"{name}: {told}\n")
    return DONE


def _print_json(result: Any) -> None:
    def plain(value: Any) -> Any:
        match value:
            case BaseModel():
                return value.model_dump(mode="json")
            case _ if is_dataclass(value) and not isinstance(value, type):
                return asdict(value)
            case _:
                raise TypeError(f"no JSON for {type(value)}")

    fields = vars(result) if is_dataclass(result) else result
    sys.stdout.write(json.dumps(fields, default=plain, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m worker.engine",
        description="Compress, inspect and run models with no server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="compress|inspect|run")
    _add_compress(commands.add_parser("compress", help="apply a recipe and measure the result", **_HELP))
    _add_inspect(commands.add_parser("inspect", help="what a model holds and which methods work on it", **_HELP))
    _add_run(commands.add_parser("run", help="run a model on a dataset", **_HELP))
    return parser


_HELP: Mapping[str, Any] = {"epilog": _EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}


def _add_compress(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _compress)
    parser.add_argument("--recipe", required=True, type=_recipe, help="JSON or YAML file, or steps joined by +")
    parser.add_argument("-o", "--output", required=True, type=_output, help="where the compressed model goes")
    parser.add_argument("--calibrate", type=_file, metavar="DATA", help=".npz or .zip that finds activation ranges")
    parser.add_argument("--evaluate", type=_file, metavar="DATA", help="labelled data that accuracy is measured on")
    parser.add_argument("--train", type=_file, metavar="DATA", help="data for steps that train")
    parser.add_argument("--task", choices=get_args(Task), help="default: what the labels are for")
    parser.add_argument("--device", choices=get_args(Device), default="auto")
    parser.add_argument("--layers", action="store_true", help="print what became of each layer, and advice")
    for name, field in Targets.model_fields.items():
        text = f"target: {(field.description or name.replace('_', ' ')).replace('%', '%%')}"
        parser.add_argument("--" + name.replace("_", "-"), type=float, metavar="X", help=text)
    _add_preprocess(parser)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _inspect)


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _run)
    parser.add_argument("--data", type=_file, help=".npz or .zip; without it inputs are made up")
    parser.add_argument("--limit", type=int, help="run at most this many samples")
    parser.add_argument("-o", "--output", type=_output, help="write every output to this .npz")
    _add_preprocess(parser)


def _add_common(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int]) -> None:
    parser.set_defaults(command=command)
    parser.add_argument("model", type=_file)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--traceback", action="store_true", help="show where in the code a failure arose")


def _add_preprocess(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preprocess",
        type=_preprocess,
        metavar="JSON",
        help='such as \'{"scale": 0.0039, "mean": [0.5], "std": [0.5]}\'',
    )


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path


def _output(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; name a file")
    return path


def _recipe(text: str) -> list[Any]:
    try:
        if Path(text).suffix in {".json", ".yaml", ".yml"}:
            return list(_recipe_file(_file(text)))
        return list(parse_recipe(text))
    except SlimlineError as error:
        hint = error.failure.hint
        raise argparse.ArgumentTypeError(error.failure.message + (f". {hint}" if hint else "")) from None


def _recipe_file(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return list(parse_recipe(text or "[]"))
    try:
        import yaml  # noqa: PLC0415 - a bare GPU machine may not have it
    except ImportError:
        raise argparse.ArgumentTypeError("YAML needs the package pyyaml; give the recipe as JSON") from None
    try:
        return list(validate_recipe(yaml.safe_load(text)))
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{path} is not valid YAML: {error}") from None


def _preprocess(text: str) -> Preprocess:
    try:
        return Preprocess.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise argparse.ArgumentTypeError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


if __name__ == "__main__":
    sys.exit(main())
