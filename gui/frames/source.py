"""The seam between the window and whatever gives pictures: a camera, a recorded clip, a fake."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from engine.errors import EngineError
from engine.prediction import ImagePreview


class SourceState(StrEnum):
    OPENING = "opening"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class SourceOrder:
    """Which source: a camera by the id it was listed with, or the clip at a path. ``name`` is for people."""

    kind: Literal["camera", "clip"]
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What the source says of itself. ``rate`` in pictures a second, 0 where it does not say."""

    width: int
    height: int
    rate: float


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture. ``number`` counts what the source gave, so a gap tells of pictures that were passed over."""

    number: int
    jpeg: bytes
    preview: ImagePreview


class FrameSource(Protocol):
    """One opening of one source. Thread-safe; only :meth:`open` and :meth:`close` may take time."""

    @property
    def state(self) -> SourceState: ...

    @property
    def problem(self) -> EngineError | None:
        """Why it ended; None while it has not, and where it was closed."""

    @property
    def facts(self) -> SourceFacts | None:
        """None until it is open."""

    def open(self) -> None:
        """Begin, once. What goes wrong is told by ``problem``, here or later. After :meth:`close`: nothing."""

    def latest(self) -> Frame | None:
        """The newest picture, the same one until there is a newer; none is ever kept beside it. None before the first
        and after the end."""

    def close(self) -> None:
        """Let the source go, bounded. Idempotent."""


class FrameSources(Protocol):
    """Where sources come from. Thread-safe."""

    def cameras(self) -> list[SourceOrder]:
        """The cameras of this computer; takes time. Raises EngineError where they cannot be listed."""

    def source(self, order: SourceOrder) -> FrameSource: ...

    def close(self) -> None:
        """Give up a listing that is under way; sources made from now on are closed already. Idempotent."""
