"""Keeps a child process from what a model and a file have no business with, before any of their code is loaded.

Linux: Landlock (linux/landlock.h) for what may be read and written; a seccomp filter (linux/seccomp.h,
linux/filter.h) against programs, processes, sockets, signals, debugging, shared memory and the change of what belongs
to a file beside its contents, which Landlock does not cover; ``PR_SET_NO_NEW_PRIVS``, no capabilities but those of
reading, and resource limits. What a kernel does not offer is left out and told. Windows and macOS have modules of
their own (:mod:`~engine.worker.sandbox_windows`, :mod:`~engine.worker.sandbox_macos`), not run yet. The parent's
death needs no signal: the child ends when its channel does.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import struct
import sys
from collections.abc import Iterable, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.worker.sandbox_macos import enter_seatbelt, profile
from engine.worker.sandbox_windows import enter_job

VARIABLE = "DESKSIDE_SANDBOX"
"""Of the environment: an :class:`Order` as JSON; taken out before anything else runs. Without it nothing is done."""
COMPILED_PACKAGE = "compiled package"
"""In place of an order: PyTorch tries the compiler when it opens an AOTInductor package, and unpacks it into /tmp."""
LARGEST_FILE = 8 << 30
MOST_FILES = 4096
"""Open at once: a model of very many pieces opens each but once."""

_SYSTEM = ("usr", "lib", "lib32", "lib64", "libx32", "bin", "sbin", "opt", "etc", "sys", "nix", "gnu", "snap")
"""Below the root folder: programs and libraries, and nothing of a person's."""
_PROC = (
    "cpuinfo", "meminfo", "stat", "version", "filesystems", "loadavg", "uptime", "devices", "modules", "mounts", "sys",
    "driver", "self",
)  # fmt: skip
"""Below /proc: of the system, of its drivers and of the process itself. Others' environments are there as well."""
_DEVICES = ("null", "full", "random", "urandom")
_READ_ONLY = ("zero",)
"""A shared mapping of it that can be written is memory that no limit counts."""
_GPU_DEVICES = ("dri", "kfd", "nvidia-caps")
_GPUS = ("nvidiactl", "kfd")


@dataclass(frozen=True, slots=True)
class Order:
    """``reads``: files and folders that may be read beside the system's own; None: everything. ``writes``: folders that
    may be written. ``memory_bytes``: private memory it may have, None: no bound."""

    reads: tuple[str, ...] | None
    writes: tuple[str, ...]
    memory_bytes: int | None = None

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Order:
        """Raises ValueError, KeyError, TypeError for what :meth:`to_text` did not write."""
        value = json.loads(text)
        reads = value["reads"]
        return cls(None if reads is None else tuple(reads), tuple(value["writes"]), value["memory_bytes"])


@dataclass(frozen=True, slots=True)
class Reached:
    """What the process is kept from. ``reasons`` say, in sentences, why something is missing."""

    files: bool = False
    network: bool = False
    processes: bool = False
    memory: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """``full``, ``partial`` or ``none``."""
        kept = (self.files, self.network, self.processes, self.memory)
        return "full" if all(kept) else "partial" if any(kept) else "none"

    def to_json(self) -> dict[str, Any]:
        return {"level": self.level} | asdict(self) | {"reasons": list(self.reasons)}


def enter_as_ordered(environment: MutableMapping[str, str] = os.environ) -> Reached:
    """Take the order out of ``environment`` and follow it, for good. Raises ValueError for an order that is none."""
    text = environment.pop(VARIABLE, None)
    if text == COMPILED_PACKAGE:
        return Reached(reasons=("A compiled package starts programs of its own when it is opened.",))
    if text is None:
        return Reached(reasons=("It was switched off in the settings.",))
    try:
        order = Order.from_text(text)
    except (KeyError, TypeError) as error:
        raise ValueError("the sandbox's order could not be read") from error
    return enter(order)


def enter(order: Order, system: str = sys.platform) -> Reached:
    """Follow ``order`` in this process and all that it starts. Best effort: the result says how much was reached."""
    if system == "win32":
        return _enter_windows(order)
    if system == "darwin":
        return _enter_macos(order)
    if system != "linux":
        return Reached(reasons=("This system has no means that Deskside knows.",))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return Reached(reasons=(f"Privileges could not be given up: {os.strerror(ctypes.get_errno())}.",))
    reasons: list[str] = []
    files = _attempt(reasons, "Files", lambda: _landlock(libc, order))
    memory = _attempt(reasons, "Memory", lambda: _limit(order.memory_bytes))
    rights = _attempt(reasons, "Rights", lambda: _give_up_rights(libc))
    bounded = memory and order.memory_bytes is not None
    processes = _attempt(reasons, "Processes and network", lambda: _seccomp(libc, shared_memory=not bounded)) and rights
    # Shared memory and the rights of files are the filter's part.
    files, memory = files and processes, memory and (processes or not bounded)
    return Reached(files, processes, processes, memory, tuple(reasons))


