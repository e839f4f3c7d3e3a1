"""Runs a module of the benchmarks in an interpreter of its own, told its work by standard input."""

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def carry_out(python: str | Path, module: str, told: str, limit_s: float) -> str:
    """Wait for it to end, `limit_s` at most. Tells how it ended, for where it left no answer."""
    command = [str(python), "-m", module]
    try:
        process = subprocess.run(
            command, input=told, capture_output=True, text=True, cwd=REPOSITORY, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"took over {limit_s:g} s"
    last = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"ended with code {process.returncode}: {last}"
