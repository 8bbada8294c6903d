"""The sandbox on macOS: Seatbelt, entered by the process itself. NOT RUN HERE: written from the system's own profiles.

``sandbox_init`` (sandbox.h) is marked deprecated and has no successor for programs that are not in an app bundle;
browsers and Apple's own services enter it so. The language of profiles is that of /System/Library/Sandbox/Profiles;
a later rule outweighs an earlier one. macOS bounds no process's memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

_KEPT_PRIVATE = ("/Users", "/Volumes", "/private/var/folders", "/private/tmp", "/Library/Keychains")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def profile(reads: Iterable[str] | None, writes: Iterable[str]) -> str:
    """What Seatbelt is told. ``reads``: what may be read below the folders of people, None for everything."""
    writes = tuple(writes)
    lines = [
        "(version 1)",
        "(allow default)",
        "(deny network*)",
        "(deny process-fork)",
        "(deny process-exec*)",
        "(deny signal (target others))",
        "(deny file-write*)",
        f"(allow file-write-data {_each('literal', _DEVICES)})",
        f"(allow file-write* {_each('subpath', writes)})" if writes else "",
    ]
    if reads is not None:
        lines += [
            f"(deny file-read-data {_each('subpath', _KEPT_PRIVATE)})",
            f"(allow file-read-data {_each('subpath', (*reads, *writes))})",
        ]
    return "\n".join(line for line in lines if line)


def _each(filter_name: str, paths: Iterable[str]) -> str:
    return " ".join(f"({filter_name} {_quoted(path)})" for path in paths)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def enter_seatbelt(text: str, library: Any) -> None:
    """Take on the profile ``text``, for good. Raises OSError with what the system says.

    ``library`` is ``ctypes.CDLL("/usr/lib/libSystem.B.dylib")``.
    """
    said = ctypes.c_char_p()
    library.sandbox_init.argtypes = (ctypes.c_char_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_char_p))
    if library.sandbox_init(text.encode(), 0, ctypes.byref(said)) != 0:
        raise OSError(0, (said.value or b"no reason given").decode(errors="replace"))
