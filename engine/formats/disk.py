"""Opening files without harm: only regular files, only bounded reads, folders walked within limits.

A FIFO, a device or a socket is recognised by its kind and never opened: opening one can block for ever or switch
something on. The kind is checked again on the open handle, because the name may have been given away in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from engine.errors import ModelCorrupt, ModelUnreadable

EXPECTED = "a .keras file, a TensorFlow SavedModel, a PyTorch, ONNX or LiteRT file or a Hugging Face folder"
MAX_ENTRIES = 10_000
MAX_DEPTH = 8


class NotRegular(OSError):
    """The path is a FIFO, device, socket or (where a file was asked for) a folder."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises NotRegular without opening anything else, OSError as ``open`` does."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise NotRegular("not a regular file")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    fd = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegular("not a regular file")
    return os.fdopen(fd, "rb")


def reason(error: OSError) -> str:
    """Why the system refused, in lower-case words."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def unreadable(path: Path, error: OSError) -> ModelUnreadable:
    """The sentence for a model file that cannot be read."""
    if isinstance(error, NotRegular):
        return ModelUnreadable(f"{path.name or path} is not a regular file: expected {EXPECTED}.")
    if isinstance(error, FileNotFoundError):
        return ModelUnreadable(f"{path.name or path} does not exist: expected {EXPECTED}.")
    return ModelUnreadable(f"{path.name or path} cannot be read ({reason(error)}): expected {EXPECTED}.")


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole file. Raises ModelUnreadable, or ModelCorrupt where it holds more than ``limit`` bytes."""
    try:
        with open_regular(path) as handle:
            data = handle.read(limit + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(data) > limit:
        raise ModelCorrupt(f"{path.name} is larger than {limit >> 20} MiB, which no file of its kind should be.")
    return data


def read_head(path: Path, size: int) -> bytes:
    """The first ``size`` bytes, fewer where the file is shorter. Raises ModelUnreadable."""
    try:
        with open_regular(path) as handle:
            return handle.read(size)
    except OSError as error:
        raise unreadable(path, error) from error


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name. Raises ModelUnreadable, also for more than ``MAX_ENTRIES`` entries."""
    found: list[os.DirEntry[str]] = []
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                found.append(entry)
                if len(found) > MAX_ENTRIES:
                    raise ModelUnreadable(
                        f"The folder {folder.name} holds more than {MAX_ENTRIES:,} entries: expected {EXPECTED}."
                    )
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted(found, key=lambda entry: entry.name)


def walk_files(folder: Path) -> Iterator[Path]:
    """Every file below ``folder``, at most ``MAX_ENTRIES`` of them and ``MAX_DEPTH`` folders deep.

    A link to a folder is never followed. Raises ModelUnreadable beyond the bounds, for a link to a folder (what lies
    behind it could be exchanged after consent) and for what is neither file nor folder.
    """
    seen = 0
    pending = [(folder, 1)]
    while pending:
        here, depth = pending.pop()
        for entry in entries(here):
            seen += 1
            path = Path(entry.path)
            if seen > MAX_ENTRIES or depth > MAX_DEPTH:
                raise ModelUnreadable(
                    f"The folder {folder.name} is too large or too deep: at most {MAX_ENTRIES:,} entries and "
                    f"{MAX_DEPTH} levels are read."
                )
            if entry.is_dir(follow_symlinks=False):
                pending.append((path, depth + 1))
            elif entry.is_file():
                yield path
            elif entry.is_symlink() and entry.is_dir():
                raise ModelUnreadable(f"{entry.name} in the folder {folder.name} is a link to another folder.")
            else:
                raise ModelUnreadable(f"{entry.name} in the folder {folder.name} is not a regular file.")
