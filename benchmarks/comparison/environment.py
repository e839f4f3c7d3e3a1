"""Environments of peers, apart from ours: what an interpreter has, and how one is made. Names no packages itself."""

import argparse
import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

CACHE = Path.home() / ".cache" / "slimline-bench"
_VERSIONS = """
import importlib.metadata, json, sys
found = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))
"""


def python_of(environment: Path) -> Path:
    """Its interpreter."""
    return environment / "bin" / "python"


def installed_versions(python: str | Path, packages: list[str]) -> dict[str, str]:
    """Those of `packages` that the interpreter has; none where there is no such interpreter."""
    if not Path(python).is_file():
        return {}
    command = [str(python), "-c", _VERSIONS, *packages]
    versions: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return versions


def install(environment: Path, pinned: Sequence[str], pip_options: Sequence[str]) -> None:
    """Make the environment. Exits with a message where pip would bring CUDA."""
    venv.create(environment, with_pip=True)
    pip = [str(python_of(environment)), "-m", "pip", "--disable-pip-version-check", "install", *pip_options, *pinned]
    trial = subprocess.run(
        [*pip, "--dry-run", "--quiet", "--report", "-"], stdout=subprocess.PIPE, text=True, check=True
    )
    names = [each["metadata"]["name"] for each in json.loads(trial.stdout)["install"]]
    if cuda := [name for name in names if name.startswith(("nvidia-", "triton"))]:
        sys.exit(f"pip would install {len(cuda)} packages of CUDA; name an index with a CPU build of torch after --")
    subprocess.run([*pip, "--quiet"], check=True)


def install_asked(about: str, default: Path, pinned: Sequence[str]) -> None:
    """The command line of a benchmark that makes its peers' environment; tells what it then has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-env", type=Path, default=default, metavar="DIR", help="default: %(default)s")
    parser.add_argument("pip", nargs="*", help="options for pip, after --")
    asked = parser.parse_args()
    install(asked.peer_env, pinned, asked.pip)
    print(installed_versions(python_of(asked.peer_env), [pin.partition("==")[0] for pin in pinned]))
