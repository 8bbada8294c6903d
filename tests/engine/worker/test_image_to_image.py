"""image-to-image from first principles: models made of a line of NumPy, and what becomes of a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from engine.errors import EngineError, LoadFailed
from engine.model_spec import SIDECAR, Postprocessing, Preprocessing, TensorSpec
from engine.worker.answers import answer
from engine.worker.execution import Executor
from engine.worker.inputs import InputReader
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature
from engine.worker.tasks import create_task
from tests.engine.worker.process import make_spec

Model = Callable[[np.ndarray], np.ndarray]
NCHW = Preprocessing(layout="nchw", resize="none", scaling="0..1")
RANDOM = np.random.default_rng(9)


class NumpyRuntime:
    """Runs a function of one array."""

    warm_up_runs = 0
    device = "cpu"

    def __init__(self, model: Model) -> None:
        self._model = model
        self.shapes: list[tuple[int, ...]] = []

    def load(self, *_: Any) -> LoadedSignature:
        return LoadedSignature()

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> Arrays:
        (array,) = inputs.values()
        self.shapes.append(array.shape)
        return {"y": self._model(array)}

    def failure(self, error: Exception) -> FailureKind:
        return FailureKind.INPUT


def asked(
    model: Model, data: bytes, shape: tuple[int, ...] = (-1, 3, -1, -1), dtype: str = "float32", **spec: Any
) -> tuple[dict[str, Any], NumpyRuntime]:
    """What a model with this input answers to a picture; raises the EngineError that it answers with."""
    values = {"preprocessing": NCHW, "inputs": (TensorSpec("x", dtype, shape),)} | spec
    made = make_spec("image-to-image", **values)
    task = create_task(made)
    runtime = NumpyRuntime(model)
    work = InputReader(task, made).read({"id": "r", "kind": "bytes", "content_type": "image/png"}, [data])
    Executor(runtime, "", 4).execute([work])
    result, buffers = answer(work.finish(), task, work.params)
    value = dict(result["value"])
    value["image"] = bytes(buffers[0])
    return value, runtime


def png(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))


def back(value: dict[str, Any]) -> np.ndarray:
    array: np.ndarray = imagecodecs.png_decode(value["image"])
    return array


def doubled(x: np.ndarray) -> np.ndarray:
    return x.repeat(2, axis=2).repeat(2, axis=3)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (40, 64), (513, 700)])
@pytest.mark.parametrize("top", [255, 65535])
def test_any_size_and_depth_comes_back_as_it_went(size: tuple[int, int], top: int) -> None:
    picture = RANDOM.integers(0, top + 1, (*size, 3)).astype(np.uint16 if top > 255 else np.uint8)
    value, runtime = asked(lambda x: x, png(picture))
    np.testing.assert_array_equal(back(value), picture)
    assert (value["height"], value["width"]) == size
    assert all(side % 16 == 0 for shape in runtime.shapes for side in shape[2:])


def test_a_larger_picture_is_learnt_from_the_answer_and_keeps_its_transparency() -> None:
    picture = RANDOM.integers(0, 256, (30, 20, 4)).astype(np.uint8)
    picture[..., 3] = 77
    value, _ = asked(doubled, png(picture))
    found = back(value)
    np.testing.assert_array_equal(found[..., :3], picture[..., :3].repeat(2, axis=0).repeat(2, axis=1))
    assert (found[..., 3] == 77).all()


def test_sixteen_bits_are_kept_with_their_transparency() -> None:
    picture = RANDOM.integers(0, 65536, (30, 20, 4)).astype(np.uint16)
    np.testing.assert_array_equal(back(asked(lambda x: x, png(picture))[0]), picture)


def test_a_model_of_whole_numbers_gets_eight_bits() -> None:
    picture = RANDOM.integers(0, 256, (30, 20, 3)).astype(np.uint8)
    value, _ = asked(
        lambda x: 255 - x, png(picture.astype(np.uint16) * 257), dtype="uint8", preprocessing=Preprocessing(
            layout="nchw", resize="none", scaling="0..255"
        ),
    )  # fmt: skip
    np.testing.assert_array_equal(back(value), 255 - picture)


def test_a_model_of_four_channels_makes_the_transparency_itself() -> None:
    picture = RANDOM.integers(0, 256, (30, 20, 4)).astype(np.uint8)
    value, _ = asked(lambda x: 1 - x, png(picture), (-1, 4, -1, -1))
    np.testing.assert_array_equal(back(value), 255 - picture)


def test_a_grey_model_gets_grey_and_a_grey_picture_becomes_colour_for_others() -> None:
    colours = RANDOM.integers(0, 256, (30, 20, 3)).astype(np.uint8)
    value, _ = asked(lambda x: x, png(colours), (-1, 1, -1, -1))
    expected = np.asarray(Image.fromarray(colours).convert("L")).astype(int)
    assert np.abs(back(value).astype(int) - expected).max() <= 1
    value, runtime = asked(lambda x: x, png(colours[..., 0]))
    assert runtime.shapes[0][1] == 3
    np.testing.assert_array_equal(back(value), colours[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_layout_order_and_range_are_the_models(layout: str) -> None:
    picture = RANDOM.integers(0, 256, (40, 24, 3)).astype(np.uint8)
    axis = 1 if layout == "nchw" else 3
    seen: list[np.ndarray] = []

    def model(x: np.ndarray) -> np.ndarray:
        seen.append(x)
        return (x + 1) * 127.5

    shape = (-1, 3, -1, -1) if layout == "nchw" else (-1, -1, -1, 3)
    value, _ = asked(
        model, png(picture), shape,
        preprocessing=Preprocessing(layout=layout, resize="none", scaling="-1..1", channel_order="bgr"),
        postprocessing=Postprocessing(scaling="0..255"),
    )  # fmt: skip
    np.testing.assert_array_equal(back(value), picture)
    first = np.moveaxis(seen[0], axis, 3)[0, 0, 0]
    np.testing.assert_allclose(first, picture[0, 0, ::-1] / 127.5 - 1, atol=1e-6)


def test_mean_and_deviation_are_taken_from_what_goes_in() -> None:
    picture = RANDOM.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    how = Preprocessing(layout="nchw", resize="none", scaling="0..1", mean=(0.5,), std=(0.25,))
    value, _ = asked(lambda x: x * 0.25 + 0.5, png(picture), preprocessing=how)
    np.testing.assert_array_equal(back(value), picture)


def test_a_fixed_model_gets_tiles_of_its_size() -> None:
    picture = RANDOM.integers(0, 256, (150, 90, 3)).astype(np.uint8)
    value, runtime = asked(doubled, png(picture), (-1, 3, 64, 48))
    np.testing.assert_array_equal(back(value), picture.repeat(2, axis=0).repeat(2, axis=1))
    assert {shape[1:] for shape in runtime.shapes} == {(3, 64, 48)}


def test_a_model_that_states_a_resize_gets_the_whole_picture_in_that_size() -> None:
    """A model of styles, of 32 x 32: the answer has the picture's own size again."""
    picture = np.zeros((60, 90, 3), np.uint8)
    picture[:, 45:] = 255
    how = Preprocessing(layout="nchw", resize="stretch", size=(32, 32), scaling="0..1")
    value, runtime = asked(
        lambda x: 1 - x, png(picture), (-1, 3, 32, 32), preprocessing=how, evidence={"preprocessing.resize": SIDECAR}
    )
    assert runtime.shapes == [(1, 3, 32, 32)]
    found = back(value)
    assert found.shape == (60, 90, 3)
    assert (found[:, :38] > 250).all()
    assert (found[:, 52:] < 5).all()


