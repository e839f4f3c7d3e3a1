"""What a result depends on beside its inputs: versions of packages, processor, GPU. Nothing heavy is imported here."""

import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app import __version__

_GPU = Path("/dev/nvidiactl")
_CPU_INFO = Path("/proc/cpuinfo")
_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "torch")


@cache
def versions() -> dict[str, str]:
    """Slimline, Python and the installed packages that decide numbers and bytes."""
    found = {"slimline": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def processor() -> str:
    """The name that the processor gives itself."""
    text = _CPU_INFO.read_text() if _CPU_INFO.is_file() else ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0] if names else platform.machine()


def sees_gpu() -> bool:
    """Whether this machine shows a GPU."""
    return _GPU.exists()
