"""Cameras of Windows and macOS, through Qt Multimedia: the part of Qt that ``deskside[camera]`` installs.

Never run on a camera: no test machine of ours has one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from PIL import Image
from PySide6.QtCore import QCameraPermission, Qt
from PySide6.QtGui import QGuiApplication, QImage
from PySide6.QtMultimedia import (
    QCamera,
    QCameraDevice,
    QMediaCaptureSession,
    QMediaDevices,
    QVideoFrame,
    QVideoSink,
)

from engine.worker.capture.source import CaptureFailed, Facts, Shot


def _application() -> QGuiApplication:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # nothing is shown from here
    existing = QGuiApplication.instance()
    return existing if isinstance(existing, QGuiApplication) else QGuiApplication([])


def _id_of(device: QCameraDevice) -> str:
    return bytes(device.id().toHex().data()).decode("ascii")


def list_cameras() -> list[dict[str, str]]:
    """``[{id, name}]``, the system's default first."""
    application = _application()
    assert application is not None
    default = _id_of(QMediaDevices.defaultVideoInput())
    found = [{"id": _id_of(device), "name": device.description()} for device in QMediaDevices.videoInputs()]
    return sorted(found, key=lambda camera: camera["id"] != default)


def picture_of(image: QImage) -> Image.Image:
    """A QImage as RGB pixels of their own."""
    rgb = image.convertToFormat(QImage.Format.Format_RGB888)
    size, row_bytes = (rgb.width(), rgb.height()), rgb.bytesPerLine()
    return Image.frombytes("RGB", size, bytes(rgb.constBits()), "raw", "RGB", row_bytes)


class QtCamera:
    """``camera`` as :func:`list_cameras` names it. Its events are handled in :meth:`run`, on the main thread."""

    def __init__(self, camera: str) -> None:
        self._id = camera
        self._failure: CaptureFailed | None = None

    def run(self, opened: Callable[[Facts], None], deliver: Callable[[Shot], None]) -> None:
        application = _application()
        self._ask_permission(application)
        device = next((d for d in QMediaDevices.videoInputs() if _id_of(d) == self._id), None)
        if device is None:
            raise CaptureFailed("camera_missing", "This camera is not there any more.")
        camera, session, sink = QCamera(device), QMediaCaptureSession(), QVideoSink()
        session.setCamera(camera)
        session.setVideoSink(sink)
        is_open = False

        def on_frame(frame: QVideoFrame) -> None:
            nonlocal is_open
            image = frame.toImage()
            if image.isNull():
                return
            if not is_open:
                is_open = True
                rate = camera.cameraFormat().maxFrameRate()
                opened(Facts(device.description(), image.width(), image.height(), max(0.0, rate)))
            deliver(picture_of(image))

        def on_error(_error: QCamera.Error, text: str) -> None:
            self._failure = CaptureFailed("camera_lost", f"The camera cannot be used: {text or 'it stopped'}.")
            application.quit()

        sink.videoFrameChanged.connect(on_frame)
        camera.errorOccurred.connect(on_error)
        camera.start()
        application.exec()
        raise self._failure or CaptureFailed("camera_lost", "The camera stopped.")

    @staticmethod
    def _ask_permission(application: QGuiApplication) -> None:
        """Where the system asks the person, wait for the answer. Raises CaptureFailed where it was no."""
        permission = QCameraPermission()
        status = application.checkPermission(permission)
        if status is Qt.PermissionStatus.Undetermined:
            application.requestPermission(permission, application, lambda _answer: application.quit())
            application.exec()
            status = application.checkPermission(permission)
        if status is not Qt.PermissionStatus.Granted:
            raise CaptureFailed("camera_refused", "Deskside may not use the camera.")
