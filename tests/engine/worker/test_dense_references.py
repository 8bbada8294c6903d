"""Masks and depths of models of transformers, against the library's own postprocessing (tolerances: docs/tasks.md)."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.formats.describe import describe_model
from engine.model_spec import Postprocessing, TensorSpec
from engine.worker.images import decode_image
from engine.worker.tasks import create_task
from engine.worker.tasks.base import CONTEXT, Task
from engine.worker.tasks.image_tensors import ImageTensors
from engine.worker.tasks.interpolation import axes, sampled
from engine.worker.tasks.placement import Placement
from tests.engine.worker.dense_cases import CASES, MODELS_BY_TASK, NAMES, SIZE
from tests.engine.worker.process import PATIENCE_S, WorkerProcess, make_spec

pytestmark = pytest.mark.real
SCORES_WITHIN = 1e-4
LEAD = 1e-4
"""Where the best class of a pixel leads the next by less (as a share of the widest lead), either may win."""
PIXELS = 1e-3
"""The share of a picture's pixels by which a thing's mask may differ."""
DEPTH_WITHIN = 1e-5
"""As a share of the range of the depths."""


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.worker.make_dense", str(folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env=dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1"),
        timeout=2 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return folder


def picture(data: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


def assert_masks(found: list[dict[str, Any]], wanted: Any) -> None:
    assert [entry["label"] for entry in found] == [NAMES[number] for number in wanted["labels"]]
    assert len(found) >= 1
    scores = list(wanted["scores"]) or [None] * len(found)
    for entry, score, mask in zip(found, scores, wanted["masks"], strict=True):
        assert entry["score"] == (score if score is None else pytest.approx(score, abs=SCORES_WITHIN))
        ours = picture(entry["mask"])
        assert ours.shape == SIZE
        assert set(np.unique(ours)) <= {0, 255}
        assert entry["area"] == pytest.approx((ours == 255).mean())
        differing = ours != mask
        if "margin" in wanted:
            differing &= wanted["margin"] > LEAD * wanted["margin"].max()
            assert not differing.any()
        else:
            assert differing.mean() <= PIXELS


def assert_depth(answer: dict[str, Any], wanted: Any) -> None:
    numbers = wanted["predicted_depth"]
    within = DEPTH_WITHIN * float(numbers.max() - numbers.min())
    assert answer["predicted_depth"].dtype == np.float32
    np.testing.assert_allclose(answer["predicted_depth"], numbers, atol=within, rtol=0)
    assert answer["minimum"] == pytest.approx(numbers.min(), abs=within)
    assert answer["maximum"] == pytest.approx(numbers.max(), abs=within)
    levels = picture(answer["depth"])
    assert levels.dtype == np.uint8
    # A depth on the border of two levels may fall to either.
    assert np.abs(levels.astype(int) - wanted["depth"]).max() <= 1
    assert (levels != wanted["depth"]).mean() <= PIXELS


@pytest.mark.parametrize("name", [name for names in MODELS_BY_TASK.values() for name in names])
def test_a_model_answers_what_the_library_s_pipeline_does(dense: Path, name: str) -> None:
    spec = describe_model(dense / name)
    assert spec.task == next(task for task, names in MODELS_BY_TASK.items() if name in names)
    assert not [key for key, source in spec.evidence.items() if key.startswith("preprocessing.") and key.endswith(
        ("size", "resize", "resample", "mean", "std", "scaling")) and source.startswith("assumed (")]  # fmt: skip
    data = (dense / "photo.png").read_bytes()
    cases = [(case, params) for case, (model, params) in CASES.items() if model == name]
    with WorkerProcess() as worker:
        ready = worker.load(spec)
        assert ready.type == "ready", ready.header
        for case, params in cases:
            item = worker.predict(data, **params)
            assert "answer" in item, item
            answer = item["answer"]
            with np.load(dense / f"{case}.npz") as wanted:
                if spec.task == "depth-estimation":
                    assert_depth(answer, wanted)
                elif case == "detr-default":
                    assert (answer, len(wanted["labels"])) == ([], 0)
                else:
                    assert_masks(answer, wanted)


def test_the_picture_of_zoedepth_is_the_library_s(dense: Path) -> None:
    spec = describe_model(dense / "zoedepth")
    assert spec.preprocessing.resize == "mirrored"
    ours = ImageTensors(spec, spec.inputs[0]).convert(decode_image((dense / "photo.png").read_bytes()))
    np.testing.assert_allclose(ours, np.load(dense / "zoedepth-input.npz")["pixels"], atol=1e-5)


# -- outputs made by hand ----------------------------------------------------------------------------------------------
OUTPUTS = {
    "maskformer": ("class_queries_logits", "masks_queries_logits"),
    "mask2former": ("class_queries_logits", "masks_queries_logits"),
    "detr-masks": ("logits", "pred_masks"),
}


def query_task(kind: str) -> Task:
    logits, masks = OUTPUTS[kind]
    outputs = (TensorSpec(logits, "float32", (-1, -1, 6)), TensorSpec(masks, "float32", (-1, -1, -1, -1)))
    return create_task(
        make_spec("image-segmentation", labels=NAMES, outputs=outputs, postprocessing=Postprocessing(head=kind))
    )


@pytest.mark.parametrize("subtask", ["panoptic", "instance", "semantic"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_queries_become_the_library_s_segments(dense: Path, kind: str, subtask: str) -> None:
    task = query_task(kind)
    size = SIZE[::-1]
    context = np.empty(1, dtype=object)
    context[0] = Placement(size, (96, 64), 0, 0, (96, 64))
    queries = np.load(dense / "queries.npz")
    logits, masks = OUTPUTS[kind]
    raw = {logits: queries["logits"][np.newaxis], masks: queries["masks"][np.newaxis], CONTEXT: context}
    (found,) = task.post(raw, task.read_params({"subtask": subtask, "threshold": 0.5}))
    assert isinstance(found, list)
    # DETR's instances are its panoptic segments.
    known = "panoptic" if (kind, subtask) == ("detr-masks", "instance") else subtask
    with np.load(dense / f"{kind}-{known}-by-hand.npz") as wanted:
        assert len(wanted["labels"]) >= 3
        assert_masks(found, wanted)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_maps_are_brought_to_a_picture_as_pytorch_does(dense: Path, mode: str) -> None:
    with np.load(dense / "interpolated.npz") as wanted:
        for number in range(int(wanted["count"])):
            values, theirs = wanted[f"{number}-values"], wanted[f"{number}-{mode}"]
            height, width = theirs.shape[1:]
            square = Placement((width, height), (64, 64), 0, 0, (64, 64))
            down, across = axes(square, values.shape[1:])
            if mode == "nearest":
                assert np.array_equal(values[:, down.nearest()][:, :, across.nearest()], theirs)
                continue
            ours = np.concatenate(
                [block for _, block in sampled(values, down, across, cubic=mode == "bicubic")], axis=1
            )
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, atol=5e-6 * np.abs(values).max(), rtol=0)
