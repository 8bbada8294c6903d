"""Recordings: any part at any rate is the same as that part of the whole, and two hours are never in memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from engine.errors import InputTooLarge, UnusableInput
from engine.worker.audio import Recording
from engine.worker.tasks.audio_classification import window_starts
from tests.engine.worker.sequences import encoded, tone


@pytest.mark.parametrize(("source", "target"), [(44_100, 16_000), (8_000, 16_000), (48_000, 16_000), (11_025, 16_000)])
def test_parts_are_resampled_as_the_whole_is(source: int, target: int) -> None:
    recording = Recording(encoded(tone(3.0, source), source, subtype="FLOAT"), target)
    assert recording.length == 3 * target
    whole = recording.part(0, recording.length)
    # A sine at another rate is the same sine: what resampling is for, away from where the recording starts and ends.
    middle = slice(target // 4, -target // 4)
    np.testing.assert_allclose(whole[middle], tone(3.0, target)[middle], atol=1e-4)
    for first, last in ((0, 1), (100, 5_000), (target, 2 * target), (12_345, 12_346), (recording.length - 7, 10**9)):
        part = recording.part(first, last)
        assert len(part) == min(last, recording.length) - first
        np.testing.assert_allclose(part, whole[first:last], atol=1e-4)


def test_what_lies_above_half_the_rate_does_not_fold_back() -> None:
    """1 kHz is heard at 16,000 samples a second; 12 kHz cannot be, and must not come back as 4 kHz."""
    samples = tone(1.0, 48_000, 12_000.0)
    recording = Recording(encoded(samples, 48_000, subtype="FLOAT"), 16_000)
    heard = recording.part(2_000, 14_000)
    assert np.abs(heard).max() < 1e-3


def test_channels_are_averaged() -> None:
    left, right = tone(0.5, 8_000), tone(0.5, 8_000, 880.0)
    recording = Recording(encoded(np.stack([left, right], axis=1), 8_000, subtype="FLOAT"), 8_000)
    np.testing.assert_allclose(recording.part(0, 4_000), (left + right) / 2, atol=1e-6)


def test_two_channels_that_cancel_each_other_are_silent() -> None:
    left = tone(0.5, 8_000)
    with pytest.raises(UnusableInput, match="silent: mixed to mono"):
        Recording(encoded(np.stack([left, -left], axis=1), 8_000, subtype="FLOAT"), 8_000)


def test_a_faint_recording_is_not_silent() -> None:
    assert Recording(encoded(tone(0.5, 8_000) * 1e-3, 8_000, subtype="FLOAT"), 8_000).length == 4_000


def test_a_wav_whose_length_was_never_written_is_read() -> None:
    """Recorders that stream leave 0xFFFFFFFF as the length: nothing was cut off."""
    data = bytearray(encoded(tone(0.5, 8_000), 8_000))
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    assert Recording(bytes(data), 8_000).length == 4_000


@pytest.mark.parametrize("kept", [45, 100, 4_000, 8_043])
def test_a_wav_cut_off_anywhere_is_refused(kept: int) -> None:
    data = encoded(tone(0.5, 8_000), 8_000)
    with pytest.raises(UnusableInput, match="cut off"):
        Recording(data[:kept], 8_000)


@pytest.mark.slow
def test_a_stereo_file_of_two_hours_is_read_within_bounded_memory() -> None:
    rate, seconds = 16_000, 7_200
    minute = np.stack([tone(60.0, rate), tone(60.0, rate, 300.0)], axis=1)
    data = encoded(np.tile(minute, (seconds // 60, 1)).astype(np.float32), rate, "FLAC", "PCM_16")
    tracemalloc.start()
    try:
        recording = Recording(data, 8_000)
        starts = window_starts(recording.length, 30 * 8_000)
        peaks = [float(np.abs(recording.part(start, start + 30 * 8_000)).max()) for start in starts[::40]]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert recording.length == seconds * 8_000
    assert len(starts) == 240
    assert all(0.2 < peak < 1.0 for peak in peaks)
    assert most - len(data) < 64 << 20  # decoded, it is 920 MB


def test_a_recording_of_days_is_refused() -> None:
    data = encoded(np.zeros(15 * 3600), 1_000, "FLAC", "PCM_16")
    long = encoded(np.ones(4 * 3600 * 1_000 + 1) * 0.1, 1_000, "FLAC", "PCM_16")
    with pytest.raises(UnusableInput, match="silent"):
        Recording(data, 8_000)
    with pytest.raises(InputTooLarge, match="longer than 4 hours"):
        Recording(long, 8_000)


@pytest.mark.parametrize(
    ("length", "starts"), [(5, [0]), (10, [0]), (11, [0, 1]), (20, [0, 10]), (25, [0, 10, 15]), (30, [0, 10, 20])]
)
def test_windows_cover_all_and_end_where_the_recording_does(length: int, starts: list[int]) -> None:
    assert window_starts(length, 10) == starts
