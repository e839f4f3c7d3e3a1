"""Versions of what a result depends on."""

import platform
from importlib.metadata import PackageNotFoundError, version

from app import __version__

_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "torch")


def versions() -> dict[str, str]:
    """Slimline, Python and the installed packages that decide numbers and bytes."""
    found = {"slimline": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
