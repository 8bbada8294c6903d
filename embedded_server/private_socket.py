"""The way from the TLS terminator to the server behind it, which nobody else can take.

A Unix socket of mode 0600 in a folder of mode 0700; where Python has none (Windows), a port of the loopback address
whose connections begin with a secret line of 256 bits. Never run on Windows; the choice is tested with a
faked platform.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded_server.listening import BACKLOG, sharing_option
from engine.errors import ServerStartError

_WSAEWOULDBLOCK = 10035  # winsock2.h
_BEGUN = frozenset({0, errno.EINPROGRESS, _WSAEWOULDBLOCK})
SOCKET_NAME = "http"


class NoRoomYet(Exception):
    """The server has not taken in those who knocked before: try again in a moment."""


@dataclass(frozen=True, slots=True)
class PrivateSocket:
    """``listener`` is bound and listening, and the server's to close. ``secret`` is what a connection has to send
    first, empty where the file system keeps others out."""

    listener: socket.socket
    address: Any
    secret: bytes
    folder: Path | None

    def dial(self) -> tuple[socket.socket, bool]:
        """(a non-blocking socket, whether it is connected already; else it is once it can be written to).

        Raises OSError (nobody listens any more) and NoRoomYet.
        """
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            number = sock.connect_ex(self.address)
            if self.folder is not None and number == errno.EAGAIN:  # a Unix socket's backlog is full (connect(2))
                raise NoRoomYet
            if number not in _BEGUN:
                raise OSError(number, os.strerror(number))
        except BaseException:
            sock.close()
            raise
        return sock, number == 0

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET if self.folder is None else socket.AF_UNIX

    def close(self) -> None:
        """Close the listener and remove the folder. Idempotent. Raises OSError (the folder cannot be removed)."""
        self.listener.close()
        if self.folder is not None and self.folder.exists():
            shutil.rmtree(self.folder)


def open_private_socket(platform: str = sys.platform) -> PrivateSocket:
    """Raises ServerStartError (``server_self_check``) where the system gives no such socket."""
    try:
        return _loopback(platform) if platform == "win32" else _unix()
    except OSError as error:
        raise ServerStartError(
            "The server could not open its inner connection.", code="server_self_check", details=str(error)
        ) from error


def _unix() -> PrivateSocket:
    folder = Path(tempfile.mkdtemp(prefix="deskside-tls-"))  # mode 0700, by its documentation
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path = folder / SOCKET_NAME
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        shutil.rmtree(folder)
        raise
    return PrivateSocket(listener, str(path), b"", folder)


def _loopback(platform: str) -> PrivateSocket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, sharing_option(platform), 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    secret = f"{secrets.token_hex(32)}\r\n".encode("ascii")
    return PrivateSocket(listener, listener.getsockname(), secret, None)
