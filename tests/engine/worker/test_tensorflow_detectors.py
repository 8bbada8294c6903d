"""Detectors as TensorFlow's Object Detection API exports them, through the real engine."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.engine import Engine
from engine.prediction import PredictRequest
from tests.engine.engine_harness import quick_settings

pytestmark = pytest.mark.real
PATIENCE_S = 180.0
BOX = {"xmin": 60, "ymin": 20, "xmax": 140, "ymax": 80}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tensorflow-detectors")
    command = [sys.executable, "-m", "tests.engine.worker.make_tensorflow_detectors", str(made)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run(command, check=True, timeout=PATIENCE_S, cwd=Path(__file__).parents[3], env=environment)
    return made


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(quick_settings(), folder=tmp_path_factory.mktemp("engine")) as running:
        yield running


def picture() -> bytes:
    pixels = np.zeros((120, 200, 3), np.uint8)
    pixels[BOX["ymin"] : BOX["ymax"], BOX["xmin"] : BOX["xmax"]] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_saved_model_finds_what_is_there(engine: Engine, folder: Path) -> None:
    entry = engine.load(folder / "saved" / "saved_model", trust=True).future.result(PATIENCE_S)
    assert entry["task"] == "object-detection"
    answer = engine.predict(PredictRequest(entry["id"], picture(), timeout_s=PATIENCE_S)).result(PATIENCE_S)
    (found,) = answer.predictions
    assert (found["label"], found["box"]) == ("dog", BOX)
    assert found["score"] == pytest.approx(0.9, abs=1e-6)
    engine.unload(entry["id"]).result(PATIENCE_S)


def test_litert_knows_its_outputs_by_the_operator_that_makes_them(engine: Engine, folder: Path) -> None:
    entry = engine.load(folder / "lite" / "lite.tflite").future.result(PATIENCE_S)
    assert (entry["task"], entry["spec"]["trust_class"]) == ("object-detection", "data")
    assert entry["spec"]["evidence"]["task"] == "lite.tflite: operator TFLite_Detection_PostProcess"
    assert [len(tensor["shape"]) for tensor in entry["spec"]["outputs"]] == [3, 2, 2, 1]
    answer = engine.predict(PredictRequest(entry["id"], picture(), timeout_s=PATIENCE_S)).result(PATIENCE_S)
    found = answer.predictions[0]
    assert found["label"] == "dog"
    assert found["score"] == pytest.approx(0.8, abs=1e-5)
    # Its input has 64 x 64 pixels: an edge is right to within one of them.
    for name, edge in BOX.items():
        assert found["box"][name] == pytest.approx(edge, abs=200 / 64)
    engine.unload(entry["id"]).result(PATIENCE_S)
