"""Landlock: which files a process may still read and write, and that it may signal only its own kind. Linux only.

It also keeps a process from looking into others: into their memory, environment and descriptors in /proc. Files whose
paths are not listed here are shut; looking whether they exist is not. Numbers are those of <linux/landlock.h>.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from worker.confinement.kernel import libc

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_OLDEST = 2
"""Before this version a file could not be moved from one folder to another."""
_SCOPED_SINCE = 6
_SCOPES = 0b11
"""Abstract Unix sockets, and signals."""

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store")
_SYSTEM = ("/proc", "/sys", "/dev", "/run/nvidia-persistenced")
_SETTINGS = ("ld.so.cache", "localtime", "timezone", "passwd", "group", "nsswitch.conf", "os-release", "alternatives")
_SINKS = ("/dev/null", "/dev/zero", "/dev/full")


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def restrict(folder: Path, *, drivers: bool) -> bool:
    """Leave only `folder` to write to, programs and libraries to read; False where the kernel has no (such) Landlock.

    `drivers` may also write to devices and shared memory. Raises OSError where the kernel has it and refuses all the
    same.
    """
    version = libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))
    if version < _OLDEST:
        return False
    everything = (_TRUNCATE if version == _OLDEST else _TRUNCATE << 1) - 1
    asked = _Ruleset(everything, 0, _SCOPES if version >= _SCOPED_SINCE else 0)
    rules = _call(_CREATE_RULESET, ctypes.byref(asked), ctypes.c_size_t(ctypes.sizeof(asked)), ctypes.c_uint32(0))
    try:
        for place in (str(folder), *(("/dev",) if drivers else _SINKS)):
            _allow(rules, place, everything)
        for place in (*_PROGRAMS, *_SYSTEM, *(f"/etc/{name}" for name in _SETTINGS), *_own_code(folder)):
            _allow(rules, place, _READ)
        for place in sys.path:  # the names in it, which Python looks through, however much else lies there
            _allow(rules, place, _READ_DIR)
        _call(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))
    finally:
        os.close(rules)
    return True


def _own_code(folder: Path) -> Iterator[str]:
    """Where Python, its packages and the libraries they brought lie; no place that holds uploads too."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    libraries = {str(Path("/", line.partition("/")[2]).parent) for line in lines if ".so" in line}
    packages = {place for name in ("app", "worker") for place in sys.modules[name].__path__}
    told = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    for place in (sys.prefix, sys.base_prefix, *sys.path, *told, *libraries, *packages):
        if place and not folder.is_relative_to(Path(place).absolute()):
            yield place


def _allow(rules: int, path: str, access: int) -> None:
    """Add a rule for what lies at `path` and beneath; nothing where there is nothing."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = _Beneath(access if Path(path).is_dir() else access & _OF_FILES, place)
        _call(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    result: int = libc().syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
