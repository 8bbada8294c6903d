"""audio-classification: a recording in, classes with scores out.

Prepared by the model's own feature extractor (``preprocessor_config.json``), at its rate. A recording longer than one
window is read in windows that follow one another, the last one ending where the recording does; the scores, after
softmax or sigmoid, are averaged over them with equal weight. The windows are decoded when they are run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.codecs.arrays import numpy_dtype
from engine.errors import EngineError, LoadFailed, UnusableInput
from engine.model_spec import ModelSpec
from engine.worker.audio import RATES, Recording, Samples
from engine.worker.runtimes.transformers_runtime import import_transformers
from engine.worker.tasks import classification
from engine.worker.tasks.base import Arrays, Params, TableRows, Windows, not_taken
from engine.worker.tasks.text_classification import averaged

WINDOW_SECONDS = 30.0
"""A window of a model that takes any length. Others take what their feature extractor fills: ``chunk_length`` seconds
(Whisper), or ``max_length`` frames of 10 ms (Audio Spectrogram Transformer)."""
_FRAME_SECONDS = 0.01


class AudioClassification:
    """See :class:`engine.worker.tasks.base.Task`."""

    takes_images = False
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        folder = spec.model_file if spec.model_file.is_dir() else spec.model_file.parent
        transformers = import_transformers()
        try:
            self._extractor: Any = transformers.AutoFeatureExtractor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            self.rate = int(self._extractor.sampling_rate)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
            raise LoadFailed(
                f"What prepares a recording for {spec.path.name} (preprocessor_config.json) could not be opened by "
                "transformers."
            ) from error
        self.window = max(1, int(_window_seconds(self._extractor) * self.rate))

    def check(self) -> None:
        classification.check_outputs(self._spec)
        if not RATES[0] <= self.rate <= RATES[1]:
            raise LoadFailed(f"{self._spec.path.name} wants {self.rate} samples a second, which no recording has.")

    def from_audio(self, data: bytes) -> Windows:
        recording = Recording(data, self.rate)
        starts = window_starts(recording.length, self.window)
        if len(starts) == 1:
            return Windows(self._prepare([recording.part(0, recording.length)]), 1)

        def source(first: int, last: int) -> Arrays:
            return self._prepare([recording.part(start, start + self.window) for start in starts[first:last]])

        # The first window tells what all are like, and that the extractor can prepare them at all.
        shapes = {name: array[:0] for name, array in source(0, 1).items()}
        return Windows(shapes, len(starts), source=source)

    def _prepare(self, parts: Sequence[Samples]) -> Arrays:
        """The extractor's tensors, a row for each of ``parts``, as the model's inputs take them."""
        rows = [self._extractor(part, sampling_rate=self.rate, return_tensors="np") for part in parts]
        wanted = {tensor.name: tensor.dtype for tensor in self._spec.inputs}
        arrays: Arrays = {}
        for name in wanted or rows[0]:
            if name not in rows[0]:
                raise UnusableInput(f"The feature extractor gives no {name!r}, which the model takes.")
            array = np.concatenate([row[name] for row in rows])
            arrays[name] = array.astype(numpy_dtype(wanted.get(name, "float32")), copy=False)
        return arrays

    def from_image(self, data: bytes) -> Arrays:
        raise not_taken(self._spec)

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        raise not_taken(self._spec)

    def read_params(self, params: Params) -> Params:
        return classification.read_params(params)

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        return averaged(raw, self._spec, params)


def window_starts(length: int, window: int) -> list[int]:
    """Where windows begin that cover ``length`` samples: one after another, the last ending at the end."""
    if length <= window:
        return [0]
    starts = list(range(0, length - window, window))
    return [*starts, length - window]


def _window_seconds(extractor: Any) -> float:
    if isinstance(seconds := getattr(extractor, "chunk_length", None), int | float) and seconds > 0:
        return float(seconds)
    frames = getattr(extractor, "max_length", None)
    if isinstance(frames, int) and frames > 0 and hasattr(extractor, "num_mel_bins"):
        return frames * _FRAME_SECONDS
    return WINDOW_SECONDS
