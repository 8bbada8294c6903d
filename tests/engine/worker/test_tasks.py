"""The tasks: pictures and tables to tensors, raw scores to answers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from engine.errors import EngineError, LoadFailed, Malformed, UnusableInput
from engine.model_spec import ModelSpec, Postprocessing, Preprocessing, TensorSpec
from engine.worker.tasks import create_task
from engine.worker.tasks.base import CONTEXT, Task
from engine.worker.tasks.placed_pictures import PlacedPictures
from tests.engine.worker.process import make_spec


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def image_task(shape: tuple[int, ...], dtype: str = "float32", **how: Any) -> Task:
    return create_task(
        make_spec(
            "image-classification",
            inputs=(TensorSpec("image", dtype, shape),),
            preprocessing=Preprocessing(**how),
        )
    )


def convert(image: Image.Image, shape: tuple[int, ...], dtype: str = "float32", **how: Any) -> np.ndarray:
    return image_task(shape, dtype, **how).from_image(png(image))["image"]


RED = Image.new("RGB", (8, 4), (255, 0, 0))


@pytest.mark.parametrize(
    ("scaling", "white", "black"),
    [("0..255", 255, 0), ("0..1", 1, 0), ("-1..1", 1, -1), ("0..16", 16, 0), ("1..0", 0, 1)],
)
def test_scaling_names_what_white_and_black_become(scaling: str, white: float, black: float) -> None:
    picture = Image.new("L", (2, 1))
    picture.putpixel((1, 0), 255)
    values = convert(picture, (-1, 1, 2), channel_order="grayscale", layout="nhw", scaling=scaling)
    np.testing.assert_allclose(values, [[[black, white]]], atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "order", "shape", "pixel"),
    [
        ("nhwc", "rgb", (1, 4, 8, 3), [1, 0, 0]),
        ("nhwc", "bgr", (1, 4, 8, 3), [0, 0, 1]),
        ("nchw", "rgb", (1, 3, 4, 8), [1, 0, 0]),
        ("nchw", "bgr", (1, 3, 4, 8), [0, 0, 1]),
        ("nhwc", "grayscale", (1, 4, 8, 1), [76 / 255]),
        ("nchw", "grayscale", (1, 1, 4, 8), [76 / 255]),
    ],
)
def test_layout_and_channel_order(layout: str, order: str, shape: tuple[int, ...], pixel: list[float]) -> None:
    values = convert(RED, (-1, *shape[1:]), layout=layout, channel_order=order)
    assert values.shape == shape
    assert values.flags.c_contiguous
    found = values[0, 0, 0] if layout == "nhwc" else values[0, :, 0, 0]
    np.testing.assert_allclose(found, pixel, atol=1e-6)


def test_mean_and_std_apply_after_scaling_per_channel() -> None:
    values = convert(RED, (-1, 4, 8, 3), mean=(0.5, 0.1, 0.0), std=(0.5, 0.2, 1.0))
    np.testing.assert_allclose(values[0, 0, 0], [1.0, -0.5, 0.0], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_every_value_of_a_pixel_is_the_arithmetic_done_on_it(layout: str, order: str, dtype: str) -> None:
    """Step by step in float32, as the references do it, to the last bit: for all 256 values of each channel."""
    ramp = np.arange(256, dtype=np.uint8)
    pixels = np.stack([ramp, ramp[::-1], np.roll(ramp, 100)], axis=-1).reshape(16, 16, 3)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    ordered = pixels[:, :, ::-1] if order == "bgr" else pixels
    values = (ordered.astype(np.float64) / 255.0).astype(np.float32)
    values = (values - mean) / std
    expected = values.astype(dtype) if dtype != "uint8" else np.clip(np.rint(values), 0, 255).astype(np.uint8)
    shape = (-1, 16, 16, 3) if layout == "nhwc" else (-1, 3, 16, 16)
    how = {"layout": layout, "channel_order": order, "mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
    found = convert(Image.fromarray(pixels), shape, dtype, **how)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found[0], expected if layout == "nhwc" else expected.transpose(2, 0, 1))


def jpeg(size: tuple[int, int]) -> bytes:
    random = np.random.default_rng(11)
    large = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8))
    stream = io.BytesIO()
    Image.blend(large, grain, 0.1).save(stream, "JPEG", quality=90)
    return stream.getvalue()


_WAYS: list[dict[str, Any]] = [
    {"resize": "stretch"},
    {"resize": "shortest", "crop": "center", "resize_size": (40, 40), "resample": "bicubic"},
    {"resize": "letterbox"},
    {"resize": "longest"},
    {"resize": "fit", "resample": "lanczos"},
    {"crop": "square", "resample": "bicubic"},
]


@pytest.mark.parametrize("how", _WAYS, ids=lambda how: "-".join(map(str, how.values())))
def test_a_photograph_decoded_smaller_is_nearly_the_same_picture(
    how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On average by less than a level of 255, and never far; what is decoded is smaller."""
    sizes: list[tuple[int, int]] = []
    load = JpegImageFile.load

    def watched(self: JpegImageFile) -> Any:
        sizes.append(self.size)
        return load(self)

    monkeypatch.setattr(JpegImageFile, "load", watched)
    data = jpeg((601, 433))
    plain, small = (
        image_task((-1, 32, 32, 3), size=(32, 32), scaling="0..255", jpeg_scaled_decode=smaller, **how).from_image(
            data
        )["image"]
        for smaller in (False, True)
    )
    assert sizes[0] == (601, 433)
    assert max(sizes[-1]) <= 601 // 4 + 1
    assert small.shape == plain.shape
    difference = np.abs(small - plain)
    assert 0 < difference.mean() < 1.0
    assert difference.max() < 16


