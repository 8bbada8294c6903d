"""tabular-classification: rows of a table in, classes with scores out. Columns are matched by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import EngineError
from engine.model_spec import ModelSpec
from engine.worker.tasks import classification
from engine.worker.tasks.base import Arrays, Params, TableRows, not_taken
from engine.worker.tasks.table_inputs import TableInputs


class TabularClassification:
    """What the columns become: :class:`TableInputs`."""

    takes_images = False
    takes_tables = True

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._inputs = TableInputs(spec)

    def check(self) -> None:
        classification.check_outputs(self._spec)
        self._inputs.check()

    def from_image(self, data: bytes) -> Arrays:
        raise not_taken(self._spec)

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        return self._inputs.rows(rows, decimal_comma=decimal_comma)

    def read_params(self, params: Params) -> Params:
        return classification.read_params(params)

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        return classification.rank(raw, self._spec, params)
