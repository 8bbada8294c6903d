"""The bundled detector through the engine and over HTTP: one answer, the right one."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.formats.describe import describe_model
from engine.prediction import PredictRequest
from tests.e2e.program import PATIENCE_S, Client, Program
from tests.engine.engine_harness import running_engine

pytestmark = pytest.mark.real
FOLDER = Path(__file__).parents[2] / "examples" / "shapes-detector"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "golden" / "expected.json").read_text(encoding="utf-8"))
PICTURE = (FOLDER / "golden" / "input.png").read_bytes()


def assert_expected(found: list[dict[str, Any]]) -> None:
    assert [entry["label"] for entry in found] == [entry["label"] for entry in EXPECTED["predictions"]]
    for entry, wanted in zip(found, EXPECTED["predictions"], strict=True):
        assert entry["score"] == pytest.approx(wanted["score"], abs=EXPECTED["tolerance"])
        assert entry["box"] == pytest.approx(wanted["box"], abs=1)


def test_the_example_is_complete_and_states_its_head() -> None:
    stated = tomllib.loads((FOLDER / "deskside.toml").read_text(encoding="utf-8"))
    assert stated["outputs"][0]["shape"][1] == 4 + len(stated["labels"])
    assert len(list((FOLDER / "samples").glob("*.png"))) >= 6
    assert (FOLDER / "model.onnx").stat().st_size < 1_500_000


def test_the_engine_finds_the_shapes_and_a_threshold_asks_the_model_nothing(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        entry = engine.load(describe_model(FOLDER).with_id("shapes")).future.result(PATIENCE_S)
        assert entry["id"] == "shapes"
        answer = engine.predict(PredictRequest("shapes", PICTURE, "image/png")).result(PATIENCE_S)
        assert answer.task == "object-detection"
        assert answer.predictions is not None
        assert_expected(answer.predictions)
        before = engine.stats()["models"][0]
        scores = sorted(found["score"] for found in answer.predictions)
        refined = engine.refine(answer.id, {"threshold": scores[0] + 1e-6}).result(PATIENCE_S)
        assert refined.predictions == answer.predictions[:-1]
        after = engine.stats()["models"][0]
        assert after["requests"] == before["requests"]


def test_http_gives_the_same(tmp_path: Path) -> None:
    program = Program(["serve", FOLDER, "--port", "0"], tmp_path)
    client = Client(program.url())
    try:
        status, body = client.post("/predict/shapes-detector", PICTURE, "image/png")
        assert (status, body["task"]) == (200, "object-detection")
        assert_expected(body["predictions"])
    finally:
        client.close()
        assert program.stop() == 0