@pytest.mark.parametrize("how", [{"resample": "nearest"}, {"resample": "inter_linear"}, {"resize": "none"}])
def test_where_few_pixels_are_looked_at_all_are_decoded(how: dict[str, Any]) -> None:
    data = jpeg((64, 48))
    arrays = [
        image_task((-1, -1, -1, 3), **({"size": (16, 16)} | how), jpeg_scaled_decode=smaller).from_image(data)["image"]
        for smaller in (False, True)
    ]
    np.testing.assert_array_equal(arrays[0], arrays[1])


def test_boxes_lie_in_the_whole_photograph_though_it_was_decoded_smaller() -> None:
    how = Preprocessing(size=(32, 32), resize="letterbox", jpeg_scaled_decode=True)
    tensor = TensorSpec("image", "float32", (-1, 32, 32, 3))
    pictures = PlacedPictures(make_spec("object-detection", inputs=(tensor,), preprocessing=how), "A detector")
    placement = pictures.from_image(jpeg((600, 300)))[CONTEXT][0]
    assert (placement.picture, placement.scaled) == ((600, 300), (32, 16))
    box = placement.to_picture(np.array([[0.0, 8.0, 32.0, 24.0]]))
    np.testing.assert_allclose(box, [[0, 0, 600, 300]])


def test_integer_inputs_get_whole_numbers() -> None:
    values = convert(RED, (-1, 4, 8, 3), "uint8", scaling="0..255")
    assert values.dtype == np.uint8
    assert values[0, 0, 0].tolist() == [255, 0, 0]


def columns_picture() -> Image.Image:
    """8 x 4: the left half black, the right half white, a grey bar in the two middle columns."""
    pixels = np.zeros((4, 8), dtype=np.uint8)
    pixels[:, 4:] = 255
    pixels[:, 3:5] = 128
    return Image.fromarray(pixels)


def test_stretch_fills_the_size() -> None:
    how: dict[str, Any] = {"size": (4, 4), "channel_order": "grayscale", "layout": "nhw", "scaling": "0..255"}
    values = convert(columns_picture(), (-1, 4, 4), **how)[0]
    assert values[0, 0] < 40
    assert values[0, -1] > 215


def test_shortest_and_crop_cut_out_the_middle() -> None:
    how: dict[str, Any] = {"size": (4, 4), "channel_order": "grayscale", "layout": "nhw", "scaling": "0..255"}
    values = convert(columns_picture(), (-1, 4, 4), resize="shortest", crop="center", **how)[0]
    assert values[0].tolist() == [0, 128, 128, 255]


def test_longest_pads_with_black() -> None:
    how: dict[str, Any] = {"size": (8, 8), "channel_order": "grayscale", "layout": "nhw", "scaling": "0..255"}
    values = convert(Image.new("L", (8, 4), 255), (-1, 8, 8), resize="longest", **how)[0]
    assert values[:, 0].tolist() == [0, 0, 255, 255, 255, 255, 0, 0]


def test_the_size_is_read_off_the_input_where_nothing_states_it() -> None:
    assert convert(RED, (-1, 3, 5, 7), layout="nchw").shape == (1, 3, 5, 7)
    assert convert(RED, (-1, 5, 7, 3)).shape == (1, 5, 7, 3)