def test_many_tiles_go_through_the_model_in_few_calls() -> None:
    picture = RANDOM.integers(0, 256, (900, 1000, 1)).astype(np.uint8)[..., 0]
    value, runtime = asked(lambda x: x, png(picture))
    assert [shape[0] for shape in runtime.shapes][:-1] == [4] * (len(runtime.shapes) - 1)
    np.testing.assert_array_equal(back(value)[..., 0], picture)


BAD: dict[str, tuple[Model, str, str]] = {
    "values that are not numbers": (lambda x: x * np.nan, "model_error", "not numbers"),
    "a row of numbers": (lambda x: x.mean(axis=(1, 2, 3))[:, None], "model_error", "picture was expected"),
    "other proportions": (lambda x: x[:, :, ::2], "model_error", "same proportions"),
    "two channels": (lambda x: x[:, :2], "model_error", "picture was expected"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_picture_is_told(what: str) -> None:
    model, code, words = BAD[what]
    with pytest.raises(EngineError, match=words) as caught:
        asked(model, png(RANDOM.integers(0, 256, (20, 20, 3)).astype(np.uint8)))
    assert caught.value.code == code


def test_an_answer_beyond_all_bounds_is_not_made() -> None:
    picture = Image.new("L", (4000, 3000), 9)
    packed = io.BytesIO()
    picture.save(packed, "PNG")
    with pytest.raises(EngineError, match="128 million"):
        asked(
            lambda x: np.broadcast_to(x[:, :, :1, :1], (*x.shape[:2], x.shape[2] * 16, x.shape[3] * 16)),
            packed.getvalue(),
        )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"inputs": (TensorSpec("x", "float32", (-1, 10)),)}, "no picture"),
        ({"inputs": (TensorSpec("x", "float32", (-1, 5, 8, 8)),)}, "5 channels"),
        ({"inputs": (TensorSpec("x", "str", (-1,)),)}, "no picture"),
        ({"inputs": (TensorSpec("x", "float32", (-1, 3, 8, 8)), TensorSpec("y", "float32", (-1, 3, 8, 8)))}, "'y'"),
        ({"outputs": (TensorSpec("y", "float32", (-1, 1000)),)}, "was expected"),
        ({"preprocessing": Preprocessing(layout="nhw", channel_order="grayscale")}, "nchw or nhwc"),
    ],
)  # fmt: skip
def test_a_model_that_makes_no_pictures_is_refused_when_it_is_loaded(spec: dict[str, Any], words: str) -> None:
    values: dict[str, Any] = {"preprocessing": NCHW, "inputs": (TensorSpec("x", "float32", (-1, 3, -1, -1)),)}
    with pytest.raises(LoadFailed, match=words):
        create_task(make_spec("image-to-image", **(values | spec)))
