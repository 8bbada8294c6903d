"""Encoded recordings to mono samples at the rate a model takes, any part of them at a time.

Decoding is libsndfile's (soundfile), resampling libsoxr's (soxr, quality "HQ"). Two hours in stereo are never in memory
at once: :class:`Recording` looks over the whole once, in blocks, and reads a part when it is asked for.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputTooLarge, UnusableInput

FORMATS = frozenset({"WAV", "WAVEX", "RF64", "FLAC", "OGG"})
"""libsndfile's names of the kinds opened here; it knows many more, most of them rare and old."""
MAX_SECONDS = 4 * 3600
MAX_CHANNELS = 32
RATES = (1_000, 768_000)
SILENCE = 1e-4
"""A recording that never gets louder than this (-80 dB of full scale), mixed to mono, is silent."""
_BLOCK_SECONDS = 10
_MARGIN = 0.05
"""Seconds read around a part before it is resampled: the filter's reach, so that parts meet without a seam."""
_UNKNOWN_LENGTHS = frozenset({0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000})
"""What recorders write as a WAV's length while they do not know it."""

Samples = NDArray[np.float32]


class Recording:
    """One encoded recording as ``length`` mono samples at ``rate`` samples a second (channels are averaged).

    Raises UnusableInput for what is no recording, damaged, cut off, empty or silent, InputTooLarge for one longer than
    ``MAX_SECONDS``.
    """

    def __init__(self, data: bytes, rate: int) -> None:
        self._data = data
        self.rate = rate
        with _open(data) as file:
            self._source_rate, self._source_length = int(file.samplerate), int(file.frames)
            _check_header(file, data)
            self._look_over(file)
        self.length = math.ceil(self._source_length * rate / self._source_rate)

    def _look_over(self, file: Any) -> None:
        """The whole recording once, block by block: complete, finite, not silent."""
        found, peak = 0, 0.0
        while found < self._source_length:
            block = _mono(_read(file, min(_BLOCK_SECONDS * self._source_rate, self._source_length - found)))
            if not len(block):
                raise _cut_off(found / self._source_rate)
            if not np.isfinite(block).all():
                raise UnusableInput("The recording holds samples that are not numbers.")
            found += len(block)
            peak = max(peak, float(np.abs(block).max()))
        if peak < SILENCE:
            raise UnusableInput("The recording is silent: mixed to mono it stays below -80 dB from beginning to end.")

    def part(self, first: int, last: int) -> Samples:
        """Samples ``first`` to ``last`` (not included) at ``rate``; the same whatever was read before."""
        first, last = max(0, first), min(last, self.length)
        if self._source_rate == self.rate:
            return self._source(first, last)
        import soxr

        # A start at which both rates have a sample, so that the resampled grid is that of the whole.
        step_in, step_out = _steps(self._source_rate, self.rate)
        reach = math.ceil(_MARGIN * self.rate) + step_out
        begin = max(0, (first - reach) // step_out)
        end = math.ceil((last + reach) * self._source_rate / self.rate)
        source = self._source(begin * step_in, min(end, self._source_length))
        resampled = soxr.resample(source, self._source_rate, self.rate, quality="HQ")
        offset = first - begin * step_out
        samples = np.zeros(last - first, np.float32)
        found = resampled[offset : offset + len(samples)]
        samples[: len(found)] = found
        return samples

    def _source(self, first: int, last: int) -> Samples:
        with _open(self._data) as file:
            file.seek(first)
            return _mono(_read(file, last - first))


@dataclass(frozen=True, slots=True)
class Outline:
    """``low`` and ``high`` (points,) of equal parts of a recording, over all its channels, cut at -1 and 1."""

    seconds: float
    rate: int
    channels: int
    low: Samples
    high: Samples


def outline(data: bytes, points: int) -> Outline:
    """What a recording looks like, read block by block. A silent one, or one that is cut off, has an outline, too.

    Raises UnusableInput for what is no recording, InputTooLarge for one longer than ``MAX_SECONDS``.
    """
    with _open(data) as file:
        _check_header(file, data)
        frames = int(file.frames)
        points = min(points, frames)
        low, high = np.zeros(points, np.float32), np.zeros(points, np.float32)
        edges = np.linspace(0, frames, points + 1).astype(np.int64)
        at, number = 0, 0
        while at < frames and number < points:
            last = int(np.searchsorted(edges, at + _BLOCK_SECONDS * file.samplerate, side="right")) - 1
            last = max(number + 1, min(last, points))
            block = _read(file, int(edges[last]) - at)
            if not len(block):
                break
            block = np.nan_to_num(block)
            for part in range(number, last):
                piece = block[int(edges[part]) - at : int(edges[part + 1]) - at]
                if len(piece):
                    low[part], high[part] = piece.min(), piece.max()
            at, number = int(edges[last]), last
        seconds = frames / file.samplerate
        return Outline(seconds, int(file.samplerate), int(file.channels), low.clip(-1, 1), high.clip(-1, 1))


def _steps(source: int, target: int) -> tuple[int, int]:
    """How many samples of each rate last equally long, in the least whole numbers."""
    common = math.gcd(source, target)
    return source // common, target // common


def _open(data: bytes) -> Any:
    import soundfile

    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise UnusableInput("This is not a recording that can be opened: expected WAV, FLAC or OGG.") from error
    if file.format not in FORMATS:
        file.close()
        raise UnusableInput(f"Recordings of the kind {file.format} are not opened: expected WAV, FLAC or OGG.")
    return file


def _check_header(file: Any, data: bytes) -> None:
    low, high = RATES
    if not low <= file.samplerate <= high or not 1 <= file.channels <= MAX_CHANNELS:
        raise UnusableInput(
            f"The recording has {file.channels} channels of {file.samplerate} samples a second: at most {MAX_CHANNELS} "
            f"channels, and {low:,} to {high:,} samples are read."
        )
    if file.format in ("WAV", "WAVEX"):
        _check_wav(data, file.samplerate)
    if file.frames < 1:
        raise UnusableInput("The recording is empty: it holds no samples.", code="nothing_to_predict")
    if file.frames > MAX_SECONDS * file.samplerate:
        raise InputTooLarge(f"The recording is longer than {MAX_SECONDS // 3600} hours.")


def _check_wav(data: bytes, rate: int) -> None:
    """libsndfile takes what is there of a WAV that was cut off; its chunks (RIFF, 1991, §2) tell how long it was."""
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"data":
            if size > len(data) - at - 8 and size not in _UNKNOWN_LENGTHS:
                share = (len(data) - at - 8) / size
                raise UnusableInput(f"The recording is cut off: {share:.0%} of its samples are there.")
            return
        at += 8 + size + size % 2


def _read(file: Any, frames: int) -> NDArray[np.float32]:
    import soundfile

    try:
        block: NDArray[np.float32] = file.read(frames, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise UnusableInput("The recording is damaged: it cannot be decoded to its end.") from error
    return block


def _mono(block: NDArray[np.float32]) -> Samples:
    return block[:, 0] if block.shape[1] == 1 else np.asarray(block.mean(axis=1), np.float32)


def _cut_off(seconds: float) -> UnusableInput:
    return UnusableInput(f"The recording is damaged or cut off after {seconds:.1f} seconds.")
