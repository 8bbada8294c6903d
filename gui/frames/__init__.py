"""Pictures that keep coming: what a source of them is (:class:`FrameSource`), and the one in a process of its own."""

from __future__ import annotations

from gui.frames.capture import CaptureSources
from gui.frames.source import Frame, FrameSource, FrameSources, SourceFacts, SourceOrder, SourceState

__all__ = ["CaptureSources", "Frame", "FrameSource", "FrameSources", "SourceFacts", "SourceOrder", "SourceState"]
