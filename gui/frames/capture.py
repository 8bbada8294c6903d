"""Sources in a child process (:mod:`engine.worker.capture`): a camera's driver that hangs holds up nothing here.

The child is started as every other is: scrubbed environment, own process group, ends when its input closes. What it
sends is hostile until it is checked.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.prediction import ImagePreview
from engine.protocol import Limits, Message
from engine.settings import WorkerSettings
from engine.supervisor import child_command, child_environment
from engine.worker_client import Exit, WorkerClient
from gui.error_text import CAMERA_CODES, FrameProblem
from gui.frames.source import Frame, SourceFacts, SourceOrder, SourceState
from gui.language import tr

LIST_WITHIN_S = 8.0
OPEN_WITHIN_S = 60.0
"""To the first sign of life: where the system asks the person for permission, this is how long they may think."""
STALLS_AFTER_S = 8.0
MOST_CAMERAS = 64
LONGEST_WORDS = 400
_GRACE_S = 1.0
_LIMITS = Limits(header_bytes=1 << 20, buffers=2, total_bytes=64 << 20)


def start_child(
    settings: WorkerSettings, on_message: Callable[[Message], None], on_exit: Callable[[Exit], None]
) -> WorkerClient:
    """One capture child. Raises OSError where it cannot be started."""
    home = Path(tempfile.mkdtemp(prefix="deskside-capture-"))

    def on_end(exit_: Exit) -> None:
        shutil.rmtree(home, ignore_errors=True)
        on_exit(exit_)

    try:
        return WorkerClient(
            child_command(settings, "--capture"),
            env=child_environment(settings, 1, home),
            cwd=home,
            name="capture",
            on_message=on_message,
            on_exit=on_end,
            limits=_LIMITS,
        )
    except OSError:
        shutil.rmtree(home, ignore_errors=True)
        raise


class CaptureSource:
    """A :class:`~gui.frames.source.FrameSource`; see the module."""

    def __init__(
        self, order: SourceOrder, settings: WorkerSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.order = order
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._child: WorkerClient | None = None
        self._state = SourceState.OPENING
        self._problem: EngineError | None = None
        self._facts: SourceFacts | None = None
        self._frame: Frame | None = None
        self._asked = self._closed = False
        self._heard_at = clock()

    @property
    def pid(self) -> int | None:
        child = self._child
        return child.pid if child is not None else None

    @property
    def state(self) -> SourceState:
        self._notice_silence()
        return self._state

    @property
    def problem(self) -> EngineError | None:
        self._notice_silence()
        return self._problem

    @property
    def facts(self) -> SourceFacts | None:
        return self._facts

    def open(self) -> None:
        with self._lock:
            if self._closed or self._asked:
                return
            self._asked = True
        try:
            child = start_child(self._settings, self._on_message, self._on_exit)
        except OSError as error:
            words = tr("The process for cameras could not be started: {reason}.").format(reason=error.strerror or error)
            with self._lock:
                self._end(FrameProblem(words, code="camera_ended"))
            return
        if self._adopt(child):
            child.send({"type": "open", "kind": self.order.kind, "id": self.order.id})
        else:
            child.close(_GRACE_S)

    def latest(self) -> Frame | None:
        return self._frame

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._end(None)
            child = self._child
        if child is not None:
            child.close(_GRACE_S)

    # -- inside ----------------------------------------------------------------------------------------------------
    def _adopt(self, child: WorkerClient) -> bool:
        """False where the source was closed while the child started: whoever closed it did not see it."""
        with self._lock:
            self._child, self._heard_at = child, self._clock()
            return not self._closed

    def _end(self, problem: EngineError | None) -> None:
        """The first reason stays: what follows from it is no news."""
        if self._state is not SourceState.ENDED:
            self._state, self._problem, self._frame = SourceState.ENDED, problem, None

    def _notice_silence(self) -> None:
        allowed = OPEN_WITHIN_S if self._facts is None else STALLS_AFTER_S
        with self._lock:
            child = self._child
            if self._state is SourceState.ENDED or child is None or self._clock() - self._heard_at <= allowed:
                return
            self._end(FrameProblem(tr("{name} gives no pictures.").format(name=self.order.name), code="camera_lost"))
        child.kill(tr("The source gave nothing for too long."))

    def _on_message(self, message: Message) -> None:
        try:
            with self._lock:
                self._heard_at = self._clock()
                if self._state is not SourceState.ENDED:
                    self._take(message)
        except (KeyError, TypeError, ValueError) as error:
            with self._lock:
                problem = FrameProblem(
                    tr("The camera's process sent what is no picture."), code="camera_ended", details=str(error)
                )
                self._end(problem)
                child = self._child
            if child is not None:
                child.kill(tr("It sent what is no picture."))

    def _take(self, message: Message) -> None:
        """Raises KeyError, TypeError, ValueError where the message is not what it says."""
        header = message.header
        if message.type == "picture":
            self._frame = _frame_of(message)
        elif message.type == "opened":
            width, height = _whole(header["width"]), _whole(header["height"])
            self._facts = SourceFacts(width, height, max(0.0, min(1000.0, float(header["rate"]))))
            self._state = SourceState.RUNNING
        elif message.type == "failed":
            self._end(problem_of(header))
        else:
            raise ValueError(f"unknown message {message.type!r}")

    def _on_exit(self, exit_: Exit) -> None:
        with self._lock:
            words = tr("The process for cameras ended.")
            self._end(None if self._closed else FrameProblem(words, code="camera_ended", details=exit_.last_words))


class CaptureSources:
    """A :class:`~gui.frames.source.FrameSources` whose children are started as ``settings`` say."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._listing: WorkerClient | None = None
        self._closed = False

    def cameras(self) -> list[SourceOrder]:
        """Raises FrameProblem."""
        ended = threading.Event()
        answers: list[Message] = []

        def on_message(message: Message) -> None:
            answers.append(message)
            ended.set()

        try:
            with self._lock:
                if self._closed:
                    return []
                child = self._listing = start_child(self._settings, on_message, lambda _exit: ended.set())
        except OSError as error:
            words = tr("The process for cameras could not be started: {reason}.").format(reason=error.strerror or error)
            raise FrameProblem(words, code="camera_ended") from error
        child.send({"type": "list"})
        answered = ended.wait(LIST_WITHIN_S)
        if not answered:
            child.kill(tr("Listing the cameras took too long."))
        child.close(_GRACE_S)
        with self._lock:
            self._listing = None
        return _cameras_of(answers, child.exit)

    def source(self, order: SourceOrder) -> CaptureSource:
        source = CaptureSource(order, self._settings)
        if self._closed:  # an answer that came while the window closes opens nothing
            source.close()
        return source

    def close(self) -> None:
        with self._lock:
            self._closed = True
            child = self._listing
        if child is not None:
            child.kill(tr("Deskside is closing."))


