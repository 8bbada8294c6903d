"""What a model has done, as the engine counts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineError
from engine.prediction import PredictRequest
from engine.statistics import BATCH_SIZES, Statistics
from tests.engine.engine_harness import PATIENCE_S, fake, running_engine


def test_statistics_add_up() -> None:
    timing = {"decode": 1.0, "infer": 2.0, "post": 3.0}
    one, two = Statistics(), Statistics()
    one.answered(timing, 4.0, 10.0, 3)
    two.answered(timing, 4.0, 10.0, 2)
    two.failed("busy", 1.0)
    two.failed("cancelled", 1.0)
    two.failed("model_error", 1.0)
    two.failed("image_invalid", 1.0)
    for requests in (1, 2, 3, 500):
        one.ran(requests)
    told = (one + two).to_json()
    assert told["success"] == {"count": 2, "ns": 20_000_000}
    assert told["compute_infer"] == {"count": 2, "ns": 4_000_000}
    assert told["rows"] == 5
    assert told["fail"]["count"] == 4
    assert told["failures"] == {"REJECTED": 1, "CANCELED": 1, "BACKEND": 1, "OTHER": 1}
    assert told["batches"] == {"1": 1, "2": 1, "4": 1, str(BATCH_SIZES[-1]): 1}


def test_the_engine_counts_requests_rows_and_failures(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        engine.load(fake()).future.result(PATIENCE_S)
        for rows in (1, 4):
            data = {"x": np.zeros((rows, 4), np.float32)}
            engine.predict(PredictRequest("fake", data)).result(PATIENCE_S)
        with pytest.raises(EngineError):
            engine.predict(PredictRequest("fake", {"x": np.zeros((1, 5), np.float32)})).result(PATIENCE_S)
        told = engine.stats()["models"][0]["statistics"]
    assert (told["success"]["count"], told["rows"], told["fail"]["count"]) == (2, 5, 1)
    assert told["failures"] == {"OTHER": 1}
    assert sum(told["batches"].values()) == 3
    assert told["success"]["ns"] >= told["compute_infer"]["ns"] > 0
    assert told["last_at"] > 1_700_000_000_000
