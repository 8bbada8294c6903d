"""Texts and sounds that the tests and the child that writes the references share. No framework."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH = 24
RATE = 8000
WORDS = (
    "anna", "bert", "went", "to", "paris", "and", "rome", "with", "ten", "old", "friend", "in", "may", "the", "train",
    "was", "late", "again", "nobody", "mind", "new",
)  # fmt: skip
TEXTS = [
    "Anna went to Paris.",
    "Newville, Rome and  Bert's friend\nwas late; Anna zzz minds",
    "the train was late again",
]
LONG = " ".join(WORDS[(8 * number) % len(WORDS)].title() for number in range(200)) + "."


def tone(seconds: float, rate: int, frequency: float = 440.0) -> NDArray[np.float64]:
    """A sine, half as loud as can be, slowly swelling so that its parts differ."""
    time = np.arange(int(seconds * rate)) / rate
    return np.asarray(0.5 * np.sin(2 * np.pi * frequency * time) * (0.2 + 0.8 * time / max(seconds, 1e-9)))


def encoded(samples: Any, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """A file of ``samples``, (frames,) or (frames, channels)."""
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, np.asarray(samples), rate, format=kind, subtype=subtype)
    return stream.getvalue()
