"""token-classification: a text in, the spans that have a name out, with their place in the text.

The shape is that of transformers' pipeline with ``aggregation_strategy="simple"``: ``entity_group``, ``score`` (the
mean over the span's tokens), ``word``, ``start`` and ``end`` in characters of the text; with ``"none"``, ``entity``,
``index`` (the token's number in the text, from 1) and one entry a token. Tokens of the class ``O`` are left out.

A text longer than the model takes is read in overlapping windows; of a token that lies in two of them, the window
counts in which it lies further from the edge. Spans are made after that, and so may reach over windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, LoadFailed, Malformed, UnusableInput
from engine.model_spec import ModelSpec
from engine.worker.tasks import classification
from engine.worker.tasks.base import CONTEXT, Arrays, Params, TableRows, Windows, not_taken
from engine.worker.tasks.tokenizing import TextTokenizer, TokenWindow

STRATEGIES = ("simple", "none")
IGNORED = "O"


@dataclass(frozen=True, slots=True)
class _Token:
    label: str
    score: float
    index: int
    text: str
    start: int
    end: int


class TokenClassification:
    """See :class:`engine.worker.tasks.base.Task`."""

    takes_images = False
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._tokenizer = TextTokenizer(spec)

    def check(self) -> None:
        if self._spec.postprocessing.activation not in ("softmax", "none"):
            raise LoadFailed("The scores of a token's classes sum up to 1: activation must be softmax or none.")

    def from_text(self, text: str) -> Windows:
        rows = self._tokenizer.encode(text, windows=True)
        return Windows(rows.arrays, len(rows.windows), rows.windows)

    def from_image(self, data: bytes) -> Arrays:
        raise not_taken(self._spec)

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        raise not_taken(self._spec)

    def read_params(self, params: Params) -> Params:
        """``threshold`` (0 to 1) and ``aggregation_strategy`` (``simple``, ``none``). Raises Malformed."""
        checked = {k: v for k, v in classification.read_params(params).items() if k == "threshold"}
        if (strategy := params.get("aggregation_strategy")) is not None:
            if strategy not in STRATEGIES:
                raise Malformed(f"aggregation_strategy must be one of {', '.join(STRATEGIES)}.")
            checked["aggregation_strategy"] = strategy
        return checked

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        try:
            tokens = self._tokens(raw)
        except UnusableInput as error:
            return [error]
        if params.get("aggregation_strategy") == "none":
            found = [_entity(token) for token in tokens if token.label != IGNORED]
        else:
            found = [self._span(group) for group in _groups(tokens)]
            found = [entry for entry in found if entry["entity_group"] != IGNORED]
        threshold = params.get("threshold", self._spec.postprocessing.threshold)
        return [[entry for entry in found if threshold is None or entry["score"] >= threshold]]

    def _tokens(self, raw: Arrays) -> list[_Token]:
        """The text's tokens in order, each once. Raises UnusableInput (``model_error``)."""
        windows: list[TokenWindow] = list(raw[CONTEXT])
        scores = self._scores(raw, len(windows[0].ids))
        labels = self._spec.labels or tuple(f"LABEL_{i}" for i in range(scores.shape[2]))
        places = _best_places(windows)
        if not all(np.isfinite(scores[row, at]).all() for row, at in places.values()):
            raise UnusableInput("The model answered this input with values that are not numbers.", code="model_error")
        tokens = []
        for number in sorted(places):
            row, at = places[number]
            best = int(scores[row, at].argmax())
            start, end = windows[row].offsets[at]
            text = self._tokenizer.token(windows[row], at)
            tokens.append(_Token(labels[best], float(scores[row, at, best]), number + 1, text, int(start), int(end)))
        return tokens

    def _scores(self, raw: Arrays, length: int) -> NDArray[np.float64]:
        """Scores of shape (rows, tokens, classes), each token's summing up to 1."""
        arrays = {name: array for name, array in raw.items() if name != CONTEXT}
        classes = len(self._spec.labels)
        for array in arrays.values():
            if array.ndim == 3 and array.shape[1] == length and array.dtype.kind == "f" and array.shape[2] > 0:
                if classes not in (0, array.shape[2]):
                    continue
                scores = array.astype(np.float64)
                if self._spec.postprocessing.activation == "none":
                    return scores
                with np.errstate(invalid="ignore", over="ignore"):
                    exponents = np.exp(scores - scores.max(axis=2, keepdims=True))
                    return np.asarray(exponents / exponents.sum(axis=2, keepdims=True))
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        wanted = f"{classes} scores" if classes else "scores"
        raise UnusableInput(f"The model answered with {shapes}; {wanted} a token were expected.", code="model_error")

    def _span(self, group: list[_Token]) -> dict[str, Any]:
        return {
            "entity_group": group[0].label.split("-", 1)[-1],
            "score": float(np.mean([token.score for token in group])),
            "word": self._tokenizer.words([token.text for token in group]),
            "start": group[0].start,
            "end": group[-1].end,
        }


def _best_places(windows: Sequence[TokenWindow]) -> dict[int, tuple[int, int]]:
    """For each token of the text, by its number: the row and the place there where it lies furthest from an edge at
    which the text goes on."""
    best: dict[int, tuple[int, int]] = {}
    depth: dict[int, float] = {}
    for row, window in enumerate(windows):
        places = np.flatnonzero(~window.special)
        for order, at in enumerate(places):
            left = float("inf") if row == 0 else order
            right = float("inf") if row == len(windows) - 1 else len(places) - 1 - order
            number = window.first + order
            if min(left, right) > depth.get(number, -1.0):
                best[number], depth[number] = (row, int(at)), min(left, right)
    return best


def _groups(tokens: Sequence[_Token]) -> list[list[_Token]]:
    """Neighbours of one tag, as the library groups them: ``B-`` begins a new one, a label without either prefix goes
    on."""
    groups: list[list[_Token]] = []
    for token in tokens:
        prefix, tag = _tag(token.label)
        if groups and prefix != "B" and tag == _tag(groups[-1][-1].label)[1]:
            groups[-1].append(token)
        else:
            groups.append([token])
    return groups


def _tag(label: str) -> tuple[str, str]:
    return (label[0], label[2:]) if label.startswith(("B-", "I-")) else ("I", label)


def _entity(token: _Token) -> dict[str, Any]:
    return {
        "entity": token.label,
        "score": token.score,
        "index": token.index,
        "word": token.text,
        "start": token.start,
        "end": token.end,
    }