def problem_of(header: dict[str, Any]) -> FrameProblem:
    """What a child says went wrong; its words are outside text."""
    code = header.get("code")
    words = str(header.get("message") or tr("The camera cannot be used."))[:LONGEST_WORDS]
    return FrameProblem(words, code=code if isinstance(code, str) and code in CAMERA_CODES else "camera_ended")


def _cameras_of(answers: list[Message], exit_: Exit | None) -> list[SourceOrder]:
    if not answers:
        details = exit_.last_words if exit_ is not None else ""
        raise FrameProblem(tr("The cameras could not be listed."), code="camera_ended", details=details)
    header = answers[0].header
    if answers[0].type == "failed":
        raise problem_of(header)
    listed = header.get("cameras")
    if answers[0].type != "cameras" or not isinstance(listed, list):
        raise FrameProblem(tr("The cameras could not be listed."), code="camera_ended")
    return [
        SourceOrder("camera", str(entry.get("id"))[:LONGEST_WORDS], str(entry.get("name"))[:LONGEST_WORDS])
        for entry in listed[:MOST_CAMERAS]
        if isinstance(entry, dict)
    ]


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 30_000:
        raise ValueError(f"{value!r} is no size")
    return value


def _frame_of(message: Message) -> Frame:
    header = message.header
    jpeg, rgb = (bytes(buffer) for buffer in message.buffers)
    width, height = _whole(header["width"]), _whole(header["height"])
    across, down = (_whole(side) for side in header["source_size"])
    number = header["number"]
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{number!r} is no number of a picture")
    if not jpeg.startswith(b"\xff\xd8\xff") or len(rgb) != width * height * 3:
        raise ValueError("the buffers are not what the header says")
    return Frame(number, jpeg, ImagePreview(width, height, rgb, (across, down)))