@pytest.mark.parametrize(
    ("shape", "how", "words"),
    [
        ((-1, 32, 32, 1), {}, r"\[1, 32, 32, 3\].*takes \[any, 32, 32, 1\]"),
        ((-1, 784), {"size": (28, 28)}, "takes .any, 784."),
        ((-1, 8, 8, 3), {"size": (9, 9)}, "correct .preprocessing."),
        ((-1, 8, 8, 3), {"scaling": "half"}, "scaling"),
        ((-1, 8, 8, 3), {"resize": "squash"}, "resize is 'squash'"),
        ((-1, 8, 8, 3), {"std": (1.0, 0.0, 1.0)}, "zero"),
        ((-1, 8, 8, 3), {"mean": (1.0, 0.0)}, "2 numbers for 3 channels"),
        ((-1, 8, 8), {"layout": "nhw"}, "grayscale"),
    ],
)
def test_preprocessing_that_does_not_fit_the_model_is_found_at_the_load(
    shape: tuple[int, ...], how: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoadFailed, match=words):
        image_task(shape, **how)


def test_a_picture_that_cannot_be_decoded_is_unusable() -> None:
    task = image_task((-1, 8, 8, 3))
    with pytest.raises(UnusableInput):
        task.from_image(png(RED)[:40])
    with pytest.raises(UnusableInput):
        task.from_image(b"hello")


# -- classification ----------------------------------------------------------------------------------------------------
def classify(
    scores: Any, params: dict[str, Any] | None = None, labels: tuple[str, ...] = (), **changes: Any
) -> list[list[Any] | EngineError]:
    changes["postprocessing"] = Postprocessing(**changes.pop("post", {}))
    task = create_task(make_spec("tabular-classification", labels=labels, **changes))
    return task.post({"y": np.asarray(scores, dtype=np.float32)}, task.read_params(params or {}))


def test_best_first_with_names() -> None:
    assert classify([[0.25, 0.5, 0.25]], labels=("a", "b", "c")) == [
        [{"label": "b", "score": 0.5}, {"label": "a", "score": 0.25}, {"label": "c", "score": 0.25}]
    ]


def test_five_unless_told_and_never_more_than_there_are() -> None:
    scores = [[0.1] * 10]
    assert [e["label"] for e in classify(scores)[0]] == [f"LABEL_{i}" for i in range(5)]  # type: ignore[union-attr]
    assert len(classify(scores, {"top_k": "7"})[0]) == 7  # type: ignore[arg-type]
    assert len(classify(scores, {"top_k": 99})[0]) == 10  # type: ignore[arg-type]


