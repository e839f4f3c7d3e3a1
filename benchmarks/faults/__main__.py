"""`python -m benchmarks.faults`: runs the storms, prints what came of them, exits 1 if not all is as it should be."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.faults.scenes import SCENES
from benchmarks.faults.storm import Found, weather


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long the storm lasts (%(default)s)")
    parser.add_argument("--jobs", type=int, default=200, help="how many are sent meanwhile (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the storm: who is killed, and when (%(default)s)")
    parser.add_argument(
        "--scene", choices=[*SCENES, "all"], default="all", help="what it is let loose on (%(default)s)"
    )
    parser.add_argument("--model", type=Path, default=_sample_model(), help="the network of every job (%(default)s)")
    parser.add_argument("--keep", type=Path, help="a new folder to work in, which is kept with its logs")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    chosen = parser.parse_args()
    scenes = list(SCENES) if chosen.scene == "all" else [chosen.scene]
    found = {scene: _run(scene, chosen) for scene in scenes}
    if chosen.json:
        print(json.dumps({scene: each.as_json() for scene, each in found.items()}, indent=2))
    else:
        for scene, each in found.items():
            print(_table(scene, each, chosen.jobs))
    return 1 if any(each.faults(chosen.jobs) for each in found.values()) else 0


def _run(scene: str, chosen: argparse.Namespace) -> Found:
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s {scene}: {what}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="slimline-faults-") as name:
        folder = (chosen.keep or Path(name)) / scene
        folder.mkdir(parents=True)
        for each in (folder.parent, folder):
            each.chmod(0o755)  # as root, PostgreSQL runs as another user, who must get at its folder
        with SCENES[scene](folder) as make_plan:
            plan = make_plan(model=chosen.model, jobs=chosen.jobs, minutes=chosen.minutes, seed=chosen.seed)
            return weather(plan, tell)


def _table(scene: str, found: Found, jobs: int) -> str:
    faults = found.faults(jobs)
    rows = {
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
    lines = [f"  {what:<20} {said}" for what, said in rows.items()]
    return "\n".join([f"{scene}: {'; '.join(faults) or 'all as it should be'}", *lines])


def _listed(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counted.items())) or "none"


def _sample_model() -> Path:
    beside = Path(__file__).parents[3] / "shared"
    return Path(os.environ.get("SLIMLINE_SHARED", beside)) / "models" / "digits32_mbv2hard.onnx"


if __name__ == "__main__":
    sys.exit(main())
