"""Rows of a table to a model's tensors: columns matched by name, missing values, categories.

Two kinds of models: those with one input of all columns, and those with an input for each column (Keras' structured
data, scikit-learn's pipelines in ONNX), of numbers or of text.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.codecs.arrays import integer_range, numpy_dtype, shape_text
from engine.codecs.tables import parse_number
from engine.errors import EngineError, LoadFailed, UnusableInput
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.tasks.base import Arrays, TableRows

MISSING_WORDS = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "-", "?"})
"""What people write where there is no value; upper case counts as lower."""
EVERY = "*"
"""Stands in ``[missing]`` for every column that is not named there."""
_SHOWN = 5

Row = Mapping[str, Any]


class TableInputs:
    """The table input of one model. Raises LoadFailed where its inputs can be no columns."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._by_column = len(spec.inputs) > 1
        self._one_hot = frozenset(spec.one_hot)
        self._tensor = TensorSpec("input", "float32", (-1, -1))
        if self._by_column:
            for tensor in spec.inputs:
                self._check_column_input(tensor)
        elif spec.inputs:
            self._tensor = spec.inputs[0]
        if not self._by_column and numpy_dtype(self._tensor.dtype).kind not in "iuf":
            raise LoadFailed(f"Input {self._tensor.name!r} takes {self._tensor.dtype}, not a table's numbers.")
        for name in (*spec.missing, *spec.one_hot, *spec.categories):
            if name != EVERY and self.columns and name not in self.columns:
                raise LoadFailed(f"The sidecar states something of a column {name!r}, which the model does not take.")
        if lost := self._one_hot - set(spec.categories):
            raise LoadFailed(f"one_hot names {sorted(lost)[0]!r}, whose categories are not stated.")

    @staticmethod
    def _check_column_input(tensor: TensorSpec) -> None:
        kind = numpy_dtype(tensor.dtype).kind
        if (kind not in "iufbO" and tensor.dtype != "str") or math.prod(tensor.shape[1:]) != 1:
            raise LoadFailed(
                f"Input {tensor.name!r} takes {tensor.dtype} {shape_text(tensor.shape)}, which is no column of a table."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns the model takes, in its order; empty where nothing names them."""
        if self._by_column:
            return self._spec.columns or tuple(tensor.name for tensor in self._spec.inputs)
        return self._spec.columns

    def check(self) -> None:
        """Raises LoadFailed where the columns are not as many as the input is wide."""
        if self._by_column:
            if len(self.columns) != len(self._spec.inputs):
                raise LoadFailed(f"The model has {len(self._spec.inputs)} inputs, but {len(self.columns)} columns.")
            return
        shape, width = self._tensor.shape, self._width(self.columns)
        if len(shape) != 2 or (self.columns and shape[1] not in (-1, width)):
            stated = f"{width} columns" if self.columns else "a row of columns"
            raise LoadFailed(f"The model takes {shape_text(shape)}, which does not fit {stated}.")

    def _width(self, columns: Sequence[str]) -> int:
        return sum(len(self._spec.categories[c]) if c in self._one_hot else 1 for c in columns)

    # -- rows --------------------------------------------------------------------------------------------------------
    def rows(self, rows: Sequence[Row], *, decimal_comma: bool) -> TableRows:
        """The tensors of the rows that can be used, and why the others cannot. Raises UnusableInput
        (``column_missing``, ``table_invalid``) where it lies in the table."""
        columns, found = self._match(rows)
        values: list[list[Any]] = []
        numbers: list[int] = []
        errors: dict[int, EngineError] = {}
        for number, row in enumerate(rows):
            try:
                cells: list[Any] = []
                for column in columns:
                    cells += self._cells(number, row, column, found[column], decimal_comma)
                values.append(cells)
                numbers.append(number)
            except UnusableInput as error:
                errors[number] = error
        return TableRows(self._arrays(values, columns), numbers, errors)

    def _arrays(self, values: list[list[Any]], columns: Sequence[str]) -> Arrays:
        if not self._by_column:
            matrix = np.array(values, dtype=np.float64).reshape(len(values), self._width(columns))
            return {self._tensor.name: matrix.astype(numpy_dtype(self._tensor.dtype))}
        arrays: Arrays = {}
        for at, tensor in enumerate(self._spec.inputs):
            column = [row[at] for row in values]
            flat = np.array(column, dtype=object if tensor.dtype == "str" else np.float64)
            shaped = flat.reshape(len(values), *(1 for _ in tensor.shape[1:]))
            arrays[tensor.name] = shaped if tensor.dtype == "str" else shaped.astype(numpy_dtype(tensor.dtype))
        return arrays

    def _match(self, rows: Sequence[Row]) -> tuple[tuple[str, ...], dict[str, str]]:
        """The model's columns, and by which name of the table each is found: its own, else the only one that differs in
        nothing but case and space."""
        given = list(dict.fromkeys(name for row in rows for name in row))
        wanted = self.columns
        if not wanted:
            width = self._tensor.shape[1]
            if width not in (-1, len(given)):
                raise UnusableInput(
                    f"The model takes {width} columns, the table has {len(given)}.", code="table_invalid"
                )
            return tuple(given), {name: name for name in given}
        found: dict[str, str] = {}
        missing = []
        for column in wanted:
            alike = [column] if column in given else [name for name in given if _folded(name) == _folded(column)]
            if len(alike) == 1:
                found[column] = alike[0]
            else:
                missing.append(column)
        if missing:
            raise UnusableInput(_misses(missing, [n for n in given if n not in found.values()]), code="column_missing")
        return wanted, found

    def _cells(self, number: int, row: Row, column: str, name: str, decimal_comma: bool) -> list[Any]:
        """What one cell becomes: a number, a text, or as many numbers as its column has categories."""
        if name not in row:
            raise UnusableInput(f"Row {number + 1} has no column {column!r}.", code="column_missing")
        value, where = row[name], f"Row {number + 1}, column {column!r}"
        tensor = self._tensor_of(column)
        categories = self._spec.categories.get(column)
        if _is_missing(value) and not (categories and str(value).strip() in categories):
            return self._missing(where, column, tensor, categories)
        if categories is not None:
            text = value.strip() if isinstance(value, str) else _text(value)
            if text not in categories:
                known = ", ".join(categories[:_SHOWN]) + (", …" if len(categories) > _SHOWN else "")
                raise UnusableInput(
                    f"{where}: {text[:60]!r} is none of its categories ({known}).", code="value_invalid"
                )
            at = categories.index(text)
            if tensor.dtype == "str":
                return [text]
            return [float(n == at) for n in range(len(categories))] if column in self._one_hot else [float(at)]
        if tensor.dtype == "str":
            return [value.strip() if isinstance(value, str) else _text(value)]
        if isinstance(value, bool) and tensor.dtype == "bool":
            return [float(value)]
        try:
            parsed = _to_number(value, decimal_comma)
        except ValueError as error:
            raise UnusableInput(f"{where}: {error}.", code="value_invalid") from error
        if not _representable(parsed, tensor.dtype):
            raise UnusableInput(f"{where}: {parsed:g} does not fit {tensor.dtype}.", code="value_invalid")
        return [parsed]

    def _missing(self, where: str, column: str, tensor: TensorSpec, categories: tuple[str, ...] | None) -> list[Any]:
        stated = self._spec.missing.get(column, self._spec.missing.get(EVERY))
        if stated is None:
            raise UnusableInput(f"{where}: there is no value.", code="value_invalid")
        if categories is not None and column in self._one_hot:
            return [0.0] * len(categories)
        if tensor.dtype == "str":
            return [stated if isinstance(stated, str) else f"{stated:g}"]
        number = math.nan if stated == "nan" else float(stated)
        if math.isnan(number) and numpy_dtype(tensor.dtype).kind != "f":
            raise UnusableInput(f"{where}: there is no value, and {tensor.dtype} knows no nan.", code="value_invalid")
        return [number]

    def _tensor_of(self, column: str) -> TensorSpec:
        return self._spec.inputs[self.columns.index(column)] if self._by_column else self._tensor


def _misses(missing: Sequence[str], others: Sequence[str]) -> str:
    """One sentence about every column that is not there, with the name that was perhaps meant."""
    said = []
    for column in missing:
        near = difflib.get_close_matches(column, others, n=1, cutoff=0.75)
        said.append(f"{column!r}" + (f" (is {near[0]!r} meant?)" if near else ""))
    noun = "column" if len(missing) == 1 else "columns"
    return f"The table has no {noun} {', '.join(said)}, which the model needs."


def _folded(name: str) -> str:
    return "".join(name.casefold().split()).replace("_", "").replace("-", "")


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().casefold() in MISSING_WORDS
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _to_number(value: Any, decimal_comma: bool) -> float:
    """A cell's number: text as :func:`parse_number` reads it, or a JSON number. Raises ValueError."""
    if isinstance(value, str):
        return parse_number(value, decimal_comma)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("the value is not a number")
    return float(value)


def _representable(value: float, name: str) -> bool:
    dtype = numpy_dtype(name)
    if dtype.kind == "f":
        return abs(value) <= float(np.finfo(dtype).max)
    if dtype.kind == "b":
        return value in (0.0, 1.0)
    low, high = integer_range(dtype)
    return value == int(value) and low <= value <= high
