"""The processing steps of a BioImage.IO description, checked and brought to one form for both versions of the format.

Sources: bioimageio.spec, model/v0_4.py and v0_5.py (``PreprocessingDescr``, ``PostprocessingDescr`` and their kwargs).
A step becomes a dict of plain values: ``tensor`` (its name), ``when`` (``before`` or ``after`` the model), ``op``, and
what the operation needs, with axes as dimension numbers (``dims``, ``dim``; None is every dimension but the rows').
:mod:`engine.worker.tensor_steps` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_STEPS = 50
MAX_VALUES = 10_000
DTYPES = frozenset(
    {"float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool"}
)

Step = dict[str, Any]


class StepProblem(ValueError):
    """A step that cannot be done; the text continues "…: preprocessing: "."""


def read_steps(listed: Any, tensor: str, axes: tuple[str, ...], when: str) -> list[Step]:
    """The steps of one tensor, whose axes are ``axes`` in one-letter or whole words (``b`` or ``batch`` are the rows).

    Raises StepProblem naming a step that is unknown or wrongly stated.
    """
    if listed is None:
        return []
    if not isinstance(listed, list) or len(listed) > MAX_STEPS:
        raise StepProblem(f"expected a list of at most {MAX_STEPS} steps")
    return [{"tensor": tensor, "when": when} | _step(item, axes) for item in listed]


def _step(item: Any, axes: tuple[str, ...]) -> Step:
    name = item.get("id", item.get("name")) if isinstance(item, dict) else None
    if not isinstance(name, str):
        raise StepProblem("a step has no name")
    reader = _READERS.get(name)
    if reader is None:
        raise StepProblem(f"the step {name[:80]!r} is not one that can be done here")
    kwargs = item.get("kwargs") or {}
    if not isinstance(kwargs, dict):
        raise StepProblem(f"the step {name!r} has no readable kwargs")
    try:
        return reader(kwargs, axes)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise StepProblem(f"the step {name!r} is stated wrongly ({why[:120]})") from error


def _dims(kwargs: Step, axes: tuple[str, ...]) -> list[int] | None:
    """The dimensions a statistic is taken over. The rows are never among them: those of different requests meet in one
    call, and no answer may depend on its neighbours."""
    stated = kwargs.get("axes")
    if stated is None:
        return None
    dims = sorted({_dim(axis, axes) for axis in stated} - {_rows(axes)})
    if not dims:
        raise ValueError("it has no axes but the batch")
    return dims


def _rows(axes: tuple[str, ...]) -> int:
    return next((i for i, axis in enumerate(axes) if _word(axis) == "batch"), -1)


def _dim(axis: Any, axes: tuple[str, ...]) -> int:
    words = [_word(a) for a in axes]
    if not isinstance(axis, str) or _word(axis) not in words:
        raise ValueError(f"there is no axis {axis!r}")
    return words.index(_word(axis))


def _word(axis: str) -> str:
    return {"b": "batch", "c": "channel", "i": "index"}.get(axis, axis)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _numbers(value: Any) -> float | list[float]:
    if isinstance(value, list):
        if not 1 <= len(value) <= MAX_VALUES:
            raise ValueError("it has too many or no values")
        return [_number(v) for v in value]
    return _number(value)


def _percentile(value: Any) -> float:
    number = _number(value)
    if not 0.0 <= number <= 100.0:
        raise ValueError(f"{value!r} is no percentile")
    return number


def _along(kwargs: Step, axes: tuple[str, ...], *names: str) -> Step:
    """Numbers for the whole tensor, or one for each place along one axis: that of ``axis`` or, in version 0.4, the one
    that ``axes`` leaves out."""
    values = {name: _numbers(kwargs[name]) for name in names if name in kwargs}
    lists = [v for v in values.values() if isinstance(v, list)]
    if not any(len(v) > 1 for v in lists) and "axis" not in kwargs:
        return {name: v[0] if isinstance(v, list) else v for name, v in values.items()} | {"dim": None}
    if "axis" in kwargs:
        return values | {"dim": _dim(kwargs["axis"], axes)}
    jointly = {_word(axis) for axis in kwargs.get("axes") or ()}
    left = [i for i, axis in enumerate(axes) if _word(axis) not in jointly | {"batch"}]
    if len(left) != 1:
        raise ValueError("nothing says along which axis its values lie")
    return values | {"dim": left[0]}


def _zero_mean_unit_variance(kwargs: Step, axes: tuple[str, ...]) -> Step:
    if kwargs.get("mode") == "fixed" or "mean" in kwargs:
        return _fixed(kwargs, axes)
    return {"op": "zero_mean_unit_variance", "dims": _dims(kwargs, axes), "eps": _number(kwargs.get("eps", 1e-6))}


def _fixed(kwargs: Step, axes: tuple[str, ...]) -> Step:
    eps = _number(kwargs.get("eps", 1e-6))
    return {"op": "fixed_zero_mean_unit_variance", "eps": eps} | _along(kwargs, axes, "mean", "std")


def _scale_linear(kwargs: Step, axes: tuple[str, ...]) -> Step:
    return {"op": "scale_linear"} | _along({"gain": 1.0, "offset": 0.0} | kwargs, axes, "gain", "offset")


def _scale_range(kwargs: Step, axes: tuple[str, ...]) -> Step:
    low, high = _percentile(kwargs.get("min_percentile", 0.0)), _percentile(kwargs.get("max_percentile", 100.0))
    if low >= high:
        raise ValueError("its percentiles are in the wrong order")
    return {
        "op": "scale_range",
        "dims": _dims(kwargs, axes),
        "min_percentile": low,
        "max_percentile": high,
        "eps": _number(kwargs.get("eps", 1e-6)),
        "reference": _reference(kwargs),
    }


def _scale_mean_variance(kwargs: Step, axes: tuple[str, ...]) -> Step:
    reference = _reference(kwargs)
    if reference is None:
        raise KeyError("reference_tensor")
    eps = _number(kwargs.get("eps", 1e-6))
    return {"op": "scale_mean_variance", "dims": _dims(kwargs, axes), "eps": eps, "reference": reference}


def _reference(kwargs: Step) -> str | None:
    reference = kwargs.get("reference_tensor")
    if reference is not None and not isinstance(reference, str):
        raise ValueError("its reference_tensor is no name")
    return reference


def _clip(kwargs: Step, axes: tuple[str, ...]) -> Step:
    if set(kwargs) & {"min_percentile", "max_percentile"}:
        raise ValueError("bounds by percentile cannot be done here")
    low, high = (None if kwargs.get(key) is None else _number(kwargs[key]) for key in ("min", "max"))
    if low is None and high is None:
        raise KeyError("min")
    return {"op": "clip", "min": low, "max": high}


def _binarize(kwargs: Step, axes: tuple[str, ...]) -> Step:
    return {"op": "binarize"} | _along({"threshold": kwargs["threshold"]} | kwargs, axes, "threshold")


def _sigmoid(kwargs: Step, axes: tuple[str, ...]) -> Step:
    return {"op": "sigmoid"}


def _softmax(kwargs: Step, axes: tuple[str, ...]) -> Step:
    return {"op": "softmax", "dim": _dim(kwargs.get("axis", "channel"), axes)}


def _ensure_dtype(kwargs: Step, axes: tuple[str, ...]) -> Step:
    if kwargs["dtype"] not in DTYPES:
        raise ValueError(f"{kwargs['dtype']!r} is no dtype")
    return {"op": "ensure_dtype", "dtype": str(kwargs["dtype"])}


_READERS: dict[str, Callable[[Step, tuple[str, ...]], Step]] = {
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
OPERATIONS = tuple(_READERS)
"""The names of the steps that can be done."""
