"""Masks and depths through the engine and over HTTP: made once, shown in other forms without asking the model again."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from engine.formats.describe import describe_model
from engine.prediction import PredictRequest
from tests.e2e.program import PATIENCE_S, Client, Program
from tests.engine.engine_harness import running_engine

pytestmark = pytest.mark.real


def onnx(folder: Path, node: Any, channels: int) -> Path:
    """A model whose output of 64 x 96 is made of its picture by one operation."""
    folder.mkdir()
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 64, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", channels, 64, 96])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    return folder


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Each pixel's class is its strongest colour."""
    folder = onnx(tmp_path / "colours", helper.make_node("Identity", ["x"], ["y"]), 3)
    (folder / "labels.txt").write_text("red\ngreen\nblue\n")
    return folder


@pytest.fixture
def brightness(tmp_path: Path) -> Path:
    """Each pixel's depth is how bright it is."""
    folder = onnx(tmp_path / "brightness", helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1), 1)
    (folder / "deskside.toml").write_text('task = "depth-estimation"\n')
    return folder


def picture() -> bytes:
    """Red left, blue right, and a little brighter from left to right."""
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:, :60, 0] = np.linspace(100, 150, 60)
    pixels[:, 60:, 2] = np.linspace(150, 200, 60)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def shown(data: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


def inferences(engine: Any) -> int:
    return int(engine.stats()["models"][0]["inferences"])


def test_masks_in_other_forms_ask_the_model_nothing(colours: Path, tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        engine.load(describe_model(colours).with_id("m")).future.result(PATIENCE_S)
        answer = engine.predict(PredictRequest("m", picture(), "image/png")).result(PATIENCE_S)
        assert answer.task == "image-segmentation"
        assert isinstance(answer.predictions, list)
        assert [(entry["label"], entry["score"]) for entry in answer.predictions] == [("red", None), ("blue", None)]
        red = shown(answer.predictions[0]["mask"]) == 255
        assert red.shape == (80, 120)
        assert red[:, :59].all()
        assert not red[:, 61:].any()
        before = inferences(engine)
        lengths = engine.refine(answer.id, {"masks": "rle"}).result(PATIENCE_S).predictions[0]["mask"]
        assert lengths["size"] == [80, 120]
        assert sum(lengths["counts"][1::2]) == red.sum()
        (ring,) = engine.refine(answer.id, {"masks": "polygons"}).result(PATIENCE_S).predictions[0]["mask"]
        assert (min(ring[0::2]), max(ring[1::2])) == (0.0, 80.0)
        again = engine.refine(answer.id, {}).result(PATIENCE_S)
        assert again.predictions == answer.predictions
        assert inferences(engine) == before == 1


def test_another_threshold_asks_the_model_nothing(brightness: Path, tmp_path: Path) -> None:
    (brightness / "deskside.toml").write_text('task = "image-segmentation"\nlabels = ["bright"]\n')
    with running_engine(tmp_path) as (engine, _):
        engine.load(describe_model(brightness).with_id("m")).future.result(PATIENCE_S)
        answer = engine.predict(PredictRequest("m", picture(), "image/png")).result(PATIENCE_S)
        assert answer.predictions == []
        # Each pixel is a third as bright as its colour, 100 to 200 of 255; 153 lies 3.6 columns right of the middle.
        for threshold, share in ((0.1, 1.0), (0.2, 56.4 / 120), (0.3, 0.0)):
            found = engine.refine(answer.id, {"threshold": threshold}).result(PATIENCE_S).predictions
            assert sum(entry["area"] for entry in found) == pytest.approx(share, abs=0.02)
        assert inferences(engine) == 1


def test_depth_in_other_forms_asks_the_model_nothing(brightness: Path, tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        engine.load(describe_model(brightness).with_id("m")).future.result(PATIENCE_S)
        answer = engine.predict(PredictRequest("m", picture(), "image/png")).result(PATIENCE_S)
        found = answer.predictions
        assert isinstance(found, dict)
        assert shown(found["depth"]).shape == found["predicted_depth"].shape == (80, 120)
        assert found["predicted_depth"].dtype == np.float32
        assert pytest.approx(found["minimum"], abs=0.02) == 100 / 765
        assert pytest.approx(found["maximum"], abs=0.02) == 200 / 765
        wide = engine.refine(answer.id, {"depth": "grey16"}).result(PATIENCE_S).predictions
        assert int(shown(wide["depth"]).max()) == 65535
        colours = engine.refine(answer.id, {"depth": "viridis"}).result(PATIENCE_S).predictions
        assert Image.open(io.BytesIO(colours["depth"])).mode == "P"
        assert inferences(engine) == 1


def test_http_gives_pictures_in_base64(colours: Path, brightness: Path, tmp_path: Path) -> None:
    program = Program(["serve", colours, brightness, "--port", "0"], tmp_path)
    client = Client(program.url())
    try:
        status, body = client.post("/predict/colours", picture(), "image/png")
        assert (status, body["task"]) == (200, "image-segmentation")
        masks = [shown(base64.b64decode(entry["mask"])) for entry in body["predictions"]]
        assert [mask.shape for mask in masks] == [(80, 120)] * 2
        assert ((masks[0] == 255) ^ (masks[1] == 255)).all()
        status, body = client.post("/predict/brightness", picture(), "image/png")
        assert (status, body["task"]) == (200, "depth-estimation")
        assert shown(base64.b64decode(body["predictions"]["depth"])).shape == (80, 120)
        assert body["predictions"]["predicted_depth"]["shape"] == [80, 120]
    finally:
        client.close()
        assert program.stop() == 0
