"""Calls to the kernel that Python has no words for: namespaces, capabilities, what becomes of a process. Linux only."""

import ctypes
import resource
import signal

_SET_PDEATHSIG, _SET_DUMPABLE, _SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
_CAPABILITY_VERSION_3 = 0x20080522
_DAC_READ_SEARCH = 1 << 2


def libc() -> ctypes.CDLL:
    """The C library of this process; `ctypes.get_errno` tells why a call gave -1."""
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    libc().prctl(_SET_PDEATHSIG, signal.SIGKILL)


def gain_no_privileges() -> None:
    """From now on no program that is started has more rights than this one; asked for by Landlock and seccomp."""
    libc().prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def hide_from_same_user() -> None:
    """Have other processes of this user, children among them, read neither our memory nor our environment."""
    libc().prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def leave_network(most_tasks: int) -> bool:
    """Go to an empty network namespace, and away from the shared memory of others; whether that worked.

    Without root it takes a user namespace too, and there the kernel counts our threads apart from the user's others:
    `most_tasks` is then their limit. Root's are never counted.
    """
    apart = _CLONE_NEWNET | _CLONE_NEWIPC
    if libc().unshare(apart) == 0:
        return True
    if libc().unshare(apart | _CLONE_NEWUSER) == 0:
        resource.setrlimit(resource.RLIMIT_NPROC, (most_tasks, most_tasks))
        return True
    return False


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    """Half of the sets; the second half has the numbers from 32."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_capabilities() -> None:
    """Give up what makes root more than a user, but for reading: the program may lie in another user's folder.

    With it goes the right to look into processes that have more, such as the worker's environment.
    """
    header, sets = _Header(_CAPABILITY_VERSION_3, 0), (_Capabilities * 2)()
    libc().capget(ctypes.byref(header), sets)
    kept = sets[0].permitted & _DAC_READ_SEARCH
    libc().capset(ctypes.byref(header), (_Capabilities * 2)(_Capabilities(kept, kept, 0)))