class NotNarrowed(Exception):
    """A process that was to read less from now on cannot be held to it: it must not become a model's."""


def narrow(reached: Reached, readable: Iterable[str], order: Order) -> None:
    """Let a process that entered by an order without ``reads`` read only what this one names, and ``readable``.

    It is what :func:`where_packages_lie` gave before anything else was imported. Landlock binds the thread that takes
    it on and those it starts, so there must be no other thread yet. Raises NotNarrowed, and the process must end.
    """
    if sys.platform != "linux":
        return  # a Windows job keeps no files back, so there is nothing to narrow; macOS keeps no spare
    libc = ctypes.CDLL(None, use_errno=True)
    if _landlock_abi(libc) < 1:
        if reached.files:
            raise NotNarrowed("Landlock is gone.")
        return  # as it would be in a worker that starts now, and as was told
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise NotNarrowed(f"There are {threads} threads already, which the rules would not bind.")
    try:
        _landlock_reading(libc, (*readable, *(order.reads or ())), order.writes)
    except OSError as error:
        raise NotNarrowed(str(error)) from error


def _enter_windows(order: Order) -> Reached:
    reasons = ["Files and network: a job keeps neither back."]
    loader: Any = ctypes  # WinDLL is there on Windows only
    entered = _attempt(
        reasons,
        "Processes and memory",
        lambda: enter_job(order.memory_bytes, loader.WinDLL("kernel32", use_last_error=True)),
    )
    return Reached(processes=entered, memory=entered, reasons=tuple(reasons))


def _enter_macos(order: Order) -> Reached:
    reasons = ["Memory: this system bounds no process's."]
    reads = None if order.reads is None else (*where_packages_lie(), *map(os.path.realpath, order.reads))
    text = profile(reads, map(os.path.realpath, order.writes))
    entered = _attempt(
        reasons, "Files, network and processes", lambda: enter_seatbelt(text, ctypes.CDLL("/usr/lib/libSystem.B.dylib"))
    )
    return Reached(files=entered, network=entered, processes=entered, reasons=tuple(reasons))


class _NotOffered(OSError):
    """The system has no such means, or not for this process."""


def _attempt(reasons: list[str], what: str, step: Any) -> bool:
    try:
        step()
    except OSError as error:
        reasons.append(f"{what}: {error.strerror or error}.")
        return False
    return True


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise _NotOffered(number, f"{what}: {os.strerror(number)}")
    return result


# -- Landlock: linux/landlock.h ---------------------------------------------------------------------------------------
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_CHANGE_FOLDERS = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR to MAKE_SYM
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15  # ABI 2, 3, 5
_TCP = 0b11  # bind and connect, ABI 4
_SCOPES = 0b11  # abstract Unix sockets and signals, ABI 6
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_PR_SET_NO_NEW_PRIVS = 38
_SEES_EMPTYING = 3  # before this ABI a file that may be read can be emptied


def _landlock_abi(libc: ctypes.CDLL) -> int:
    """0 or less where this kernel has no Landlock."""
    return int(libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG))


def _landlock_reading(libc: ctypes.CDLL, reads: Iterable[str], writes: Iterable[str]) -> None:
    """Rules upon those there are, of reading alone: rules of several layers must all allow."""
    read = _READ_FILE | _READ_DIR
    ruleset = _checked(libc.syscall(_CREATE_RULESET, struct.pack("=Q", read), 8, 0), "no ruleset could be made")
    try:
        for path in (*reads, *writes, *_devices(), *(f"/dev/{name}" for name in _READ_ONLY)):
            _allow(libc, ruleset, path, read, read)
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0), "the rules could not be taken on")
    finally:
        os.close(ruleset)


