"""The first section: ours on files as users have them, all the sample models."""

from collections.abc import Callable
from pathlib import Path

from app.contracts.failure import SlimlineError
from benchmarks.pruning.rows import AMOUNTS, Pruned, Row, look_at, race
from benchmarks.pruning.running import Runner
from worker.engine.graph import Graph
from worker.engine.samples import make_up
from worker.engine.session import open_session

Tell = Callable[[str], None]


def sample_files(shared: Path) -> dict[str, Path]:
    """By name, those in models/exports first."""
    models = shared / "models"
    return {path.stem: path for folder in (models / "exports", models) for path in sorted(folder.glob("*.onnx"))}


def measure_file(runner: Runner, name: str, path: Path, seconds: float, tell: Tell) -> Row:
    """Prune one file by every amount."""
    tell(f"{name}: pruning")
    runs = {amount: runner.run_ours(path, f"prune.structured:amount={share}") for amount, share in AMOUNTS.items()}
    try:
        feed = make_up(Graph.load(path).inputs, open_session(path), seed=0).first()
    except SlimlineError as error:
        return Row(name, "slimline", {amount: Pruned(run, failure=str(error)) for amount, run in runs.items()})
    results = [look_at(path, run, feed) for run in runs.values()]
    return Row(name, "slimline", dict(zip(runs, race(path, results, feed, seconds), strict=True)))