def test_threshold_of_the_request_goes_before_that_of_the_model() -> None:
    scores = [[0.5, 0.3, 0.2]]
    assert len(classify(scores, post={"threshold": 0.25})[0]) == 2  # type: ignore[arg-type]
    assert len(classify(scores, {"threshold": 0.4}, post={"threshold": 0.25})[0]) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "params",
    [
        {"top_k": 0},
        {"top_k": "x"},
        {"top_k": 1.5},
        {"top_k": True},
        {"threshold": 2},
        {"threshold": "nan"},
        {"top_k": []},
    ],
)
def test_parameters_out_of_range_are_malformed(params: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        classify([[1.0, 0.0]], params)


def test_activations() -> None:
    (soft,) = classify([[1000.0, 0.0]], post={"activation": "softmax"})
    assert soft == [{"label": "LABEL_0", "score": 1.0}, {"label": "LABEL_1", "score": 0.0}]
    (each,) = classify([[0.0, 100.0]], post={"activation": "sigmoid"})
    assert each == [{"label": "LABEL_1", "score": 1.0}, {"label": "LABEL_0", "score": 0.5}]


def test_one_score_of_two_classes_is_the_second_class() -> None:
    (answer,) = classify([[0.25]], labels=("no", "yes"))
    assert answer == [{"label": "no", "score": 0.75}, {"label": "yes", "score": 0.25}]
    (answer,) = classify([[0.0]], labels=("no", "yes"), post={"activation": "sigmoid"})
    assert answer == [{"label": "no", "score": 0.5}, {"label": "yes", "score": 0.5}]


def test_only_the_row_that_is_not_a_number_fails() -> None:
    good, bad, good_too = classify([[1.0, 0.0], [np.nan, 0.0], [0.0, 1.0]])
    assert isinstance(good, list)
    assert isinstance(good_too, list)
    assert isinstance(bad, UnusableInput)
    assert bad.code == "model_error"
    assert "not numbers" in bad.message


def test_logits_without_an_activation_name_the_setting() -> None:
    (error,) = classify([[4.0, -3.0]])
    assert isinstance(error, UnusableInput)
    assert "activation" in error.message


def test_a_rounding_error_of_the_model_stays_within_nought_and_one() -> None:
    (answer,) = classify([[1.0000005, -1e-7]])
    assert [e["score"] for e in answer] == [1.0, 0.0]  # type: ignore[union-attr]


def test_labels_that_do_not_fit_are_found_at_the_load_or_told() -> None:
    with pytest.raises(LoadFailed, match="3 labels, but the model gives 10 scores"):
        classify([[1.0] * 10], labels=("a", "b", "c"), outputs=(TensorSpec("y", "float32", (-1, 10)),))
    (error,) = classify([[1.0] * 10], labels=("a", "b", "c"))
    assert isinstance(error, UnusableInput)
    assert "3 scores a row were expected" in error.message


def test_of_several_outputs_the_one_that_fits_the_labels_is_taken() -> None:
    task = create_task(make_spec("tabular-classification", labels=("a", "b")))
    raw = {"embedding": np.zeros((1, 9), np.float32), "scores": np.array([[0.1, 0.9]], np.float32)}
    assert task.post(raw, {})[0][0]["label"] == "b"  # type: ignore[index]


# -- tables ------------------------------------------------------------------------------------------------------------
def table_spec(**changes: Any) -> ModelSpec:
    values: dict[str, Any] = {"inputs": (TensorSpec("x", "float32", (-1, 2)),), "columns": ("a", "b")}
    return make_spec("tabular-classification", **(values | changes))


def test_columns_are_matched_by_name_and_others_left_out() -> None:
    table = create_task(table_spec()).from_table([{"z": "9", "b": "2", "a": "1"}, {"b": 4, "a": 3.5, "z": None}])
    assert table.arrays["x"].tolist() == [[1.0, 2.0], [3.5, 4.0]]
    assert table.numbers == [0, 1]


def test_missing_columns_are_named() -> None:
    with pytest.raises(UnusableInput, match="no columns 'a', 'b'") as caught:
        create_task(table_spec()).from_table([{"z": "9"}])
    assert caught.value.code == "column_missing"


@pytest.mark.parametrize("value", ["", "  ", None, "x", "nan", "inf", True, [], "1e400", 1e39, "1,5"])
def test_only_the_row_with_an_unusable_value_fails(value: Any) -> None:
    table = create_task(table_spec()).from_table([{"a": 1, "b": 2}, {"a": value, "b": 2}, {"a": 3, "b": 4}])
    assert table.numbers == [0, 2]
    assert table.arrays["x"].shape == (2, 2)
    assert table.errors[1].code == "value_invalid"
    assert table.errors[1].message.startswith("Row 2, column 'a'")


def test_a_row_without_a_column_that_others_have_fails_alone() -> None:
    table = create_task(table_spec()).from_table([{"a": 1, "b": 2}, {"a": 1}])
    assert table.errors[1].code == "column_missing"


def test_decimal_commas_where_the_table_allows_them() -> None:
    table = create_task(table_spec()).from_table([{"a": "1,5", "b": "-2,25"}], decimal_comma=True)
    assert table.arrays["x"].tolist() == [[1.5, -2.25]]


def test_whole_number_inputs_take_whole_numbers_only() -> None:
    task = create_task(table_spec(inputs=(TensorSpec("x", "int8", (-1, 2)),)))
    table = task.from_table([{"a": "1", "b": "2"}, {"a": "1.5", "b": "2"}, {"a": "300", "b": "2"}])
    assert table.arrays["x"].tolist() == [[1, 2]]
    assert sorted(table.errors) == [1, 2]


def test_without_names_the_tables_own_columns_are_taken_in_order() -> None:
    task = create_task(table_spec(columns=()))
    assert task.from_table([{"u": "1", "v": "2"}]).arrays["x"].tolist() == [[1.0, 2.0]]
    with pytest.raises(UnusableInput, match="takes 2 columns, the table has 3"):
        task.from_table([{"u": "1", "v": "2", "w": "3"}])


def test_a_table_model_of_another_width_is_found_at_the_load() -> None:
    with pytest.raises(LoadFailed, match="3 columns"):
        create_task(table_spec(columns=("a", "b", "c")))


def test_an_unknown_task_is_a_load_that_failed() -> None:
    with pytest.raises(LoadFailed, match="'tea-making'"):
        create_task(make_spec("tea-making"))