def _landlock(libc: ctypes.CDLL, order: Order) -> None:
    abi = _landlock_abi(libc)
    if abi < 1:
        raise _NotOffered(errno.ENOSYS, "this system's kernel has no Landlock")
    write = _WRITE_FILE | _CHANGE_FOLDERS
    write |= (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    read = _READ_FILE | _READ_DIR
    device = _IOCTL_DEV if abi >= 5 else 0
    handled = write | _EXECUTE | device | (read if order.reads is not None else 0)
    attributes = struct.pack("=QQQ", handled, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _checked(libc.syscall(_CREATE_RULESET, attributes, size, 0), "no ruleset could be made")
    try:
        if order.reads is not None:
            for path in (*where_packages_lie(), *order.reads):
                _allow(libc, ruleset, path, read, handled)
        for path in order.writes:
            _allow(libc, ruleset, path, read | write, handled)
        for path in _devices():
            _allow(libc, ruleset, path, read | _WRITE_FILE | device, handled)
        for name in _READ_ONLY:
            _allow(libc, ruleset, f"/dev/{name}", read, handled)
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0), "the rules could not be taken on")
    finally:
        os.close(ruleset)
    if abi < _SEES_EMPTYING:
        raise _NotOffered(errno.ENOTSUP, f"Landlock of this kernel (ABI {abi}) does not keep files from being emptied")


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, access: int, handled: int) -> None:
    """Allow ``access`` below ``path``; a path that is not there needs no rule."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            access &= _OF_A_FILE
        if access & handled:
            rule = struct.pack("=Qi", access & handled, descriptor)
            _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"no rule for {path}")
    finally:
        os.close(descriptor)


def where_packages_lie() -> list[str]:
    """Where this interpreter, its packages and the system's libraries lie."""
    own = Path(__file__).resolve().parents[2] / "engine"
    paths = [f"/{name}" for name in _SYSTEM] + [f"/proc/{name}" for name in _PROC]
    paths += [sys.prefix, sys.base_prefix, sys.exec_prefix, str(own), *_packages()]
    paths += os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [os.path.realpath(path) for path in paths if path]


def _packages() -> Iterable[str]:
    """The folders of ``sys.path``; of the source tree only what a child imports, which is named beside them."""
    root = os.path.realpath(Path(__file__).resolve().parents[2])
    return [path for path in sys.path if path and os.path.realpath(path) not in (root, "/")]


def _devices() -> list[str]:
    nvidia = [name for name in os.listdir("/dev") if name.startswith("nvidia")]
    return [f"/dev/{name}" for name in (*_DEVICES, *_GPU_DEVICES, *nvidia)]


# -- limits: getrlimit(2) ---------------------------------------------------------------------------------------------
def _limit(memory_bytes: int | None) -> None:
    import resource  # POSIX only

    _lower(resource.RLIMIT_CORE, 0)  # it would hold pieces of the person's files
    _lower(resource.RLIMIT_FSIZE, LARGEST_FILE)
    _lower(resource.RLIMIT_NOFILE, MOST_FILES)
    if memory_bytes is None:
        return
    if any(os.path.exists(f"/dev/{name}") for name in _GPUS):
        raise _NotOffered(errno.ENOTSUP, "not bounded beside a GPU, whose driver maps more than it uses")
    _lower(resource.RLIMIT_DATA, memory_bytes)  # private memory that can be written; not what is only reserved


def _lower(which: int, value: int) -> None:
    import resource

    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(which, (value, value))
    except ValueError as error:
        raise _NotOffered(errno.EPERM, str(error)) from error


# -- capabilities: linux/capability.h, capset(2) ----------------------------------------------------------------------
_CAPABILITY_VERSION = 0x20080522
_KEPT = 1 << 1 | 1 << 2  # DAC_OVERRIDE, DAC_READ_SEARCH: root opens what its owner opened; Landlock says where


def _give_up_rights(libc: ctypes.CDLL) -> None:
    """Of root's rights keep that of opening files: none of the clock, the devices, others' files and processes."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)
    _checked(libc.capget(header, held), "rights could not be read")
    effective, permitted, *_ = struct.unpack("=6I", held.raw)
    kept = struct.pack("=6I", effective & _KEPT, permitted & _KEPT, 0, 0, 0, 0)
    _checked(libc.capset(header, kept), "rights could not be given up")


# -- seccomp: linux/seccomp.h, linux/filter.h, linux/audit.h ----------------------------------------------------------
_CLONE_THREAD = 0x10000
_SOCKET_TYPE, _STREAM, _SEQPACKET = 0xF, 1, 5
_SHARED_ANONYMOUS = 0x21  # MAP_SHARED | MAP_ANONYMOUS
_MAP_KINDS = 0x2F
_IOCTLS = (0x40086602, 0x401C5820, 0x5412)
"""FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR: what belongs to a file. TIOCSTI: to type into somebody's terminal."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_X32 = 0x40000000

