"""Detectors of transformers, against the library's own processors and postprocessing (tolerances: docs/tasks.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.formats.describe import describe_model
from tests.engine.worker.process import WorkerProcess

pytestmark = pytest.mark.real
PATIENCE_S = 240
SCORES_WITHIN, PIXELS_WITHIN = 1e-4, 1.0


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors")
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.worker.make_detectors", str(folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env=dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE"),
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", ["yolos", "conditional-detr"])
def test_boxes_are_those_of_the_library(detectors: Path, name: str) -> None:
    wanted: dict[str, Any] = json.loads((detectors / "answers.json").read_text(encoding="utf-8"))[name]
    spec = describe_model(detectors / name)
    assert (spec.task, spec.labels, spec.postprocessing.head) == ("object-detection", ("cat", "dog", "bird"), "detr")
    assert "post_process_object_detection" in spec.evidence["postprocessing.activation"]
    with WorkerProcess() as worker:
        ready = worker.load(spec)
        assert ready.type == "ready", ready.header
        item = worker.predict((detectors / "photo.png").read_bytes(), threshold=wanted["threshold"])
    assert "result" in item, item
    found = item["result"]["value"]
    assert len(found) == len(wanted["found"]) >= 4
    for entry, (label, score, box) in zip(found, wanted["found"], strict=True):
        assert entry["label"] == label
        assert entry["score"] == pytest.approx(score, abs=SCORES_WITHIN)
        clipped = [min(max(edge, 0.0), limit) for edge, limit in zip(box, (230, 150, 230, 150), strict=True)]
        assert list(entry["box"].values()) == pytest.approx(clipped, abs=PIXELS_WITHIN)
