"""Another program of the same desktop, to drag files from and to copy pictures in: a small window on the X server.

Started by ``drive_desktop``. Commands come as lines on stdin (``offer PATH``: what a drag brings; ``copy PATH``: the
picture goes to the clipboard); what happened goes out as lines on stdout. Ends when stdin ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from PySide6.QtCore import QMimeData, QObject, QPoint, QSocketNotifier, Qt, QUrl, Signal
from PySide6.QtGui import QDrag, QGuiApplication, QImage, QMouseEvent
from PySide6.QtWidgets import QApplication, QWidget


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


class Source(QWidget):
    """Pressing on it and moving on drags the offered file away."""

    def __init__(self) -> None:
        super().__init__()
        self.path = ""
        self._pressed_at = QPoint()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._pressed_at = event.position().toPoint()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        far = (event.position().toPoint() - self._pressed_at).manhattanLength()
        if not event.buttons() & Qt.MouseButton.LeftButton or far < QApplication.startDragDistance():
            return
        drag = QDrag(self)
        mime = QMimeData()
        mime.setUrls([QUrl.fromLocalFile(self.path)])
        drag.setMimeData(mime)
        drag.actionChanged.connect(lambda action: say("would", action.name))
        say("did", drag.exec(Qt.DropAction.CopyAction).name)


class Commands(QObject):
    """Lines of stdin."""

    came = Signal(str)
    ended = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""
        self._notifier = QSocketNotifier(sys.stdin.fileno(), QSocketNotifier.Type.Read, self)
        self._notifier.activated.connect(self._read)

    def _read(self) -> None:
        data = os.read(sys.stdin.fileno(), 4096)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.came.emit(os.fsdecode(line))
        if not data:
            self._notifier.setEnabled(False)
            self.ended.emit()


def main() -> int:
    application = QApplication(sys.argv)
    window = Source()
    left, top, width, height = map(int, sys.argv[1:5])
    window.setGeometry(left, top, width, height)

    def obey(line: str) -> None:
        verb, _, path = line.partition(" ")
        if verb == "offer":
            window.path = path
        else:
            image = QImage(path)
            assert not image.isNull(), path
            QGuiApplication.clipboard().setImage(image)
        say(verb, Path(path).name)

    commands = Commands()
    commands.came.connect(obey)
    commands.ended.connect(application.quit)
    window.show()
    say("shown")
    return application.exec()


if __name__ == "__main__":
    sys.exit(main())
