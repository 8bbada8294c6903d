"""tabular-classification: rows of a table in, classes with scores out. Columns are matched by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.codecs.arrays import integer_range, numpy_dtype, shape_text
from engine.codecs.tables import parse_number
from engine.errors import EngineError, LoadFailed, UnusableInput
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.tasks import classification
from engine.worker.tasks.base import Arrays, Params, TableRows, not_taken


class TabularClassification:
    """One number for each of ``spec.columns``, in their order, as one row of the model's one input.

    Columns the model does not know are left out, and their order in the table means nothing. Where nothing names the
    columns, the table's own are taken in their order, and there must be as many as the input is wide.
    """

    takes_images = False
    takes_tables = True

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        if len(spec.inputs) > 1:
            names = ", ".join(repr(t.name) for t in spec.inputs)
            raise LoadFailed(f"A table classifier takes one input of all columns, but this model has {names}.")
        self._tensor = spec.inputs[0] if spec.inputs else TensorSpec("input", "float32", (-1, len(spec.columns) or -1))
        if numpy_dtype(self._tensor.dtype).kind not in "iuf":
            raise LoadFailed(f"Input {self._tensor.name!r} takes {self._tensor.dtype}, not a table's numbers.")

    def check(self) -> None:
        classification.check_outputs(self._spec)
        self.check_columns()

    def check_columns(self) -> None:
        """Raises LoadFailed where the columns are not as many as the input is wide."""
        shape, columns = self._tensor.shape, self._spec.columns
        if len(shape) != 2 or (columns and shape[1] not in (-1, len(columns))):
            stated = f"{len(columns)} columns" if columns else "a row of columns"
            raise LoadFailed(f"The model takes {shape_text(shape)}, which does not fit {stated}.")

    def from_image(self, data: bytes) -> Arrays:
        raise not_taken(self._spec)

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        columns = self._columns(rows)
        values: list[list[float]] = []
        numbers: list[int] = []
        errors: dict[int, EngineError] = {}
        for number, row in enumerate(rows):
            try:
                values.append([self._cell(number, row, column, decimal_comma) for column in columns])
                numbers.append(number)
            except UnusableInput as error:
                errors[number] = error
        matrix = np.array(values, dtype=np.float64).reshape(len(values), len(columns))
        return TableRows({self._tensor.name: matrix.astype(numpy_dtype(self._tensor.dtype))}, numbers, errors)

    def _columns(self, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        if columns := self._spec.columns:
            known = set().union(*rows)
            if missing := [column for column in columns if column not in known]:
                noun = "column" if len(missing) == 1 else "columns"
                names = ", ".join(repr(column) for column in missing)
                raise UnusableInput(f"The table has no {noun} {names}, which the model needs.", code="column_missing")
            return columns
        columns = tuple(rows[0])
        if self._tensor.shape[1] not in (-1, len(columns)):
            raise UnusableInput(
                f"The model takes {self._tensor.shape[1]} columns, the table has {len(columns)}.", code="table_invalid"
            )
        return columns

    def _cell(self, number: int, row: Mapping[str, Any], column: str, decimal_comma: bool) -> float:
        """The value of one cell; rows count from 1 in sentences. Raises UnusableInput."""
        if column not in row:
            raise UnusableInput(f"Row {number + 1} has no column {column!r}.", code="column_missing")
        value = row[column]
        where = f"Row {number + 1}, column {column!r}"
        if value is None or (isinstance(value, str) and not value.strip()):
            raise UnusableInput(f"{where}: there is no value.", code="value_invalid")
        try:
            parsed = _to_number(value, decimal_comma)
        except ValueError as error:
            raise UnusableInput(f"{where}: {error}.", code="value_invalid") from error
        if not self._representable(parsed):
            raise UnusableInput(f"{where}: {parsed:g} does not fit {self._tensor.dtype}.", code="value_invalid")
        return parsed

    def _representable(self, value: float) -> bool:
        dtype = numpy_dtype(self._tensor.dtype)
        if dtype.kind == "f":
            return abs(value) <= float(np.finfo(dtype).max)
        low, high = integer_range(dtype)
        return value == int(value) and low <= value <= high

    def read_params(self, params: Params) -> Params:
        return classification.read_params(params)

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        return classification.rank(raw, self._spec, params)


def _to_number(value: Any, decimal_comma: bool) -> float:
    """A cell's number: text as :func:`parse_number` reads it, or a JSON number. Raises ValueError."""
    if isinstance(value, str):
        return parse_number(value, decimal_comma)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("the value is not a number")
    return float(value)
