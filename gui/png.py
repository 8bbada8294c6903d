"""Pixels that are decoded already, as PNG: for a task thread."""

from __future__ import annotations

from PySide6.QtCore import QBuffer, QByteArray, QIODevice
from PySide6.QtGui import QImage, QImageWriter

from gui.error_text import FileProblem
from gui.language import tr


def png_of(image: QImage) -> bytes:
    """Raises FileProblem where ``image`` cannot be written."""
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    if not QImageWriter(buffer, QByteArray(b"png")).write(image):
        raise FileProblem(tr("The pasted picture cannot be used."), code="file_kind")
    return bytes(buffer.data().data())
