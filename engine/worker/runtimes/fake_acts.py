"""What a hostile model would do, one act at a time, for the test of the sandbox. Reached by ``spec.options`` alone."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np


def act(name: str, argument: str) -> None:
    """Do it. Raises whatever keeps it from being done; KeyError for a name of none."""
    _ACTS[name](argument)


def _read(path: str) -> None:
    Path(path).read_bytes()


def _write(path: str) -> None:
    Path(path).write_bytes(b"canary")


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def _spawn(path: str) -> None:
    subprocess.run([sys.executable, "-c", f"open({path!r}, 'w')"], check=True)


def _fork(path: str) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _allocate(size: str) -> None:
    np.empty(int(size), np.uint8)


def _allocate_shared(size: str) -> None:
    mmap.mmap(-1, int(size)).close()


def _chmod(path: str) -> None:
    os.chmod(path, 0o777)


def _read_environment(variable: str) -> None:
    """Of this process, and of the one that started it."""
    if variable in os.environ:
        return
    if variable.encode() not in Path(f"/proc/{os.getppid()}/environ").read_bytes():
        raise LookupError(variable)


_ACTS: dict[str, Callable[[str], None]] = {
    "read": _read,
    "write": _write,
    "connect": _connect,
    "spawn": _spawn,
    "fork": _fork,
    "allocate": _allocate,
    "allocate shared": _allocate_shared,
    "chmod": _chmod,
    "read environment": _read_environment,
}
