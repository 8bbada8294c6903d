"""feature-extraction: a text in, the numbers that stand for it out.

Where the package says how (``modules.json`` of sentence-transformers, read into ``spec.steps``), the tokens' vectors
are pooled into one and normalised: ``predictions`` is that vector. Elsewhere it is what transformers' pipeline answers:
the first output, of shape [1, tokens, width]. A text longer than the model takes is refused: half a text has other
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, LoadFailed, UnusableInput
from engine.model_spec import ModelSpec
from engine.worker.tasks.base import CONTEXT, Arrays, Params, TableRows, Windows, not_taken
from engine.worker.tasks.text_classification import text_input, whole_text
from engine.worker.tasks.tokenizing import TextTokenizer

Floats = NDArray[np.float64]
_LEAST_NORM = 1e-12
"""torch.nn.functional.normalize divides by no less."""


def _mean(vectors: Floats) -> Floats:
    return np.asarray(vectors.mean(axis=0))


def _weighted_mean(vectors: Floats) -> Floats:
    weights = np.arange(1, len(vectors) + 1, dtype=np.float64)[:, None]
    return np.asarray((vectors * weights).sum(axis=0) / weights.sum())


POOLINGS: dict[str, Callable[[Floats], Floats]] = {
    "cls": lambda vectors: vectors[0],
    "max": lambda vectors: np.asarray(vectors.max(axis=0)),
    "mean": _mean,
    "mean_sqrt_len_tokens": lambda vectors: np.asarray(vectors.sum(axis=0) / np.sqrt(len(vectors))),
    "weightedmean": _weighted_mean,
    "lasttoken": lambda vectors: vectors[-1],
}
"""From the vectors of the tokens that are no padding, of shape (tokens, width), to one
(``sentence_transformers/models/Pooling.py``)."""


class FeatureExtraction:
    """See :class:`engine.worker.tasks.base.Task`."""

    takes_images = False
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        steps = {str(step["name"]): step for step in spec.steps}
        self._poolings = tuple(steps["pooling"]["modes"]) if "pooling" in steps else ()
        self._normalize = "normalize" in steps
        tokenize = steps.get("tokenize", {})
        self._lower = bool(tokenize.get("lower"))
        self._text_input = text_input(spec)
        self._tokenizer = None
        if self._text_input is None:
            self._tokenizer = TextTokenizer(spec, tokenize.get("max_length"))

    def check(self) -> None:
        if unknown := [mode for mode in self._poolings if mode not in POOLINGS]:
            raise LoadFailed(f"Tokens pooled by {unknown[0]!r} are not known; known are {', '.join(POOLINGS)}.")

    def from_text(self, text: str) -> Windows:
        if self._tokenizer is None:
            return whole_text(self._spec, text)
        rows = self._tokenizer.encode(text.lower() if self._lower else text, windows=False)
        return Windows(rows.arrays, 1, rows.windows)

    def from_image(self, data: bytes) -> Arrays:
        raise not_taken(self._spec)

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        raise not_taken(self._spec)

    def read_params(self, params: Params) -> Params:
        return {}

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        outputs = {name: array for name, array in raw.items() if name != CONTEXT and array.dtype.kind == "f"}
        if not outputs:
            return [UnusableInput("The model answered with no numbers.", code="model_error")]
        if not self._poolings:
            features = next(iter(outputs.values()))
        else:
            attended = raw[CONTEXT][0].attended
            tokens = next((a for a in outputs.values() if a.ndim == 3 and a.shape[1] == len(attended)), None)
            if tokens is None:
                shapes = ", ".join(f"{name} {list(a.shape)}" for name, a in outputs.items())
                sentence = f"The model answered with {shapes}; a vector for each of {len(attended)} tokens was wanted."
                return [UnusableInput(sentence, code="model_error")]
            vectors = tokens[0].astype(np.float64)[attended]
            features = np.concatenate([POOLINGS[mode](vectors) for mode in self._poolings])
            if self._normalize:
                features = features / max(float(np.linalg.norm(features)), _LEAST_NORM)
        if not np.isfinite(features).all():
            sentence = "The model answered this input with values that are not numbers."
            return [UnusableInput(sentence, code="model_error")]
        values: list[Any] = features.astype(np.float32).tolist()
        return [values]
