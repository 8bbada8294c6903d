"""The capture child's threads: the main one is the source's, one prepares and sends the newest picture, one listens.

The listening one ends the process at once, whatever the source is stuck in: the system then lets the camera go.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from engine.protocol import Buffer, Message, ProtocolError
from engine.worker.capture.cameras import list_cameras, open_camera
from engine.worker.capture.clip import Clip
from engine.worker.capture.source import CaptureFailed, Facts, Shot, Source, prepare
from engine.worker.limits import inspector_limits

MOST_BAD = 30
"""Pictures in a row that cannot be read before the source is given up."""


class CaptureChannel(Protocol):
    """The part of :class:`engine.worker.channel.Channel` used here."""

    def receive(self) -> Message | None: ...

    def send(self, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None: ...


class Newest:
    """A place for one picture: a newer one takes the place of one that nobody fetched."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._shot: Shot | None = None

    def put(self, shot: Shot) -> None:
        with self._changed:
            self._number += 1
            self._shot = shot
            self._changed.notify()

    def take(self) -> tuple[int, Shot]:
        """The newest, with its number from 1; waits for one."""
        with self._changed:
            while self._shot is None:
                self._changed.wait()
            shot, self._shot = self._shot, None
            return self._number, shot


class CaptureLoop:
    """See the module. ``leave`` ends the process; a test may pass another."""

    def __init__(self, channel: CaptureChannel, leave: Callable[[int], NoReturn] = os._exit) -> None:
        self._channel = channel
        self._leave = leave
        self._newest = Newest()

    def run(self) -> int:
        """Answer the one question. Returns the exit status where the source has ended."""
        inspector_limits().apply()
        try:
            question = self._channel.receive()
            if question is None or question.type == "stop":
                return 0
            if question.type == "list":
                self._say({"type": "cameras", "cameras": list_cameras()})
                return 0
            if question.type != "open":
                print(f"capture: unknown message {question.type!r}", file=sys.stderr)  # noqa: T201  # the parent's log
                return 1
            source = _source_of(question.header)
            for target in (self._listen, self._send):
                threading.Thread(target=target, daemon=True).start()
            source.run(self._on_opened, self._newest.put)
        except CaptureFailed as failed:
            self._tell(failed)
        except ProtocolError as error:
            print(f"capture: {error}", file=sys.stderr)  # noqa: T201  # standard error is the parent's log
            return 1
        return 0

    def _on_opened(self, facts: Facts) -> None:
        header = {"name": facts.name, "width": facts.width, "height": facts.height, "rate": facts.rate}
        self._say({"type": "opened"} | header)

    def _tell(self, failed: CaptureFailed) -> None:
        self._say({"type": "failed", "code": failed.code, "message": failed.message})

    def _say(self, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        try:
            self._channel.send(header, buffers)
        except OSError:
            self._leave(0)  # the parent is gone: there is nobody to tell

    def _listen(self) -> None:
        try:
            while (message := self._channel.receive()) is not None and message.type != "stop":
                print(f"capture: unknown message {message.type!r}", file=sys.stderr)  # noqa: T201  # as above
        except (ProtocolError, OSError) as error:
            print(f"capture: {error}", file=sys.stderr)  # noqa: T201  # as above
        self._leave(0)

    def _send(self) -> None:
        bad = 0
        while bad < MOST_BAD:
            number, shot = self._newest.take()
            try:
                header, buffers = prepare(shot)
            except ValueError as error:
                bad += 1
                print(f"capture: picture {number}: {error}", file=sys.stderr)  # noqa: T201  # as above
                continue
            bad = 0
            self._say({"type": "picture", "number": number} | header, buffers)
        self._tell(CaptureFailed("camera_lost", "The pictures that come cannot be read."))
        self._leave(0)


def _source_of(header: dict[str, Any]) -> Source:
    which = str(header.get("id") or "")
    return open_camera(which) if header.get("kind") == "camera" else Clip(Path(which))
