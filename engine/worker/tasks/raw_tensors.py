"""Raw tensors: what comes in goes to the model, what the model says goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import EngineError
from engine.model_spec import ModelSpec
from engine.worker.tasks.base import Arrays, Params, TableRows, not_taken


class RawTensors:
    """No pre- and no postprocessing. It only ever answers with outputs, so :meth:`post` is never asked."""

    takes_images = False
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def check(self) -> None:
        """Every model can do this."""

    def from_image(self, data: bytes) -> Arrays:
        raise not_taken(self._spec)

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        raise not_taken(self._spec)

    def read_params(self, params: Params) -> Params:
        return {}

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        raise not_taken(self._spec)
