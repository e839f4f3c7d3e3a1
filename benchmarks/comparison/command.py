"""What the command lines of benchmarks share: where samples are, and how results are given."""

import argparse
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.comparison.processes import REPOSITORY
from worker.surroundings import versions


def add_shared(parser: argparse.ArgumentParser) -> None:
    """The folder of sample models and data."""
    default = REPOSITORY.parent / "shared"
    parser.add_argument("--shared", type=Path, default=default, help="folder with models/ and data/")


def add_output(parser: argparse.ArgumentParser) -> None:
    """For machines, for documents, and for CI."""
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="write every figure there")
    add(
        "--markdown", action="store_true", help="the document's tables on standard output, the others on standard error"
    )
    add("--strict", action="store_true", help="exit with 1 where a goal is missed")


def describe_machine() -> dict[str, Any]:
    """What figures depend on."""
    return {"platform": platform.platform(), "cores": os.cpu_count(), "versions": versions()}
