"""A second start hands its models to the window that runs already.

The meeting point is a local socket (named pipe on Windows) that only this user may open. The message is one line of
JSON, a list of absolute paths; the answer is ``ok``. Needs a QApplication, but no running event loop, to hand over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtNetwork import QLocalServer, QLocalSocket
from PySide6.QtWidgets import QApplication

log = logging.getLogger(__name__)

WAIT_MS = 2000
MAX_MESSAGE = 1 << 16
"""Bytes of one message; more than a command line holds is no second start of ours."""
SOCKET_PATH_MAX = 100
"""A Unix socket's path has 104 bytes on macOS and 108 on Linux (``sockaddr_un.sun_path``), its end included."""
_OK = b"ok\n"


def meeting_point(folder: Path) -> str:
    """The name of the socket for the window whose data lives in ``folder``."""
    name = "deskside-" + hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    if sys.platform == "win32":
        return name
    inside = str(folder.absolute() / "window.sock")
    if len(os.fsencode(inside)) <= SOCKET_PATH_MAX:
        return inside
    return name  # Qt puts it into the temporary folder; its access is the user's alone all the same


def hand_over(name: str, paths: Sequence[Path]) -> bool:
    """Give ``paths`` to the window at ``name``. False where no window answers: then this start is the first."""
    socket = QLocalSocket()
    socket.connectToServer(name)
    if not socket.waitForConnected(WAIT_MS):
        return False
    socket.write(json.dumps([os.fspath(path.absolute()) for path in paths]).encode() + b"\n")
    while not socket.canReadLine():
        if not socket.waitForReadyRead(WAIT_MS):
            return False
    return bytes(socket.readLine().data()) == _OK


def claim(folder: Path, paths: Sequence[Path]) -> MeetingPoint | None:
    """The meeting point of the first start, or None: a window runs already and has taken ``paths``.

    Makes the QApplication where there is none.
    """
    application = QApplication.instance() or QApplication(sys.argv[:1])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = meeting_point(folder)
    return None if hand_over(name, paths) else MeetingPoint(name, application)


class MeetingPoint(QObject):
    """Listens for later starts. ``models_handed_over`` carries a list of paths (empty: only come to the front)."""

    models_handed_over = Signal(list)

    def __init__(self, name: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._server = QLocalServer(self)
        self._server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        self._server.newConnection.connect(self._on_connection)
        # Nobody answered there (hand_over came first), so what is left of a killed window may go. Qt asks for this,
        # though with restricted access it replaces the old socket by a rename anyway.
        QLocalServer.removeServer(name)
        if not self._server.listen(name):
            log.warning("Later starts will open a window of their own: %s", self._server.errorString())

    @property
    def is_listening(self) -> bool:
        return self._server.isListening()

    def close(self) -> None:
        self._server.close()

    def _on_connection(self) -> None:
        while (socket := self._server.nextPendingConnection()) is not None:
            socket.setReadBufferSize(MAX_MESSAGE)
            socket.readyRead.connect(lambda socket=socket: self._on_bytes(socket))
            socket.disconnected.connect(socket.deleteLater)
            self._on_bytes(socket)  # what came before readyRead was connected

    def _on_bytes(self, socket: QLocalSocket) -> None:
        if not socket.canReadLine():
            if socket.bytesAvailable() >= MAX_MESSAGE:
                socket.abort()
            return
        try:
            paths = json.loads(bytes(socket.readLine().data()))
            if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
                raise ValueError("not a list of paths")
        except ValueError as error:
            log.warning("a message from another start could not be read: %s", error)
            socket.abort()
            return
        socket.write(_OK)
        socket.flush()  # the other start waits for it, whatever the listeners do with the event loop
        socket.disconnectFromServer()
        self.models_handed_over.emit([Path(path) for path in paths])
