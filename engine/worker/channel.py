"""The child's end of the private channel: frames on standard input and output.

Pipes are the one mechanism every platform has. Standard output is moved away first, so that whatever a framework prints
goes to standard error (kept by the parent for "Details") and never into the frames.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO

from engine.protocol import Buffer, Limits, Message, Readable, read_frame, write_all, write_frame


class Channel:
    """Messages from and to the parent. ``send`` may be called from any thread; ``receive`` from one."""

    def __init__(self, incoming: Readable, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._lock = threading.Lock()

    @classmethod
    def from_standard_streams(cls) -> Channel:
        """Take over standard input and output for frames; prints go to standard error from now on."""
        sys.stdout.flush()
        incoming = io.BufferedReader(io.FileIO(os.dup(0)), 1 << 16)
        outgoing = io.FileIO(os.dup(1), "wb")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        return cls(incoming, outgoing)

    def receive(self) -> Message | None:
        """The next message, None when the parent is gone."""
        return read_frame(self._incoming, Limits(total_bytes=8 << 30))

    def send(self, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        """Send one message. Raises OSError when the parent is gone."""
        with self._lock:
            write_frame(self._outgoing, header, buffers)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes that are no frame: what a rogue worker does in tests. Raises OSError when the parent is gone."""
        with self._lock:
            write_all(self._outgoing, data)
