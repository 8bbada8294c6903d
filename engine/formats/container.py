"""Zip containers, checked before anything in them is believed (PKWARE APPNOTE 6.3.10).

Refused: more than ``MAX_ENTRIES`` entries, more than ``MAX_RATIO`` times the file's size when unpacked, entries that
overlap, share a name or reach outside the container, links, encryption, bytes before the first entry (two readers
could see two different archives). Members are read in bounded portions and their CRC is checked.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO

from engine.errors import ModelCorrupt
from engine.formats.disk import open_regular, unreadable

LOCAL_HEADER = b"PK\x03\x04"
MAX_ENTRIES = 10_000
MAX_RATIO = 8
SMALL = 16 << 20
"""A container may unpack to this many bytes whatever its ratio: small text compresses well."""
MAX_TOTAL = 64 << 30
MAX_DIRECTORY = 4 << 20
"""Bytes of the central directory: ``MAX_ENTRIES`` entries with names of 350 characters."""
_LOCAL = struct.Struct("<4s5H3I2H")


class _Guarded:
    """A seekable file for ``zipfile`` that refuses the huge reads a forged central directory asks for."""

    def __init__(self, handle: BinaryIO | _Window, size: int) -> None:
        self._handle = handle
        self._size = size

    def read(self, n: int = -1) -> bytes:
        left = max(self._size - self._handle.tell(), 0)
        if min(left if n < 0 else n, left) > MAX_DIRECTORY:
            raise zipfile.BadZipFile("the table of contents is too large")
        return self._handle.read(n)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._handle.close()


class _Window(io.RawIOBase):
    """``size`` bytes of an open file from ``start`` on, as a file of their own."""

    def __init__(self, handle: BinaryIO, start: int, size: int) -> None:
        self._handle = handle
        self._start = start
        self.size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._handle.seek(self._start + self._at)
        data = self._handle.read(max(0, min(len(view), self.size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class ZipContainer:
    """An opened and checked container. Use as a context manager.

    ``appended``: the container follows other bytes, as that of a ``.tflite`` file does. Raises ModelCorrupt naming
    ``path`` and ``expected`` (what the file should have been), ModelUnreadable.
    """

    def __init__(self, path: Path, expected: str, part: _Window | None = None, *, appended: bool = False) -> None:
        self.path = path
        self._expected = expected
        self._appended = appended
        self._handle: BinaryIO | _Window
        try:
            self._handle = open_regular(path) if part is None else part
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            self.size = part.size if part is not None else os.fstat(self._handle.fileno()).st_size
            self._zip = zipfile.ZipFile(_Guarded(self._handle, self.size))
            self._infos = self._checked(self._zip.infolist())
        except ModelCorrupt:
            self._handle.close()
            raise
        except OSError as error:
            self._handle.close()
            raise unreadable(path, error) from error
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OverflowError) as error:
            self._handle.close()
            raise self.corrupt("it is cut off or damaged", str(error)) from error

    def __enter__(self) -> ZipContainer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._handle.close()

    @property
    def names(self) -> list[str]:
        return list(self._infos)

    def size_of(self, name: str) -> int:
        """Bytes of a member when unpacked, as the container states it."""
        return self._infos[name].file_size

    def read(self, name: str, limit: int) -> bytes:
        """A whole member, its CRC checked. Raises ModelCorrupt: missing, damaged, more than ``limit`` bytes."""
        info = self._infos.get(name)
        if info is None:
            raise self.corrupt(f"it holds no {name}")
        if info.file_size > limit:
            raise self.corrupt(f"{name} in it is larger than {limit >> 20} MiB")
        return self._read(info, info.file_size + 1)

    def read_head(self, name: str, size: int) -> bytes:
        """The first ``size`` bytes of a member (no CRC can be checked on a part). Raises ModelCorrupt."""
        return self._read(self._infos[name], size)

    def stored(self, name: str) -> _Window | None:
        """A member that is not packed as a file to seek in, good while the container is open; None where it is packed.
        Its CRC is not checked. Raises ModelCorrupt where it is missing."""
        info = self._infos.get(name)
        if info is None:
            raise self.corrupt(f"it holds no {name}")
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        if isinstance(self._handle, _Window):
            raise self.corrupt("containers in it are nested too deeply")
        self._handle.seek(info.header_offset)
        fields = _LOCAL.unpack(self._handle.read(_LOCAL.size))
        return _Window(self._handle, info.header_offset + _LOCAL.size + fields[9] + fields[10], info.file_size)

    def within(self, name: str) -> ZipContainer:
        """A container that is a stored member of this one, checked the same way and read in place; to be left before
        this one. Raises ModelCorrupt: missing, packed, or no container."""
        part = self.stored(name)
        if part is None:
            raise self.corrupt(f"{name} in it is packed in an unusual way")
        return ZipContainer(self.path, self._expected, part)

    def corrupt(self, why: str, details: str = "") -> ModelCorrupt:
        return ModelCorrupt(f"{self.path.name} cannot be opened, {why}: expected {self._expected}.", details=details)

    def _read(self, info: zipfile.ZipInfo, size: int) -> bytes:
        try:
            with self._zip.open(info) as member:
                data = member.read(size)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise self.corrupt(f"{info.filename} in it is damaged", str(error)) from error
        if len(data) < min(size, info.file_size):
            raise self.corrupt(f"{info.filename} in it is cut off")
        return data

    def _checked(self, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        if not infos:
            raise self.corrupt("it holds nothing")
        if len(infos) > MAX_ENTRIES:
            raise self.corrupt(f"it holds more than {MAX_ENTRIES:,} entries")
        total = sum(info.file_size for info in infos)
        if total > min(max(self.size * MAX_RATIO, SMALL), MAX_TOTAL):
            raise self.corrupt(f"it would unpack to {total:,} bytes, more than {MAX_RATIO} times its size")
        by_name: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            self._check_entry(info)
            if info.filename in by_name:
                raise self.corrupt(f"it holds {info.filename} twice")
            by_name[info.filename] = info
        self._check_ranges(infos)
        return by_name

    def _check_entry(self, info: zipfile.ZipInfo) -> None:
        # orig_filename: zipfile cuts a name at NUL and changes separators, and would hide what a name really is.
        name = info.orig_filename
        path = PurePosixPath(name)
        if not name or "\x00" in name or "\\" in name or path.is_absolute() or ".." in path.parts or name[1:2] == ":":
            raise self.corrupt("it holds an entry whose name reaches outside of it")
        mode = info.external_attr >> 16
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise self.corrupt(f"{info.filename} in it is a link or a device")
        if info.flag_bits & 0x1:
            raise self.corrupt("it is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self.corrupt(f"{info.filename} in it is packed in an unusual way")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise self.corrupt(f"{info.filename} in it states two different sizes")

    def _check_ranges(self, infos: list[zipfile.ZipInfo]) -> None:
        """Entries lie one after the other, from the first byte (of what is not ``appended``) to the central directory,
        headers included."""
        end = 0
        for info in sorted(infos, key=lambda entry: entry.header_offset):
            starts_late = end == 0 and info.header_offset != 0 and not self._appended
            if info.header_offset < end or starts_late:
                raise self.corrupt("entries in it overlap")
            self._handle.seek(info.header_offset)
            raw = self._handle.read(_LOCAL.size)
            if len(raw) < _LOCAL.size:
                raise self.corrupt("it is cut off")
            fields = _LOCAL.unpack(raw)
            magic, flags, method, name_length, extra_length = fields[0], fields[2], fields[3], fields[9], fields[10]
            if magic != LOCAL_HEADER or flags & 0x1 or method != info.compress_type:
                raise self.corrupt(f"{info.filename} in it is damaged")
            end = info.header_offset + _LOCAL.size + name_length + extra_length + info.compress_size
        if end > self._zip.start_dir:
            raise self.corrupt("entries in it overlap")
