"""`python -m benchmarks.faults`: runs the scenes, prints what came of them, exits 1 if not all is as it should be."""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.machines import Seen, part_machines
from benchmarks.faults.network import NoNetworkError
from benchmarks.faults.scenes import SCENES
from benchmarks.faults.storm import Found, Tell, weather

MACHINES = "machines"


@dataclass(frozen=True)
class Outcome:
    """What came of a scene: what is not as it should be, the rows of its table, its figures for `--json`."""

    faults: list[str]
    rows: Mapping[str, str]
    figures: dict[str, Any] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long a storm lasts (%(default)s)")
    parser.add_argument("--jobs", type=int, default=200, help="how many are sent meanwhile (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the storm: who is killed, and when (%(default)s)")
    parser.add_argument(
        "--scene",
        choices=[*SCENES, MACHINES, "all"],
        default="all",
        help="what a storm is let loose on, or `machines`, one of which is cut off (%(default)s)",
    )
    parser.add_argument(
        "--model", type=Path, default=_sample_model(), help="the network of a storm's jobs (%(default)s)"
    )
    parser.add_argument("--keep", type=Path, help="a new folder to work in, which is kept with its logs")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # on the way out everything that was started is stopped
    scenes = [*SCENES, MACHINES] if chosen.scene == "all" else [chosen.scene]
    outcomes = {scene: _run(scene, chosen) for scene in scenes}
    if chosen.json:
        print(json.dumps({scene: outcome.figures for scene, outcome in outcomes.items()}, indent=2))
    else:
        for scene, outcome in outcomes.items():
            print(_table(scene, outcome))
    return 1 if any(outcome.faults for outcome in outcomes.values()) else 0


def _run(scene: str, chosen: argparse.Namespace) -> Outcome:
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s {scene}: {what}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="slimline-faults-") as name:
        folder = (chosen.keep or Path(name)) / scene
        folder.mkdir(parents=True)
        for each in (folder.parent, folder):
            each.chmod(0o755)  # as root, PostgreSQL runs as another user, who must get at its folder
        run: Callable[[str, Path, argparse.Namespace, Tell], Outcome] = _part if scene == MACHINES else _storm
        return run(scene, folder, chosen, tell)


def _storm(scene: str, folder: Path, chosen: argparse.Namespace, tell: Tell) -> Outcome:
    with SCENES[scene](folder) as make_plan:
        plan = make_plan(model=chosen.model, jobs=chosen.jobs, minutes=chosen.minutes, seed=chosen.seed)
        found = weather(plan, tell)
    return Outcome(found.faults(chosen.jobs), _rows_of_storm(found, chosen.jobs), found.as_json())


def _part(_scene: str, folder: Path, chosen: argparse.Namespace, tell: Tell) -> Outcome:
    try:
        seen = part_machines(folder, tell)
    except NoNetworkError as error:
        rows = {"left out": f"machines cannot be had here: {error}"}
        return Outcome([] if chosen.scene == "all" else [rows["left out"]], rows, {"left_out": str(error)})
    return Outcome(seen.faults, _rows_of_machines(seen), seen.as_json())


def _rows_of_storm(found: Found, jobs: int) -> dict[str, str]:
    return {
        "killed with -9": f"{found.kills.total()} in {found.storm_s:.0f} s: {_listed(found.kills)}",
        "jobs": f"{jobs} sent: {_listed(found.ends)}, {found.doubled} doubled",
        "failures": _listed(found.failures),
        "starts": f"{found.attempts}, most of one job {found.most_attempts}",
        "artifacts": f"{found.wrong_digests} with a wrong digest",
        "events": f"{found.wrong_events} jobs with gaps or more than one end",
        "requests": f"{found.requests}, sent again after: {_listed(found.troubles)}",
        "blobs without owner": str(found.orphans),
        "after the storm": f"{found.end_s:.0f} s until the last job had ended",
    }


def _rows_of_machines(seen: Seen) -> dict[str, str]:
    rows = {"in calm": f"the job takes {seen.calm_s:.1f} s"}
    for each in seen.rounds:
        rows[f"cable back at {each.mended_at}"] = (
            f"taken over {each.taken_over_s:.1f} s after the cut, mended after {each.mended_s:.1f} s,"
            f" ended after {each.ended_s:.1f} s; {each.attempts} attempts, {each.repeated_steps} steps done again;"
            f" {each.late_writes} late writes, {len(each.let_through)} let through;"
            f" the old worker's next job took {each.next_job_s:.1f} s"
        )
    free = "not within a minute" if seen.lock_s is None else f"{seen.lock_s:.1f} s after its holder was cut off"
    return rows | {"a locked row is free": free}


def _table(scene: str, outcome: Outcome) -> str:
    lines = [f"  {what:<22} {said}" for what, said in outcome.rows.items()]
    return "\n".join([f"{scene}: {'; '.join(outcome.faults) or 'all as it should be'}", *lines])


def _listed(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counted.items())) or "none"


def _sample_model() -> Path:
    beside = Path(__file__).parents[3] / "shared"
    return Path(os.environ.get("SLIMLINE_SHARED", beside)) / "models" / "digits32_mbv2hard.onnx"


if __name__ == "__main__":
    sys.exit(main())
