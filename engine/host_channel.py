"""Where an engine's host listens, and how others reach it: a Unix socket of mode 0600 in its folder.

Where Python has no Unix sockets (Windows): the loopback address, a port of the system's choice, and a secret that a
0600 file in the folder holds. That way was run here on Linux only.
"""

from __future__ import annotations

import contextlib
import hmac
import io
import os
import secrets
import socket
import struct
import tempfile
from hashlib import sha256
from pathlib import Path

import orjson

from engine.settings import write_atomically

SOCKET_FILE = "engine.sock"
ADDRESS_FILE = "engine.address"
SECRET_BYTES = 32
_LONGEST_UNIX_PATH = 100
"""Of 108 bytes (104 on macOS) that a Unix address may have."""
_SECRET_WAIT_S = 5.0
_GREETING = b"+"
"""What a host sends first. A process that dies closes its callers before its listener: a connection made in between
succeeds and ends, and must not pass for a new host."""
_GREETING_WAIT_S = 60.0


def has_unix_sockets() -> bool:
    return hasattr(socket, "AF_UNIX")


class Listener:
    """The host's end. Raises OSError where nothing can be bound. The caller holds the folder's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._secret = b""
        if has_unix_sockets():
            path = socket_path(folder)
            path.unlink(missing_ok=True)  # of a host that is gone: we hold the lock
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            before = os.umask(0o177)
            try:
                self._socket.bind(str(path))
            finally:
                os.umask(before)
        else:
            self._secret = secrets.token_bytes(SECRET_BYTES)
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._socket.bind(("127.0.0.1", 0))
            told = {"port": self._socket.getsockname()[1], "secret": self._secret.hex()}
            write_atomically(folder / ADDRESS_FILE, orjson.dumps(told), mode=0o600)
        self._socket.listen(64)

    def accept(self) -> socket.socket | None:
        """The next caller, None for one that may not. Raises OSError once it is closed."""
        caller, _ = self._socket.accept()
        with contextlib.suppress(OSError):  # it may leave before it has said who it is
            if self._may(caller):
                caller.sendall(_GREETING)
                return caller
        caller.close()
        return None

    def close(self) -> None:
        # A thread in accept() is woken by this, and not by close() alone.
        with contextlib.suppress(OSError):  # not every system shuts a listening socket down
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for path in (socket_path(self._folder), self._folder / ADDRESS_FILE):
            path.unlink(missing_ok=True)

    def _may(self, caller: socket.socket) -> bool:
        if not self._secret:
            return _same_user(caller)
        caller.settimeout(_SECRET_WAIT_S)
        shown = b""
        while len(shown) < SECRET_BYTES and (part := caller.recv(SECRET_BYTES - len(shown))):
            shown += part
        caller.settimeout(None)
        return hmac.compare_digest(shown, self._secret)


def connect(folder: Path) -> socket.socket:
    """A connection to the folder's host, which has greeted. Raises OSError where none listens or it ends meanwhile."""
    made = _connect_unix(folder) if has_unix_sockets() else _connect_loopback(folder)
    try:
        made.settimeout(_GREETING_WAIT_S)
        if made.recv(1) != _GREETING:
            raise ConnectionResetError("the host ended while it was called")
        made.settimeout(None)
    except OSError:
        made.close()
        raise
    return made


def _connect_unix(folder: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.connect(str(socket_path(folder)))
    except OSError:
        made.close()
        raise
    return made


def _connect_loopback(folder: Path) -> socket.socket:
    try:
        told = orjson.loads((folder / ADDRESS_FILE).read_bytes())
        port, secret = int(told["port"]), bytes.fromhex(told["secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise OSError("the host's address cannot be read") from error
    made = socket.create_connection(("127.0.0.1", port))
    made.sendall(secret)
    return made


def close_all(*ends: io.IOBase | socket.socket) -> None:
    """Close a connection and the streams made of it: it ends only with the last of them."""
    for end in ends:
        with contextlib.suppress(OSError):  # what a stream still held for the other end goes nowhere any more
            end.close()


def socket_path(folder: Path) -> Path:
    """In the folder, or where that is too long for an address, in a folder of this user's own in the temporary one.

    Raises OSError where that one is somebody else's.
    """
    path = folder / SOCKET_FILE
    if len(os.fsencode(path)) <= _LONGEST_UNIX_PATH:
        return path
    own = Path(tempfile.gettempdir()) / f"deskside-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    facts = own.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise OSError(f"{own} is not this user's own folder")
    return own / f"{sha256(os.fsencode(folder)).hexdigest()[:24]}.sock"


def _same_user(caller: socket.socket) -> bool:
    """Whether the other end is a process of this user (or root's), where the system tells; its mode says so anyway."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid in (0, os.getuid())
