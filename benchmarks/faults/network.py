"""Machines as network namespaces of this kernel, on one switch: each has an address, and its cable can be pulled.

Needs root, `ip` and `nsenter`. Knows nothing of what runs on the machines.
"""

import os
import pwd
import random
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from benchmarks.faults.program import Program

_SWITCH, _SIDE = "switch", "eth0"


class NoNetworkError(RuntimeError):
    """Namespaces cannot be made or joined here; the message says why."""


class _IpError(RuntimeError):
    """`ip` is absent or did not do as it was told."""


class Network:
    """Machines that reach each other, and that this process reaches, while it is entered. On exit all is gone."""

    def __init__(self, machines: Sequence[str]) -> None:
        self._machines = machines
        self._prefix = f"slimline-{os.getpid()}-"
        self._outside = f"sl{os.getpid()}"  # the kernel takes 15 letters
        self._subnet = "10.213.0"

    def __enter__(self) -> Self:
        """Raises NoNetworkError."""
        try:
            self._build()
        except _IpError as error:
            with suppress(_IpError):
                self.__exit__()
            raise NoNetworkError(str(error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        if f" {self._outside}@" in _ip("link"):  # first: it would vanish with its namespace, some time later
            _ip("link", "delete", "dev", self._outside)
        for namespace in _ip("netns", "list").splitlines():
            if namespace.startswith(self._prefix):
                _ip("netns", "delete", namespace.split()[0])

    def address(self, machine: str) -> str:
        """Where the machine is reached."""
        return f"{self._subnet}.{2 + self._machines.index(machine)}"

    def place(self, program: Program, machine: str) -> None:
        """Have a program, not yet started, run on that machine. Its process id stays the same process's."""
        enter = ["nsenter", f"--net=/run/netns/{self._prefix}{machine}"]
        if program.user:
            user = pwd.getpwnam(program.user)
            enter += ["--setuid", str(user.pw_uid), "--setgid", str(user.pw_gid)]
            program.user = None  # it could not enter
        program.command = [*enter, *program.command]

    def cut(self, machine: str) -> None:
        """Pull the cable: packets vanish, no connection is reset."""
        self._on(_SWITCH, "link", "set", "dev", machine, "down")

    def mend(self, machine: str) -> None:
        """Put the cable back."""
        self._on(_SWITCH, "link", "set", "dev", machine, "up")

    def _build(self) -> None:
        taken = _ip("-4", "route")
        self._subnet = random.choice([net for net in (f"10.213.{n}" for n in range(256)) if f"{net}." not in taken])
        self._add_namespace(_SWITCH)
        self._on(_SWITCH, "link", "add", "name", _SWITCH, "type", "bridge")
        self._on(_SWITCH, "link", "set", "dev", _SWITCH, "up")
        for machine in self._machines:
            self._add_namespace(machine)
            self._join(machine, ("-n", self._prefix + machine), _SIDE, self.address(machine))
        self._join("outside", (), self._outside, f"{self._subnet}.1")

    def _add_namespace(self, name: str) -> None:
        _ip("netns", "add", self._prefix + name)
        self._on(name, "link", "set", "dev", "lo", "up")

    def _join(self, port: str, where: tuple[str, ...], side: str, address: str) -> None:
        """A cable from a port of the switch to the interface `side`, which is found by the options `where`."""
        peer = ("type", "veth", "peer", "name", port, "netns", self._prefix + _SWITCH)
        _ip(*where, "link", "add", "name", side, *peer)
        _ip(*where, "address", "add", f"{address}/24", "dev", side)
        _ip(*where, "link", "set", "dev", side, "up")
        self._on(_SWITCH, "link", "set", "dev", port, "master", _SWITCH, "up")

    def _on(self, name: str, *words: str) -> None:
        _ip("-n", self._prefix + name, *words)


def _ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise _IpError("there is no `ip` here (iproute2)") from error
    except subprocess.CalledProcessError as error:
        raise _IpError(f"`ip {' '.join(words)}`: {error.stderr.strip()}") from error
    return done.stdout
