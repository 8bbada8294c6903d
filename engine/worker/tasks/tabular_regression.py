"""tabular-regression: rows of a table in, a number (or several) for each out.

The table's columns become the model's input as in tabular-classification. ``predictions`` of a row is
``[{"value": …}]``, one entry for each number the model gives a row, with ``label`` where the sidecar's ``labels`` name
as many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, LoadFailed, UnusableInput
from engine.worker.tasks.base import Arrays, Params
from engine.worker.tasks.tabular_classification import TabularClassification


class TabularRegression(TabularClassification):
    """A table's rows as :class:`TabularClassification` takes them, with numbers in place of classes."""

    def check(self) -> None:
        self._inputs.check()
        if self._spec.postprocessing.activation != "none":
            raise LoadFailed("A number to predict is no score: activation must be none for tabular-regression.")

    def read_params(self, params: Params) -> Params:
        return {}

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        names = [t.name for t in self._spec.outputs if t.name in raw] or list(raw)
        numbers = next((raw[n] for n in names if raw[n].ndim and raw[n].dtype.kind in "iuf" and raw[n].size), None)
        if numbers is None:
            shapes = ", ".join(f"{name} {list(raw[name].shape)}" for name in names)
            error = UnusableInput(f"The model answered with {shapes}; numbers were expected.", code="model_error")
            return [error] * max((len(a) for a in raw.values() if a.ndim), default=1)
        return [self._row(row) for row in numbers.reshape(len(numbers), -1)]

    def _row(self, row: NDArray[Any]) -> list[Any] | EngineError:
        if not np.isfinite(row).all():
            return UnusableInput("The model answered this input with values that are not numbers.", code="model_error")
        labels = self._spec.labels if len(self._spec.labels) == len(row) else ()
        return [({"label": labels[i]} if labels else {}) | {"value": float(value)} for i, value in enumerate(row)]
