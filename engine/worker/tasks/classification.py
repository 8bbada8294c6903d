"""From raw class scores to ``[{"label", "score"}…]``, best first: shared by every task that names classes.

The shape is that of Hugging Face's ``image-classification`` pipeline; classes without names are ``LABEL_0``….
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, LoadFailed, Malformed, UnusableInput
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.tasks.base import Arrays, Params

DEFAULT_TOP_K = 5
ROUNDING = 1e-3
"""How far outside 0..1 a probability may lie by the model's own rounding."""


def read_params(params: Params) -> Params:
    """``top_k`` (a whole number from 1) and ``threshold`` (0 to 1), also as text. Raises Malformed."""
    checked: dict[str, Any] = {}
    if (top_k := params.get("top_k")) is not None:
        number = _number("top_k", top_k)
        if number != int(number) or number < 1:
            raise Malformed("top_k must be a whole number from 1 on.")
        checked["top_k"] = int(number)
    if (threshold := params.get("threshold")) is not None:
        checked["threshold"] = read_share("threshold", threshold)
    return checked


def read_share(name: str, value: Any) -> float:
    """A parameter from 0 to 1, also as text. Raises Malformed."""
    number = _number(name, value)
    if not 0.0 <= number <= 1.0:
        raise Malformed(f"{name} must lie between 0 and 1.")
    return number


def _number(name: str, value: Any) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise Malformed(f"{name} must be a number.")


def check_outputs(spec: ModelSpec) -> None:
    """Raises LoadFailed where the labels and a known output cannot belong together, or the activation is unknown."""
    if spec.postprocessing.activation not in ("none", "softmax", "sigmoid"):
        raise LoadFailed(f"The activation {spec.postprocessing.activation!r} is not none, softmax or sigmoid.")
    if not spec.labels or not spec.outputs:
        return
    widths = [width for tensor in spec.outputs if (width := _declared_width(tensor)) is not None]
    if len(widths) == len(spec.outputs) and not any(_fits(width, len(spec.labels)) for width in widths):
        raise LoadFailed(f"There are {len(spec.labels)} labels, but the model gives {widths[0]} scores.")


def _declared_width(tensor: TensorSpec) -> int | None:
    """How many scores a row of ``tensor`` has, None where it is free or can hold none."""
    row = tensor.shape[1:]
    return None if -1 in row or not tensor.dtype.startswith(("float", "bfloat")) else math.prod(row)


def _fits(width: int, labels: int) -> bool:
    return width == labels or (width == 1 and labels == 2)


def class_scores(raw: Arrays, spec: ModelSpec) -> NDArray[np.float64]:
    """Scores of shape (rows, classes), activation applied, not yet checked for NaN. A single score p of a two-class
    model becomes (1 - p, p). Raises UnusableInput (``model_error``) where no output can be class scores."""
    scores = _choose(raw, spec).astype(np.float64)
    binary = scores.shape[1] == 1 and len(spec.labels) in (0, 2)
    activation = spec.postprocessing.activation
    with np.errstate(invalid="ignore", over="ignore"):
        if activation == "sigmoid" or (binary and activation == "softmax"):
            # A softmax over one score is always 1: the two-class form of it is the sigmoid.
            scores = 1.0 / (1.0 + np.exp(-scores))
        elif activation == "softmax":
            exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = exponents / exponents.sum(axis=1, keepdims=True)
    return np.hstack([1.0 - scores, scores]) if binary else scores


def _choose(raw: Arrays, spec: ModelSpec) -> NDArray[Any]:
    """The output that holds the scores, as (rows, classes): the first that fits the labels, declared ones before others
    (a sequence of maps, as scikit-learn's converters write scores, cannot be declared)."""
    names = list(dict.fromkeys([*(t.name for t in spec.outputs if t.name in raw), *raw]))
    for name in names:
        array = raw[name]
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            continue
        flat = array.reshape(len(array), -1) if len(array) else array.reshape(0, math.prod(array.shape[1:]))
        if flat.shape[1] and (not spec.labels or _fits(flat.shape[1], len(spec.labels))):
            return flat
    shapes = ", ".join(f"{name} {list(raw[name].shape)}" for name in names)
    wanted = f"{len(spec.labels)} scores a row" if spec.labels else "scores"
    raise UnusableInput(f"The model answered with {shapes}; {wanted} were expected.", code="model_error")


def rank(raw: Arrays, spec: ModelSpec, params: Params) -> list[list[Any] | EngineError]:
    """The answer of each row: at most ``top_k`` classes of at least ``threshold``, best first, scores 0..1."""
    try:
        scores = class_scores(raw, spec)
    except UnusableInput as error:
        rows = max((len(a) for a in raw.values() if a.ndim), default=1)
        return [error] * rows
    return rank_scores(scores, spec, params)


def rank_scores(scores: NDArray[np.float64], spec: ModelSpec, params: Params) -> list[list[Any] | EngineError]:
    """:func:`rank` of scores that :func:`class_scores` gave, of shape (rows, classes)."""
    labels = spec.labels or tuple(f"LABEL_{i}" for i in range(scores.shape[1]))
    top_k = min(int(params.get("top_k", DEFAULT_TOP_K)), scores.shape[1])
    threshold = params.get("threshold", spec.postprocessing.threshold)
    return [_rank_row(row, labels, top_k, threshold) for row in scores]


def _rank_row(
    row: NDArray[np.float64], labels: tuple[str, ...], top_k: int, threshold: float | None
) -> list[Any] | EngineError:
    if not np.isfinite(row).all():
        return UnusableInput("The model answered this input with values that are not numbers.", code="model_error")
    if row.min() < -ROUNDING or row.max() > 1.0 + ROUNDING:
        return UnusableInput(
            "The model's scores do not lie between 0 and 1: set activation under [postprocessing] in the sidecar to "
            "softmax or sigmoid.",
            code="model_error",
        )
    # A stable sort: of equal scores the class that comes first wins, on every machine.
    order = np.argsort(-row, kind="stable")[:top_k]
    ranked = [{"label": labels[i], "score": min(1.0, max(0.0, float(row[i])))} for i in order]
    return [entry for entry in ranked if threshold is None or entry["score"] >= threshold]
