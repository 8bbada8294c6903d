"""The processing steps a package states for its tensors (:mod:`engine.formats.bioimage_steps`), done with NumPy.

Arithmetic of bioimageio.core (proc_ops.py), in float32. A statistic is always one row's own: rows of different requests
run in one call, and an answer may not depend on its neighbours. That is also what ``per_dataset`` becomes here, where
nobody has the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Step = Mapping[str, Any]


def run_steps(tensor: Array, steps: Iterable[Step], inputs: Mapping[str, Array], *, has_rows: bool) -> Array:
    """``tensor`` after ``steps``. ``inputs`` are the model's unprocessed inputs, which a step may refer to;
    ``has_rows``: the first dimension counts rows."""
    for step in steps:
        tensor = _OPERATIONS[step["op"]](tensor, step, inputs, has_rows)
    return tensor


def _dims(array: Array, step: Step, has_rows: bool) -> tuple[int, ...]:
    dims = step["dims"]
    return tuple(dims) if dims is not None else tuple(range(1 if has_rows else 0, array.ndim))


def _floats(array: Array) -> Array:
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _along(value: Any, step: Step, array: Array) -> Array:
    """A number, or one for each place along a dimension, so that it can be used with ``array``."""
    values = np.asarray(value, dtype=np.float32)
    if step["dim"] is None or values.ndim == 0:
        return values
    shape = [1] * array.ndim
    shape[step["dim"]] = len(values)
    return values.reshape(shape)


def _zero_mean_unit_variance(array: Array, step: Step, inputs: Mapping[str, Array], has_rows: bool) -> Array:
    array = _floats(array)
    dims = _dims(array, step, has_rows)
    mean, std = array.mean(axis=dims, keepdims=True), array.std(axis=dims, keepdims=True)
    return np.asarray((array - mean) / (std + step["eps"]), dtype=array.dtype)


def _fixed(array: Array, step: Step, inputs: Mapping[str, Array], has_rows: bool) -> Array:
    array = _floats(array)
    spread = _along(step["std"], step, array) + np.float32(step["eps"])
    return np.asarray((array - _along(step["mean"], step, array)) / spread, dtype=array.dtype)


def _scale_linear(array: Array, step: Step, inputs: Mapping[str, Array], has_rows: bool) -> Array:
    array = _floats(array)
    return np.asarray(array * _along(step["gain"], step, array) + _along(step["offset"], step, array), array.dtype)


def _scale_range(array: Array, step: Step, inputs: Mapping[str, Array], has_rows: bool) -> Array:
    array = _floats(array)
    measured = array if step["reference"] is None else _floats(inputs[step["reference"]])
    dims = _dims(measured, step, has_rows)
    percentiles = (step["min_percentile"], step["max_percentile"])
    low, high = np.percentile(measured, percentiles, axis=dims, keepdims=True)
    return np.asarray((array - low) / (high - low + step["eps"]), dtype=array.dtype)


def _scale_mean_variance(array: Array, step: Step, inputs: Mapping[str, Array], has_rows: bool) -> Array:
    array, reference = _floats(array), _floats(inputs[step["reference"]])
    dims, there = _dims(array, step, has_rows), _dims(reference, step, has_rows)
    mean, std = array.mean(axis=dims, keepdims=True), array.std(axis=dims, keepdims=True)
    to_mean, to_std = reference.mean(axis=there, keepdims=True), reference.std(axis=there, keepdims=True)
    eps = step["eps"]
    return np.asarray((array - mean) / (std + eps) * (to_std + eps) + to_mean, dtype=array.dtype)


def _clip(array: Array, step: Step, inputs: Mapping[str, Array], has_rows: bool) -> Array:
    return np.clip(_floats(array), step["min"], step["max"])


def _binarize(array: Array, step: Step, inputs: Mapping[str, Array], has_rows: bool) -> Array:
    return np.asarray(array > _along(step["threshold"], step, array), dtype=np.float32)


def _sigmoid(array: Array, step: Step, inputs: Mapping[str, Array], has_rows: bool) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-_floats(array))))


def _softmax(array: Array, step: Step, inputs: Mapping[str, Array], has_rows: bool) -> Array:
    array = _floats(array)
    exponents = np.exp(array - array.max(axis=step["dim"], keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=step["dim"], keepdims=True))


def _ensure_dtype(array: Array, step: Step, inputs: Mapping[str, Array], has_rows: bool) -> Array:
    with np.errstate(invalid="ignore"):
        return array.astype(step["dtype"], copy=False)


_OPERATIONS: dict[str, Callable[[Array, Step, Mapping[str, Array], bool], Array]] = {
    "binarize": _binarize,
    "clip": _clip,
    "ensure_dtype": _ensure_dtype,
    "fixed_zero_mean_unit_variance": _fixed,
    "scale_linear": _scale_linear,
    "scale_mean_variance": _scale_mean_variance,
    "scale_range": _scale_range,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "zero_mean_unit_variance": _zero_mean_unit_variance,
}
