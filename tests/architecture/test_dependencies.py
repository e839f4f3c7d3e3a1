"""What is installed is what constraints.txt says, no more and no less, and fits together."""

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
NOT_PINNED = {"slimline", "pip", "setuptools", "wheel"}  # ourselves, and what makes an environment


def read_pins() -> dict[str, Requirement]:
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    pins = {canonicalize_name(pin.name): pin for pin in map(Requirement, lines)}
    assert len(pins) == len(lines), "a name is pinned twice"
    return pins


def read_installed() -> dict[str, Version]:
    found = {canonicalize_name(each.metadata["Name"]): Version(each.version) for each in distributions()}
    return {name: version for name, version in found.items() if name not in NOT_PINNED}


def test_every_distribution_is_pinned_to_the_version_that_is_installed() -> None:
    pins = read_pins()
    wrong = [
        f"{name} {version}"
        for name, version in read_installed().items()
        if name not in pins or version not in pins[name].specifier
    ]
    assert wrong == []


def test_every_pin_is_exact_and_needed() -> None:
    pins, installed = read_pins(), read_installed()
    assert [str(pin) for pin in pins.values() if [each.operator for each in pin.specifier] != ["=="]] == []
    assert sorted(pins.keys() - installed.keys()) == []


def test_what_is_installed_fits_together() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
