"""Which way to the cameras a platform has. Only Linux's was run, and without a camera."""

from __future__ import annotations

import sys

from engine.worker.capture import v4l2
from engine.worker.capture.source import CaptureFailed, Source


def list_cameras(platform: str = sys.platform) -> list[dict[str, str]]:
    """``[{id, name}]`` on ``platform`` (a value of ``sys.platform``). Raises CaptureFailed."""
    if platform == "linux":
        return v4l2.list_cameras()
    try:
        from engine.worker.capture import qt_camera
    except ImportError as error:
        raise _unsupported() from error
    return qt_camera.list_cameras()


def open_camera(camera: str, platform: str = sys.platform) -> Source:
    """The camera that :func:`list_cameras` names so. Raises CaptureFailed."""
    if platform == "linux":
        return v4l2.V4l2Camera(camera)
    try:
        from engine.worker.capture import qt_camera
    except ImportError as error:
        raise _unsupported() from error
    return qt_camera.QtCamera(camera)


def _unsupported() -> CaptureFailed:
    return CaptureFailed("camera_support", "Cameras need Qt Multimedia on this system, and it is not installed.")
