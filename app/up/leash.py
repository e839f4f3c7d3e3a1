"""`python -m app.up.leash PARENT COMMAND…`: becomes COMMAND, which the kernel kills when process PARENT dies.

A program rather than a `preexec_fn`, which may deadlock in a parent with threads. `exec` keeps the kernel's promise.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def leashed(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` for as long as this process lives."""
    return [sys.executable, "-m", "app.up.leash", str(os.getpid()), *command]


def main() -> None:
    """Ask for SIGKILL at the parent's death, then become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the kernel was asked
        sys.exit("the parent process is gone")
    os.execvp(command[0], command)  # noqa: S606  the command comes from our own parts table


if __name__ == "__main__":
    main()
