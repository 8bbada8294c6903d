"""A stand-in for the kernel's Video4Linux2: one camera, whose every call is checked against ``linux/videodev2.h``.

``python -m tests.engine.worker.fake_kernel MODE --capture`` is the capture child over it.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import sys
import threading
from typing import Any

import numpy as np
from PIL import Image

from engine.worker.capture import v4l2
from engine.worker.capture.source import CaptureFailed

WIDTH, HEIGHT = 64, 48
BUFFERS = 3
BETWEEN_S = 0.01
CAMERA = {"id": "/dev/video7", "name": "Desk camera"}


def picture(number: int, kind: int) -> bytes:
    """A grey that grows with ``number``."""
    grey = 40 + number % 150
    if kind == v4l2.fourcc("YUYV"):
        return bytes([grey, 128]) * (WIDTH * HEIGHT)
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (grey, grey, grey)).save(stream, "JPEG")
    return stream.getvalue()


class FakeKernel:
    """``mode``: jpeg, yuyv, h264 (neither), refused, busy, gone, unplugged (after three pictures), silent, hangs, torn
    (every other picture is cut off), marked (every other is called bad), damaged (all are cut off), metadata (a device
    that gives no pictures)."""

    def __init__(self, mode: str = "jpeg") -> None:
        self.mode = mode
        self.kind = 0
        self.opened: list[str] = []
        self.closed: list[int] = []
        self.queued: list[int] = []
        self.streams = False
        self.given = 0
        self._maps = [memoryview(bytearray(WIDTH * HEIGHT * 2 + 4096)) for _ in range(BUFFERS)]

    def open(self, path: str) -> int:
        if self.mode in ("refused", "busy", "gone"):
            number = {"refused": errno.EACCES, "busy": errno.EBUSY, "gone": errno.ENOENT}[self.mode]
            raise OSError(number, os.strerror(number))
        self.opened.append(path)
        return 40 + len(self.opened)

    def close(self, fd: int) -> None:
        self.closed.append(fd)

    def wait(self, fd: int, timeout_s: float) -> bool:
        assert self.streams
        threading.Event().wait(BETWEEN_S)
        if self.mode == "hangs":
            threading.Event().wait()
        return self.mode != "silent"

    def map(self, fd: int, length: int, offset: int) -> memoryview:
        assert length == len(self._maps[0])
        return self._maps[offset // 4096]

    def ioctl(self, fd: int, request: int, data: bytearray) -> None:
        # The size of the structure is part of the request's number.
        assert len(data) == request >> 16 & 0x3FFF, hex(request)
        {
            v4l2.QUERYCAP: self._about,
            v4l2.S_FMT: self._format,
            v4l2.S_PARM: self._rate,
            v4l2.REQBUFS: self._reserve,
            v4l2.QUERYBUF: self._where,
            v4l2.QBUF: self._queue,
            v4l2.DQBUF: self._fill,
            v4l2.STREAMON: self._start,
        }[request](data)

    def _about(self, data: bytearray) -> None:
        device = 0x0 if self.mode == "metadata" else v4l2.CAN_CAPTURE | v4l2.CAN_STREAM
        everything = v4l2.CAN_CAPTURE | v4l2.CAN_STREAM | v4l2.STATES_DEVICE
        struct.pack_into("=II", data, 84, everything, device)

    def _format(self, data: bytearray) -> None:
        asked = struct.unpack_from("=I", data, 16)[0]
        assert self._capture(data) == 1
        has = {"yuyv": "YUYV", "h264": "H264"}.get(self.mode, "MJPG")
        self.kind = v4l2.fourcc(has)
        assert asked in (v4l2.fourcc("MJPG"), v4l2.fourcc("YUYV"))
        struct.pack_into("=IIIII", data, 8, WIDTH, HEIGHT, self.kind, 1, WIDTH * 2)

    @staticmethod
    def _capture(data: bytearray) -> int:
        return int(struct.unpack_from("=I", data, 0)[0])

    def _rate(self, data: bytearray) -> None:
        assert struct.unpack_from("=II", data, 12) == (1, 30)
        if self.mode == "yuyv":
            raise OSError(errno.ENOTTY, "no rate")
        struct.pack_into("=II", data, 12, 1, 25)

    def _reserve(self, data: bytearray) -> None:
        count, kind, memory = struct.unpack_from("=III", data, 0)
        assert (kind, memory) == (1, 1)
        assert count >= BUFFERS
        struct.pack_into("=I", data, 0, BUFFERS)

    def _checked(self, data: bytearray) -> int:
        index, kind = struct.unpack_from("=II", data, 0)
        assert (kind, struct.unpack_from("=I", data, 60)[0]) == (1, 1)
        return int(index)

    def _where(self, data: bytearray) -> None:
        struct.pack_into("=Q", data, 64, self._checked(data) * 4096)
        struct.pack_into("=I", data, 72, len(self._maps[0]))

    def _queue(self, data: bytearray) -> None:
        index = self._checked(data)
        assert index not in self.queued
        self.queued.append(index)

    def _start(self, data: bytearray) -> None:
        assert self._capture(data) == 1
        assert len(self.queued) == BUFFERS
        self.streams = True

    def _fill(self, data: bytearray) -> None:
        self._checked(data)
        if self.given == 1 and self.mode == "jpeg":
            self.given += 1
            raise OSError(errno.EAGAIN, "not yet")
        if self.given >= 3 and self.mode == "unplugged":
            raise OSError(errno.ENODEV, "gone")
        index = self.queued.pop(0)
        made = picture(self.given, self.kind)
        if self.mode == "damaged" or (self.mode == "torn" and self.given % 2):
            made = made[: len(made) // 2]
        self.given += 1
        self._maps[index][: len(made)] = made
        flags = v4l2.BAD_PICTURE if self.mode == "marked" and self.given % 2 else 0
        struct.pack_into("=IIII", data, 0, index, 1, len(made), flags)


def _list(mode: str) -> list[dict[str, str]]:
    if mode == "none":
        return []
    if mode == "unsupported":
        raise CaptureFailed("camera_support", "Cameras need Qt Multimedia on this system, and it is not installed.")
    if mode == "dies":
        os._exit(9)
    return [CAMERA]


def main(mode: str) -> None:
    from engine.worker.capture import loop
    from engine.worker.channel import Channel

    patched: Any = loop
    patched.open_camera = lambda which: v4l2.V4l2Camera(which, FakeKernel(mode))
    patched.list_cameras = lambda: _list(mode)
    channel = Channel.from_standard_streams()
    if mode == "liar":
        channel.receive()
        channel.send({"type": "opened", "name": "x", "width": 8, "height": 8, "rate": 30})
        lie = {"type": "picture", "number": 1, "width": 8, "height": 8, "source_size": [8, 8]}
        channel.send(lie, [b"\xff\xd8\xff", np.zeros(3, np.uint8).tobytes()])
        channel.receive()
    os._exit(loop.CaptureLoop(channel).run())


if __name__ == "__main__":
    main(sys.argv[1])
