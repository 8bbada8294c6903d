"""image-classification against transformers' pipeline: one label, several labels, and pictures that are cropped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.engine import Engine
from engine.prediction import PredictRequest
from tests.engine.engine_harness import quick_settings

pytestmark = pytest.mark.real
PATIENCE_S = 180.0
MODELS = ("vit", "vit-several", "convnext", "resnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("classifiers")
    command = [sys.executable, "-m", "tests.engine.worker.make_image_classifiers", str(made)]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run(command, check=True, timeout=PATIENCE_S, cwd=Path(__file__).parents[3], env=offline)
    return made


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(quick_settings(), folder=tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.mark.parametrize("name", MODELS)
def test_a_picture_gets_the_pipelines_scores(engine: Engine, folder: Path, name: str) -> None:
    engine.load(folder / name).future.result(PATIENCE_S)
    expected = json.loads((folder / "expected.json").read_text())[name]
    for picture, scores in expected.items():
        data = (folder / f"{picture}.png").read_bytes()
        answer = engine.predict(PredictRequest(name, data, timeout_s=PATIENCE_S, params={"top_k": 4}))
        found = answer.result(PATIENCE_S).predictions
        assert [entry["label"] for entry in found] == [entry["label"] for entry in scores]
        assert [entry["score"] for entry in found] == pytest.approx([entry["score"] for entry in scores], abs=1e-4)
        assert scores[0]["score"] - scores[-1]["score"] > 0.01, "scores that are all alike test nothing"
    engine.unload(name).result(PATIENCE_S)
