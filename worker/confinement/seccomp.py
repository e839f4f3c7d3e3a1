"""Seccomp: which system calls a process may still make. A filter in the kernel's BPF, for x86-64 and 64-bit ARM.

Refused is what no computation needs: sockets to others, looking into other processes, namespaces and mounts, loading
code into the kernel, its clock and keys, io_uring (which would do unseen what is refused here), and leaving the
process group that the supervisor kills. Numbers are those of <asm/unistd.h>, <linux/audit.h> and <linux/seccomp.h>.
"""

import ctypes
import errno
import platform
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from worker.confinement.kernel import libc

Families = frozenset[int]
NONE: Families = frozenset()
LOCAL: Families = frozenset({socket.AF_UNIX})
INTERNET: Families = LOCAL | {socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
"""With what tells which interfaces there are. A pair of connected sockets can be made whatever is allowed."""

_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020000
"""Any of the flags of clone that make a namespace."""


@dataclass(frozen=True)
class Machine:
    """What differs between processors; `refused` by name only so that the table can be read."""

    audit: int
    refused: Mapping[str, int]
    socket: int
    clone: int
    starts: tuple[int, ...]
    """fork, vfork, execve, execveat."""
    foreign: int | None = None
    """System calls from this number on belong to another way of calling the kernel."""


_SAME_EVERYWHERE = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
_CLONE3 = 435

_X86_64 = Machine(
    audit=0xC000003E,
    socket=41,
    clone=56,
    starts=(57, 58, 59, 322),
    foreign=0x40000000,
    refused=_SAME_EVERYWHERE
    | {
        "ptrace": 101,
        "syslog": 103,
        "setpgid": 109,
        "setsid": 112,
        "personality": 135,
        "modify_ldt": 154,
        "pivot_root": 155,
        "adjtimex": 159,
        "chroot": 161,
        "acct": 163,
        "settimeofday": 164,
        "mount": 165,
        "umount2": 166,
        "swapon": 167,
        "swapoff": 168,
        "reboot": 169,
        "sethostname": 170,
        "setdomainname": 171,
        "iopl": 172,
        "ioperm": 173,
        "init_module": 175,
        "delete_module": 176,
        "quotactl": 179,
        "clock_settime": 227,
        "kexec_load": 246,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "unshare": 272,
        "perf_event_open": 298,
        "fanotify_init": 300,
        "name_to_handle_at": 303,
        "open_by_handle_at": 304,
        "clock_adjtime": 305,
        "setns": 308,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "kcmp": 312,
        "finit_module": 313,
        "kexec_file_load": 320,
        "bpf": 321,
        "userfaultfd": 323,
    },
)
_AARCH64 = Machine(
    audit=0xC00000B7,
    socket=198,
    clone=220,
    starts=(221, 281),
    refused=_SAME_EVERYWHERE
    | {
        "umount2": 39,
        "mount": 40,
        "pivot_root": 41,
        "chroot": 51,
        "quotactl": 60,
        "acct": 89,
        "personality": 92,
        "unshare": 97,
        "kexec_load": 104,
        "init_module": 105,
        "delete_module": 106,
        "clock_settime": 112,
        "syslog": 116,
        "ptrace": 117,
        "reboot": 142,
        "setpgid": 154,
        "setsid": 157,
        "sethostname": 161,
        "setdomainname": 162,
        "settimeofday": 170,
        "adjtimex": 171,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "swapon": 224,
        "swapoff": 225,
        "perf_event_open": 241,
        "fanotify_init": 262,
        "name_to_handle_at": 264,
        "open_by_handle_at": 265,
        "clock_adjtime": 266,
        "setns": 268,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "kcmp": 272,
        "finit_module": 273,
        "bpf": 280,
        "userfaultfd": 282,
        "kexec_file_load": 294,
    },
)
MACHINES: Mapping[str, Machine] = {"x86_64": _X86_64, "aarch64": _AARCH64}

_Instruction = tuple[int, int, int, int]
"""What to do, how many instructions to skip if so and if not, and the operand."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def restrict(families: Families, *, may_start_processes: bool) -> bool:
    """Refuse dangerous calls with EPERM, here and in all that is started; False where the kernel cannot.

    New sockets may be of `families`. Needs `gain_no_privileges` before.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        return False
    code = [struct.pack("HBBI", *each) for each in _filter(machine, families, may_start_processes=may_start_processes)]
    program = _Program(len(code), b"".join(code))
    done: int = libc().prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)
    return done == 0


def _filter(machine: Machine, families: Families, *, may_start_processes: bool) -> Iterator[_Instruction]:
    """Every test ends the program or goes on behind it, so that none has to jump far."""
    refuse = (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    yield from ((_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, machine.audit), (_RETURN, 0, 0, _KILL))
    yield (_LOAD, 0, 0, _NUMBER)
    if machine.foreign is not None:
        yield from ((_AT_LEAST, 0, 1, machine.foreign), refuse)
    for number in (*machine.refused.values(), *(() if may_start_processes else machine.starts)):
        yield from ((_EQUAL, 0, 1, number), refuse)
    # Its flags lie in memory, where no filter can see them; C libraries then ask the older call.
    yield from ((_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _REFUSE | errno.ENOSYS))
    tests = [*((_EQUAL, 0, 1, family) for family in sorted(families))]
    yield (_EQUAL, 0, 2 + 2 * len(tests), machine.socket)
    yield (_LOAD, 0, 0, _FIRST_ARGUMENT)
    for test in tests:
        yield from (test, (_RETURN, 0, 0, _ALLOW))
    yield refuse
    yield (_EQUAL, 1, 0, machine.clone)
    yield (_RETURN, 0, 0, _ALLOW)
    yield from ((_LOAD, 0, 0, _FIRST_ARGUMENT), (_ANY_BIT, 0, 1, _CLONE_NAMESPACES), refuse)
    if not may_start_processes:
        yield from ((_ANY_BIT, 1, 0, _CLONE_THREAD), refuse)
    yield (_RETURN, 0, 0, _ALLOW)
