"""text-classification: a text in, classes with scores out.

A text longer than the model takes is read in overlapping windows; the scores, after softmax or sigmoid, are averaged
over them with equal weight. A model trained for a number (``problem_type`` "regression") answers its outputs as they
are, in place of scores from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.errors import EngineError, LoadFailed, UnusableInput
from engine.model_spec import ModelSpec
from engine.worker.tasks import classification
from engine.worker.tasks.base import Arrays, Params, TableRows, Windows, not_taken
from engine.worker.tasks.tokenizing import TextTokenizer

REGRESSION = "regression"
"""The step that says that outputs are no scores."""


class TextClassification:
    """See :class:`engine.worker.tasks.base.Task`. A model whose input is text itself gets the text, whole."""

    takes_images = False
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._text_input = text_input(spec)
        self._tokenizer = None if self._text_input is not None else TextTokenizer(spec)

    def check(self) -> None:
        classification.check_outputs(self._spec)

    def from_text(self, text: str) -> Windows:
        if self._tokenizer is None:
            return whole_text(self._spec, text)
        rows = self._tokenizer.encode(text, windows=True)
        return Windows(rows.arrays, len(rows.windows))

    def from_image(self, data: bytes) -> Arrays:
        raise not_taken(self._spec)

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        raise not_taken(self._spec)

    def read_params(self, params: Params) -> Params:
        return classification.read_params(params)

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        if any(step.get("name") == REGRESSION for step in self._spec.steps):
            return self._numbers(raw)
        return averaged(raw, self._spec, params)

    def _numbers(self, raw: Arrays) -> list[list[Any] | EngineError]:
        labels = self._spec.labels
        try:
            values = classification.class_scores(raw, self._spec).mean(axis=0)
        except UnusableInput as error:
            return [error]
        if not np.isfinite(values).all():
            sentence = "The model answered this input with values that are not numbers."
            return [UnusableInput(sentence, code="model_error")]
        named = [
            {"label": labels[i] if labels else f"LABEL_{i}", "score": float(value)} for i, value in enumerate(values)
        ]
        return [sorted(named, key=lambda entry: -entry["score"])]


def averaged(raw: Arrays, spec: ModelSpec, params: Params) -> list[list[Any] | EngineError]:
    """One answer: the classes by their scores' mean over all rows of ``raw``."""
    try:
        scores = classification.class_scores(raw, spec)
    except UnusableInput as error:
        return [error]
    return classification.rank_scores(np.mean(scores, axis=0, keepdims=True), spec, params)


def text_input(spec: ModelSpec) -> str | None:
    """The name of the model's one input where that takes text. Raises LoadFailed where other inputs stand beside it."""
    texts = [tensor.name for tensor in spec.inputs if tensor.dtype == "str"]
    if not texts:
        return None
    if len(spec.inputs) > 1:
        raise LoadFailed(f"The model takes {len(spec.inputs)} inputs, of which one text can only be one.")
    return texts[0]


def whole_text(spec: ModelSpec, text: str) -> Windows:
    """One row holding the text itself, in the declared rank."""
    tensor = spec.inputs[0]
    array = np.full((1,) * max(1, len(tensor.shape)), text, dtype=object)
    return Windows({tensor.name: array}, 1)
