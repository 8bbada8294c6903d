"""Cameras of Linux, through the kernel's own interface (Video4Linux2): no library, and JPEG as the camera made it.

Structures and numbers are those of ``linux/videodev2.h`` on 64-bit machines. Never run on a camera of ours: the tests
stand in for the kernel (``tests/engine/worker/test_capture.py``).
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from engine.worker.capture.source import CaptureFailed, Facts, Shot

QUERYCAP = 0x80685600
S_FMT = 0xC0D05605
REQBUFS = 0xC0145608
QUERYBUF = 0xC0585609
QBUF = 0xC058560F
DQBUF = 0xC0585611
STREAMON = 0x40045612
S_PARM = 0xC0CC5616

CAN_CAPTURE = 0x1
CAN_STREAM = 0x04000000
STATES_DEVICE = 0x80000000
"""The capabilities of this very device file are stated, beside those of the whole camera."""
BAD_PICTURE = 0x40

_CAPTURE, _MMAP, _ANY_FIELD = 1, 1, 0
_BUFFERS = 4
_WAIT_S = 5.0
_WIDTH, _HEIGHT, _RATE = 1280, 720, 30
DEVICES = Path("/sys/class/video4linux")


def fourcc(name: str) -> int:
    """``MJPG`` as the kernel writes it."""
    return int.from_bytes(name.encode("ascii"), "little")


_JPEGS = (fourcc("MJPG"), fourcc("JPEG"))
_YUYV = fourcc("YUYV")


class Kernel(Protocol):
    """The calls a camera is used by."""

    def open(self, path: str) -> int: ...

    def ioctl(self, fd: int, request: int, data: bytearray) -> None:
        """``data`` is the structure, changed in place. Raises OSError."""

    def map(self, fd: int, length: int, offset: int) -> memoryview: ...

    def wait(self, fd: int, timeout_s: float) -> bool:
        """Whether a picture is there."""

    def close(self, fd: int) -> None: ...


class LinuxKernel:
    def open(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def ioctl(self, fd: int, request: int, data: bytearray) -> None:
        import fcntl

        fcntl.ioctl(fd, request, data, True)

    def map(self, fd: int, length: int, offset: int) -> memoryview:
        return memoryview(mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset))

    def wait(self, fd: int, timeout_s: float) -> bool:
        import select

        return bool(select.select([fd], [], [], timeout_s)[0])

    def close(self, fd: int) -> None:
        os.close(fd)


def list_cameras(folder: Path = DEVICES, kernel: Kernel | None = None) -> list[dict[str, str]]:
    """``[{id, name}]`` of what gives pictures. A device that may not be opened is listed: opening it says why."""
    kernel = kernel or LinuxKernel()
    found = []
    try:
        entries = sorted(folder.iterdir(), key=lambda p: (len(p.name), p.name))
    except OSError:  # no driver for cameras is loaded
        return []
    for entry in entries:
        device = f"/dev/{entry.name}"
        try:
            name = (entry / "name").read_text(encoding="utf-8", errors="replace").strip()
            if not _gives_pictures(device, kernel):
                continue
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EBUSY):
                continue  # gone between listing and asking
        found.append({"id": device, "name": name or entry.name})
    return found


def _gives_pictures(device: str, kernel: Kernel) -> bool:
    fd = kernel.open(device)
    try:
        about = bytearray(104)
        kernel.ioctl(fd, QUERYCAP, about)
    finally:
        kernel.close(fd)
    everything, this = struct.unpack_from("=II", about, 84)
    can = this if everything & STATES_DEVICE else everything
    return bool(can & CAN_CAPTURE) and bool(can & CAN_STREAM)


@dataclass(frozen=True, slots=True)
class _Format:
    width: int
    height: int
    kind: int
    row_bytes: int


class V4l2Camera:
    """``device`` as :func:`list_cameras` names it. Its file is closed by the end of the process."""

    def __init__(self, device: str, kernel: Kernel | None = None) -> None:
        self._device = device
        self._kernel = kernel or LinuxKernel()

    def run(self, opened: Callable[[Facts], None], deliver: Callable[[Shot], None]) -> None:
        try:
            self._run(opened, deliver)
        except OSError as error:
            raise _failure(error) from error

    def _run(self, opened: Callable[[Facts], None], deliver: Callable[[Shot], None]) -> None:
        kernel = self._kernel
        fd = kernel.open(self._device)
        form = self._choose_format(fd)
        rate = self._choose_rate(fd)
        buffers = self._map_buffers(fd)
        kernel.ioctl(fd, STREAMON, bytearray(struct.pack("=I", _CAPTURE)))
        opened(Facts(self._device, form.width, form.height, rate))
        while True:
            if not kernel.wait(fd, _WAIT_S):
                raise CaptureFailed("camera_lost", "The camera is open, but gives no pictures.")
            taken = _buffer(0)
            try:
                kernel.ioctl(fd, DQBUF, taken)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EINTR):
                    continue
                raise
            index, _, used, flags = struct.unpack_from("=IIII", taken, 0)
            data = bytes(buffers[index][:used])
            kernel.ioctl(fd, QBUF, _buffer(index))
            shot = None if flags & BAD_PICTURE else _shot(data, form)
            if shot is not None:
                deliver(shot)

    def _choose_format(self, fd: int) -> _Format:
        """JPEG where the camera makes it, else plain YUYV in a size that every bus carries."""
        for kind, width, height in ((_JPEGS[0], _WIDTH, _HEIGHT), (_YUYV, 640, 480)):
            asked = bytearray(208)
            struct.pack_into("=I4xIIII", asked, 0, _CAPTURE, width, height, kind, _ANY_FIELD)
            self._kernel.ioctl(fd, S_FMT, asked)  # the driver writes the nearest it has
            given = _Format(*struct.unpack_from("=III4xI", asked, 8))
            if given.kind in _JPEGS or given.kind == _YUYV:
                return given
        raise CaptureFailed("camera_support", "The camera gives neither JPEG nor YUYV, the two kinds that are read.")

    def _choose_rate(self, fd: int) -> float:
        asked = bytearray(204)
        struct.pack_into("=I8xII", asked, 0, _CAPTURE, 1, _RATE)
        try:
            self._kernel.ioctl(fd, S_PARM, asked)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY):
                return 0.0  # a camera whose rate cannot be set or asked for
            raise
        numerator, denominator = struct.unpack_from("=II", asked, 12)
        return denominator / numerator if numerator else 0.0

    def _map_buffers(self, fd: int) -> list[memoryview]:
        asked = bytearray(struct.pack("=III8x", _BUFFERS, _CAPTURE, _MMAP))
        self._kernel.ioctl(fd, REQBUFS, asked)
        mapped = []
        for index in range(struct.unpack_from("=I", asked, 0)[0]):
            about = _buffer(index)
            self._kernel.ioctl(fd, QUERYBUF, about)
            offset, length = struct.unpack_from("=I4xI", about, 64)
            mapped.append(self._kernel.map(fd, length, offset))
            self._kernel.ioctl(fd, QBUF, _buffer(index))
        return mapped


def _buffer(index: int) -> bytearray:
    data = bytearray(88)
    struct.pack_into("=II", data, 0, index, _CAPTURE)
    struct.pack_into("=I", data, 60, _MMAP)
    return data


def _shot(data: bytes, form: _Format) -> Shot | None:
    """One picture; None for half of one, as cameras give while they start."""
    if form.kind in _JPEGS:
        return data or None
    if len(data) < form.row_bytes * form.height:
        return None
    return Image.fromarray(rgb_of_yuyv(data, form.width, form.height, form.row_bytes))


def rgb_of_yuyv(data: bytes, width: int, height: int, row_bytes: int) -> np.ndarray:
    """(height, width, 3), by ITU-R BT.601 with luma 16 to 235, which is what V4L2 says where a camera says nothing."""
    rows = np.frombuffer(data, np.uint8, row_bytes * height).reshape(height, row_bytes)[:, : width // 2 * 4]
    pairs = rows.reshape(height, width // 2, 4).astype(np.float32)
    luma = (pairs[:, :, (0, 2)].reshape(height, -1) - 16.0) * (255.0 / 219.0)
    blue, red = (np.repeat(pairs[:, :, at] - 128.0, 2, axis=1) * (255.0 / 224.0) for at in (1, 3))
    pixels = np.stack((luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue), axis=2)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _failure(error: OSError) -> CaptureFailed:
    if error.errno in (errno.EACCES, errno.EPERM):
        return CaptureFailed("camera_refused", "Deskside may not use this camera.")
    if error.errno == errno.EBUSY:
        return CaptureFailed("camera_busy", "Another program is using this camera.")
    if error.errno in (errno.ENOENT, errno.ENXIO):
        return CaptureFailed("camera_missing", "This camera is not there any more.")
    if error.errno in (errno.ENODEV, errno.EIO, errno.EPROTO):
        return CaptureFailed("camera_lost", "The camera was unplugged, or stopped answering.")
    return CaptureFailed("camera_lost", f"The camera cannot be used: {error.strerror or error}.")