# The same numbers on every architecture: calls that came after Linux 5.1, and before it by chance.
_NEWER = {
    "clone3": 435, "io_uring_setup": 425, "pidfd_getfd": 438, "pidfd_send_signal": 424, "process_madvise": 440,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432, "fspick": 433, "mount_setattr": 442,
    "memfd_secret": 447, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466, "file_setattr": 469,
}  # fmt: skip
_ARCHITECTURES: dict[str, tuple[int, int, dict[str, int]]] = {
    "x86_64": (0xC000003E, 317, _NEWER | {
        "execve": 59, "execveat": 322, "fork": 57, "vfork": 58, "clone": 56, "ptrace": 101, "process_vm_readv": 310,
        "process_vm_writev": 311, "kcmp": 312, "socket": 41, "socketpair": 53, "connect": 42, "bind": 49, "bpf": 321,
        "userfaultfd": 323, "perf_event_open": 298, "keyctl": 250, "add_key": 248, "request_key": 249, "syslog": 103,
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308,
        "init_module": 175, "finit_module": 313, "open_by_handle_at": 304,
        "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "prlimit64": 302,
        "chmod": 90, "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
        "utime": 132, "utimes": 235, "utimensat": 280, "futimesat": 261, "setxattr": 188, "lsetxattr": 189,
        "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "ioctl": 16,
        "shmget": 29, "shmat": 30, "shmctl": 31, "semget": 64, "msgget": 68, "mq_open": 240, "memfd_create": 319,
        "mmap": 9,
    }),
    "aarch64": (0xC00000B7, 277, _NEWER | {
        "execve": 221, "execveat": 281, "clone": 220, "ptrace": 117, "process_vm_readv": 270,
        "process_vm_writev": 271, "kcmp": 272, "socket": 198, "socketpair": 199, "connect": 203, "bind": 200,
        "bpf": 280, "userfaultfd": 282, "perf_event_open": 241, "keyctl": 219, "add_key": 217, "request_key": 218,
        "syslog": 116, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268,
        "init_module": 105, "finit_module": 273, "open_by_handle_at": 265,
        "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "prlimit64": 261,
        "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "utimensat": 88, "setxattr": 5, "lsetxattr": 6,
        "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16, "ioctl": 29,
        "shmget": 194, "shmctl": 195, "shmat": 196, "semget": 190, "msgget": 186, "mq_open": 180,
        "memfd_create": 279, "mmap": 222,
    }),
}  # fmt: skip
"""Machine (``uname -m``) -> audit number, number of seccomp(2), calls that are looked at. Both are little-endian."""

_ERRORS = {"clone3": errno.ENOSYS, "socket": errno.EACCES, "connect": errno.EACCES, "bind": errno.EACCES}
"""Of refused calls, else EPERM. glibc falls back from clone3, whose flags a filter cannot see, to clone."""


def _seccomp(libc: ctypes.CDLL, *, shared_memory: bool) -> None:
    known = _ARCHITECTURES.get(platform.machine())
    if known is None or sys.maxsize <= 2**32:
        raise _NotOffered(errno.ENOTSUP, f"no filter is written for {platform.machine()}")
    audit, seccomp, calls = known
    program = _filter(audit, calls, os.getpid(), shared_memory)
    code = ctypes.create_string_buffer(program, len(program))
    address = ctypes.addressof(code)
    header = struct.pack("@HP", len(program) // 8, address)
    # 1: set a filter; 1: for every thread there is.
    _checked(libc.syscall(seccomp, 1, 1, header), "the filter could not be set")


def _filter(audit: int, calls: dict[str, int], own_pid: int, shared_memory: bool) -> bytes:
    """A program over ``struct seccomp_data``: the call's number at 0, the architecture at 4, arguments from 16.

    Of an argument its lower 32 bits are compared, which is all that the kernel takes of these.
    """

    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    def fail(number: int = errno.EPERM) -> bytes:
        return instruction(_RETURN, _FAIL | number)

    def argument(index: int, mask: int | None = None) -> list[bytes]:
        return [instruction(_LOAD, 16 + 8 * index), *([instruction(_AND, mask)] if mask is not None else [])]

    allow = instruction(_RETURN, _ALLOW)

    def only(*values: int) -> list[bytes]:
        """Allow these, refuse all else."""
        jumps = [instruction(_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
        return [*jumps, fail(), allow]

    def all_but(*values: int) -> list[bytes]:
        jumps = [instruction(_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
        return [*jumps, allow, fail()]

    own = [*argument(0), *only(own_pid)]
    looked_at = {
        "clone": [*argument(0), instruction(_ANY_BIT, _CLONE_THREAD, 1, 0), fail(), allow],
        # Datagrams of a pair reach every socket that has a path.
        "socketpair": [*argument(1, _SOCKET_TYPE), *only(_STREAM, _SEQPACKET)],
        "kill": own,
        "tgkill": own,
        "prlimit64": [*argument(0), *only(0, own_pid)],
        "ioctl": [*argument(1), *all_but(*_IOCTLS)],
        "mmap": [allow] if shared_memory else [*argument(3, _MAP_KINDS), *all_but(_SHARED_ANONYMOUS)],
    }
    parts = [
        instruction(_LOAD, 4),
        instruction(_EQUAL, audit, 1, 0),
        fail(),
        instruction(_LOAD, 0),
        instruction(_AT_LEAST, _X32, 0, 1),
        fail(),
    ]
    for name, number in calls.items():
        steps = looked_at.get(name) or [fail(_ERRORS.get(name, errno.EPERM))]
        parts += [instruction(_EQUAL, number, 0, len(steps)), *steps]
    return b"".join([*parts, allow])
