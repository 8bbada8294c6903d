"""depth-estimation from first principles: maps made of known numbers, and what comes back of them."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.errors import EngineError, LoadFailed, Malformed
from engine.model_spec import Preprocessing, TensorSpec
from engine.viridis import VIRIDIS
from engine.worker.tasks import create_task
from engine.worker.tasks.base import CONTEXT, Task
from engine.worker.tasks.placement import Placement, place
from tests.engine.worker.process import make_spec

pytestmark = pytest.mark.real

STRETCH = Preprocessing(size=(64, 96), resize="stretch", layout="nchw")
PICTURE = (200, 100)
SLOPE = np.linspace(1, 5, 96, dtype=np.float32) * np.ones((64, 1), np.float32)


def task_of(how: Preprocessing = STRETCH, *outputs: TensorSpec) -> Task:
    return create_task(make_spec("depth-estimation", preprocessing=how, outputs=outputs))


def ask(
    raw: NDArray[Any] | dict[str, NDArray[Any]],
    *,
    how: Preprocessing = STRETCH,
    picture: tuple[int, int] = PICTURE,
    **params: Any,
) -> dict[str, Any]:
    task = task_of(how)
    context = np.empty(1, dtype=object)
    context[0] = place(picture, how.size, how)
    outputs = raw if isinstance(raw, dict) else {"y": raw}
    (answer,) = task.post(outputs | {CONTEXT: context}, task.read_params(params))
    if isinstance(answer, EngineError):
        raise answer
    assert isinstance(answer, dict)
    return answer


def levels(answer: dict[str, Any]) -> NDArray[Any]:
    with Image.open(io.BytesIO(answer["depth"])) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB") if image.mode == "P" else image)


@pytest.mark.parametrize("shape", [(1, 64, 96), (1, 1, 64, 96), (1, 64, 96, 1)])
def test_a_map_becomes_numbers_and_a_picture_of_the_picture_s_size(shape: tuple[int, ...]) -> None:
    answer = ask(SLOPE.reshape(shape))
    assert list(answer) == ["depth", "predicted_depth", "minimum", "maximum"]
    numbers = answer["predicted_depth"]
    assert (numbers.dtype, numbers.shape) == (np.float32, (100, 200))
    # A slope stays one under the bicubic filter, but for two values at each end and a twentieth of a step.
    wanted = 1 + 4 * ((np.arange(200) + 0.5) * 96 / 200 - 0.5) / 95
    np.testing.assert_allclose(numbers[:, 6:-6], np.broadcast_to(wanted[6:-6], (100, 188)), atol=0.05 * 4 / 95)
    assert (answer["minimum"], answer["maximum"]) == (numbers.min(), numbers.max())
    grey = levels(answer)
    assert (grey.shape, grey.dtype, grey.min(), grey.max()) == ((100, 200), np.uint8, 0, 255)
    assert (np.diff(grey.astype(int), axis=1)[:, 3:-3] >= 0).all()


def test_forms_of_the_picture() -> None:
    grey, wide, colours = (levels(ask(SLOPE[np.newaxis], depth=form)) for form in ("grey", "grey16", "viridis"))
    assert (wide.dtype, int(wide.min()), int(wide.max())) == (np.uint16, 0, 65535)
    assert np.array_equal(wide // 257, grey) or np.abs((wide // 257).astype(int) - grey).max() <= 1
    assert np.array_equal(colours, VIRIDIS[grey])


def test_viridis_is_matplotlib_s() -> None:
    assert VIRIDIS.shape == (256, 3)
    assert ["#" + bytes(VIRIDIS[at]).hex() for at in (0, 128, 255)] == ["#440154", "#20908c", "#fde724"]


def test_a_letterbox_is_undone() -> None:
    how = Preprocessing(size=(64, 96), resize="letterbox", layout="nchw")
    numbers = np.full((1, 64, 96), 9, np.float32)
    numbers[0, 8:56] = np.arange(48, dtype=np.float32)[:, np.newaxis]
    answer = ask(numbers, how=how)
    wanted = (np.arange(100) + 0.5) * 0.48 - 0.5
    np.testing.assert_allclose(answer["predicted_depth"][6:-6, 100], wanted[6:-6], atol=0.05)
    assert answer["maximum"] < 48  # the nines of the grey edges play no part


def test_the_same_depth_everywhere_is_an_answer_that_says_so() -> None:
    answer = ask(np.full((1, 64, 96), 2.5, np.float32))
    assert (answer["minimum"], answer["maximum"]) == (2.5, 2.5)
    assert answer["note"] == "The model gives every pixel the same depth, 2.5: the picture of it is black."
    assert not levels(answer).any()
    assert (answer["predicted_depth"] == 2.5).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_are_said(value: float) -> None:
    numbers = SLOPE[np.newaxis].copy()
    numbers[0, 3, 3] = value
    with pytest.raises(EngineError, match="values that are not numbers") as caught:
        ask(numbers)
    assert caught.value.code == "model_error"


def test_what_lies_outside_the_picture_must_be_numbers_too() -> None:
    how = Preprocessing(size=(64, 96), resize="letterbox", layout="nchw")
    numbers = SLOPE[np.newaxis].copy()
    numbers[0, 0] = np.nan
    with pytest.raises(EngineError, match="values that are not numbers"):
        ask(numbers, how=how)


def test_numbers_that_the_filter_cannot_hold_are_said() -> None:
    numbers = np.where(np.arange(96) % 2 * np.ones((1, 64, 1)) > 0, 3.4e38, -3.4e38).astype(np.float32)
    with pytest.raises(EngineError, match="values that are not numbers"):
        ask(numbers)


@pytest.mark.parametrize("shape", [(1, 7), (1, 3, 64, 96), (1, 64, 96, 2)])
def test_shapes_without_a_map_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match="hold no map of depth: one number for each pixel") as caught:
        ask(np.zeros(shape, np.float32))
    assert str(list(shape)) in caught.value.message
    with pytest.raises(LoadFailed, match="hold no map of depth"):
        task_of(STRETCH, TensorSpec("y", "float32", (-1, *shape[1:])))


def test_the_named_output_is_taken_among_several() -> None:
    raw = {"features": np.zeros((1, 8, 8), np.float32), "predicted_depth": SLOPE[np.newaxis]}
    assert ask(raw)["maximum"] > 4


def test_what_a_crop_cuts_off_has_no_depth() -> None:
    with pytest.raises(LoadFailed, match="What a crop cuts off has no depth"):
        task_of(Preprocessing(size=(64, 64), resize="shortest", crop="center", layout="nchw"))


def test_parameters_are_checked() -> None:
    assert task_of().read_params({"depth": "grey16", "threshold": 0.5}) == {"depth": "grey16"}
    with pytest.raises(Malformed, match="depth must be one of grey, grey16, viridis"):
        task_of().read_params({"depth": "jet"})


@pytest.mark.parametrize("picture", [(6000, 4000), (30000, 400)])
def test_a_large_picture_keeps_its_size_and_its_numbers_are_fewer(picture: tuple[int, int]) -> None:
    """24 million pixels in float32, twice, would be 192 MB."""
    task = task_of()
    context = np.empty(1, dtype=object)
    context[0] = Placement(picture, (96, 64), 0, 0, (96, 64))
    tracemalloc.start()
    try:
        (answer,) = task.post({"y": SLOPE[np.newaxis], CONTEXT: context}, task.read_params({}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(answer, dict)
    assert levels(answer).shape == picture[::-1]
    numbers = answer["predicted_depth"]
    assert 3_500_000 < numbers.size <= 4_000_000
    assert numbers.shape[1] / numbers.shape[0] == pytest.approx(picture[0] / picture[1], rel=0.01)
    assert peak < picture[0] * picture[1] + 4 * numbers.size + (100 << 20)
