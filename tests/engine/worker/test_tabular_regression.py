"""tabular-regression: columns by name as for classes, numbers as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError, LoadFailed
from engine.model_spec import Postprocessing, TensorSpec
from engine.worker.tasks import create_task
from engine.worker.tasks.base import Task
from tests.engine.worker.process import WorkerProcess, make_spec


def task(width: int = 2, **changes: Any) -> Task:
    values: dict[str, Any] = {
        "inputs": (TensorSpec("x", "float32", (-1, width)),),
        "columns": ("age", "height")[:width],
    }
    return create_task(make_spec("tabular-regression", **(values | changes)))


def test_columns_are_matched_by_name() -> None:
    table = task().from_table([{"height": "1,8", "other": "z", "age": "40"}], decimal_comma=True)
    np.testing.assert_allclose(table.arrays["x"], [[40, 1.8]])


def test_missing_columns_and_values_are_named() -> None:
    with pytest.raises(EngineError, match="The table has no column 'height'"):
        task().from_table([{"age": "40"}])
    table = task().from_table([{"age": "40", "height": ""}, {"age": "41", "height": "2"}])
    assert table.numbers == [1]
    assert table.errors[0].message == "Row 1, column 'height': there is no value."


@pytest.mark.parametrize(
    ("raw", "labels", "answers"),
    [
        ([[3.5], [-2.0]], (), [[{"value": 3.5}], [{"value": -2.0}]]),
        ([3.5, -2.0], (), [[{"value": 3.5}], [{"value": -2.0}]]),
        ([[1.0, 2.0]], (), [[{"value": 1.0}, {"value": 2.0}]]),
        ([[1.0, 2.0]], ("low", "high"), [[{"label": "low", "value": 1.0}, {"label": "high", "value": 2.0}]]),
        ([[1.0]], ("low", "high"), [[{"value": 1.0}]]),
    ],
)
def test_a_row_has_a_value(raw: Any, labels: tuple[str, ...], answers: Any) -> None:
    assert task(labels=labels).post({"y": np.array(raw, np.float32)}, {}) == answers


def test_what_is_no_number_fails_its_own_row() -> None:
    first, second = task().post({"y": np.array([[np.nan], [1.0]], np.float32)}, {})
    assert isinstance(first, EngineError)
    assert first.code == "model_error"
    assert second == [{"value": 1.0}]


def test_text_in_place_of_numbers_is_told() -> None:
    answers = task().post({"y": np.array(["a", "b"], dtype=object)}, {})
    assert [getattr(a, "message", a) for a in answers] == ["The model answered with y [2]; numbers were expected."] * 2


def test_scores_are_not_for_numbers() -> None:
    with pytest.raises(LoadFailed, match="activation must be none"):
        task(postprocessing=Postprocessing(activation="softmax"))
    with pytest.raises(LoadFailed, match="does not fit 2 columns"):
        task(inputs=(TensorSpec("x", "float32", (-1, 5)),))


def test_a_worker_answers_a_table() -> None:
    with WorkerProcess() as worker:
        spec = make_spec(
            "tabular-regression",
            inputs=(TensorSpec("x", "float32", (-1, 2)),),
            outputs=(TensorSpec("y", "float32", (-1, 2)),),
            columns=("age", "height"),
        )
        assert worker.load(spec).type == "ready"
        done = worker.predict(b"height;age\n1,5;40\n2;30\n;20\n", "text/csv")
    first, second, third = done["result"]["value"]
    assert [first["predictions"], second["predictions"]] == [
        [{"value": 80.0}, {"value": 3.0}],
        [{"value": 60.0}, {"value": 4.0}],
    ]
    assert third["error"]["code"] == "value_invalid"
