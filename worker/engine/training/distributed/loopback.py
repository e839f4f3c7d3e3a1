"""The loopback interface, over which processes on one machine find each other. Linux only."""

import socket
import struct

NAME = "lo"
_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914
_IS_UP = 1
_REQUEST = struct.Struct("16sH22x")
"""The kernel's `struct ifreq`, as far as flags need it."""


def raise_loopback() -> bool:
    """Whether it is up. In a network namespace of one's own it is down at first, and is brought up."""
    try:
        import fcntl  # noqa: PLC0415 - other systems do not have it
    except ImportError:
        return False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            found = fcntl.ioctl(any_socket, _GET_FLAGS, _REQUEST.pack(NAME.encode(), 0))
            _, flags = _REQUEST.unpack(found)
            if not flags & _IS_UP:
                fcntl.ioctl(any_socket, _SET_FLAGS, _REQUEST.pack(NAME.encode(), flags | _IS_UP))
    except OSError:
        return False
    return True
