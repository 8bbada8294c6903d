"""The examples whose answers are pictures or places in them: right, through the whole product, on pictures never seen."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.engine import Engine
from engine.prediction import Prediction, PredictRequest
from tests.e2e.program import PATIENCE_S
from tests.engine.engine_harness import quick_settings

pytestmark = pytest.mark.real
EXAMPLES = Path(__file__).parents[2] / "examples"
TASKS = {
    "shapes-segmenter": "image-segmentation",
    "shapes-depth": "depth-estimation",
    "shapes-keypoints": "keypoint-detection",
    "photo-2x": "image-to-image",
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    script = Path(__file__).with_name("draw_examples.py")
    subprocess.run([sys.executable, str(script), str(EXAMPLES), str(folder)], check=True, timeout=PATIENCE_S)
    return folder


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(quick_settings(), folder=tmp_path_factory.mktemp("engine")) as running:
        loads = [running.load(EXAMPLES / name) for name in TASKS]
        for load in loads:
            load.future.result(PATIENCE_S)
        yield running


def ask(engine: Engine, model: str, data: bytes, **params: Any) -> Prediction:
    return engine.predict(PredictRequest(model, data, params=params, timeout_s=PATIENCE_S)).result(PATIENCE_S)


def cases(drawn: Path, name: str) -> Iterator[tuple[bytes, Any]]:
    for picture in sorted(drawn.glob(f"{name}-*.png")):
        with np.load(picture.with_suffix(".npz")) as truth:
            yield picture.read_bytes(), dict(truth)


@pytest.mark.parametrize("name", TASKS)
def test_every_folder_is_complete_and_small(name: str) -> None:
    folder = EXAMPLES / name
    stated = tomllib.loads((folder / "deskside.toml").read_text(encoding="utf-8"))
    assert stated["task"] == TASKS[name]
    assert (folder / "model.onnx").stat().st_size < 1_500_000
    assert len(list((folder / "samples").glob("*.png"))) >= 2


@pytest.mark.parametrize("name", TASKS)
def test_it_still_answers_as_its_golden_sample_says(engine: Engine, name: str) -> None:
    report = engine.check_golden(name).result(PATIENCE_S)
    assert report.agreed is True, report.message
    (entry,) = (model for model in engine.stats()["models"] if model["id"] == name)
    assert entry["task"] == TASKS[name]


def unrolled(mask: dict[str, Any]) -> np.ndarray:
    """COCO's runs, column by column, the first of zeros."""
    height, width = mask["size"]
    values = np.repeat(np.arange(len(mask["counts"])) % 2, mask["counts"]).astype(bool)
    return values.reshape(width, height).T


def test_the_segmenter_tells_shapes_from_the_ground(engine: Engine, drawn: Path) -> None:
    labels = ["ground", "circle", "square", "triangle"]
    shared, either = np.zeros(4), np.zeros(4)
    for data, truth in cases(drawn, "shapes-segmenter"):
        answer = ask(engine, "shapes-segmenter", data, masks="rle").predictions
        masks = {entry["label"]: unrolled(entry["mask"]) for entry in answer or ()}
        for number, label in enumerate(labels):
            wanted = truth["classes"] == number
            found = masks.get(label, np.zeros_like(wanted))
            assert found.shape == wanted.shape
            shared[number] += (found & wanted).sum()
            either[number] += (found | wanted).sum()
    assert (shared / either).mean() > 0.8, (shared / either).tolist()


def test_the_masks_are_the_same_in_every_form(engine: Engine, drawn: Path) -> None:
    data, truth = next(cases(drawn, "shapes-segmenter"))
    first = ask(engine, "shapes-segmenter", data)
    before = {m["id"]: m["inferences"] for m in engine.stats()["models"]}
    runs = engine.refine(first.id, {"masks": "rle"}).result(PATIENCE_S).predictions
    rings = engine.refine(first.id, {"masks": "polygons"}).result(PATIENCE_S).predictions
    assert {m["id"]: m["inferences"] for m in engine.stats()["models"]} == before
    assert first.predictions
    assert runs is not None
    assert rings is not None
    for png, run, ring in zip(first.predictions, runs, rings, strict=True):
        with Image.open(io.BytesIO(png["mask"])) as picture:
            pixels = np.asarray(picture)
        assert set(np.unique(pixels)) <= {0, 255}
        np.testing.assert_array_equal(pixels > 0, unrolled(run["mask"]))
        assert ring["label"] == png["label"]
        assert all(len(points) % 2 == 0 for points in ring["mask"])


def ranks(values: np.ndarray) -> np.ndarray:
    order = np.empty(values.size)
    order[values.argsort(axis=None, kind="stable")] = np.arange(values.size)
    return order


def test_the_depth_model_orders_what_is_near_and_far(engine: Engine, drawn: Path) -> None:
    found = []
    for data, truth in cases(drawn, "shapes-depth"):
        answer = ask(engine, "shapes-depth", data).predictions
        assert isinstance(answer, dict)
        nearness = answer["predicted_depth"]
        assert nearness.shape == truth["distance"].shape
        found.append(np.corrcoef(ranks(nearness), ranks(1.0 / truth["distance"]))[0, 1])
    assert np.mean(found) > 0.9, found


def test_the_joints_of_figures_are_found(engine: Engine, drawn: Path) -> None:
    right = total = 0
    for data, truth in cases(drawn, "shapes-keypoints"):
        answer = ask(engine, "shapes-keypoints", data).predictions or []
        for box, points, seen in zip(truth["boxes"], truth["points"], truth["seen"], strict=True):
            places = [np.array([[p["x"], p["y"]] for p in entry["keypoints"]]) for entry in answer]
            nearest = min((np.linalg.norm(place - points, axis=1) for place in places), key=np.mean, default=None)
            total += int(seen.sum())
            if nearest is not None:
                right += int((nearest < 0.1 * (box[3] - box[1]))[seen > 0].sum())
    assert right / total > 0.9, (right, total)


def test_enlarged_photographs_are_nearer_to_the_original_than_bicubic(engine: Engine, drawn: Path) -> None:
    for data, truth in cases(drawn, "photo-2x"):
        answer = ask(engine, "photo-2x", data).predictions
        assert isinstance(answer, dict)
        with Image.open(io.BytesIO(answer["image"])) as picture:
            found = np.asarray(picture, np.float64)
        errors = [((image - truth["wanted"].astype(np.float64)) ** 2).mean() for image in (found, truth["bicubic"])]
        gain = 10 * np.log10(errors[1] / errors[0])
        assert gain > 1.0, gain


def test_a_large_photograph_is_enlarged_in_tiles_without_a_seam(engine: Engine) -> None:
    """The same photograph whole and as a part of it: what lies around makes no difference."""
    with Image.open(EXAMPLES / "photo-2x" / "samples" / "temple.png") as sample:
        large = sample.convert("RGB").resize((900, 700), Image.Resampling.BICUBIC)

    def enlarged(picture: Image.Image) -> np.ndarray:
        packed = io.BytesIO()
        picture.save(packed, "PNG")
        answer = ask(engine, "photo-2x", packed.getvalue()).predictions
        assert isinstance(answer, dict)
        with Image.open(io.BytesIO(answer["image"])) as found:
            return np.asarray(found).astype(int)

    whole = enlarged(large)
    assert whole.shape == (1400, 1800, 3)
    part = enlarged(large.crop((250, 200, 650, 600)))
    inside = part[32:-32, 32:-32]
    assert np.abs(inside - whole[432:1168, 532:1268]).max() <= 1
