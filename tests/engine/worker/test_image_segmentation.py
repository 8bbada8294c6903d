"""image-segmentation from first principles: raw outputs made of known masks, and the masks that come back."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.errors import Malformed, UnusableInput
from engine.model_spec import Postprocessing, Preprocessing, TensorSpec
from engine.segmentation_heads import HEADS, recognise_segmentation
from engine.worker.tasks import create_task, masks
from engine.worker.tasks.class_maps import best_classes
from engine.worker.tasks.masks import Mask, Segment, entries, whole
from engine.worker.tasks.placement import Placement
from tests.engine.worker.process import make_spec

pytestmark = pytest.mark.real

LABELS = ("cat", "dog", "bird")
STRETCH = Preprocessing(size=(64, 96), resize="stretch", layout="nchw")
LETTERBOX = Preprocessing(size=(64, 96), resize="letterbox", layout="nchw")
PICTURE = (200, 100)
"""A picture of 200 x 100 in 96 x 64: letterboxed 96 x 48 pixels of it, 8 grey rows above and below."""
CAT, DOG = (20, 10, 70, 60), (60, 30, 180, 90)
CELLS = (64 // 8) * (96 // 8) + (64 // 16) * (96 // 16) + (64 // 32) * (96 // 32)
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    command = [sys.executable, "-m", "tests.engine.worker.ask_detection"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        sending, receiving = child.stdin, child.stdout

        def asked(
            raw: dict[str, Any],
            *,
            post: Postprocessing | None = None,
            pre: Preprocessing = STRETCH,
            labels: tuple[str, ...] = LABELS,
            outputs: tuple[TensorSpec, ...] = (),
            picture: tuple[int, int] = PICTURE,
            masks: str = "rle",
            **params: Any,
        ) -> dict[str, Any]:
            spec = make_spec(
                "image-segmentation",
                preprocessing=pre,
                postprocessing=post or Postprocessing(),
                labels=labels,
                outputs=outputs,
            )
            arrays = {name: np.asarray(array) for name, array in raw.items()}
            question = {
                "spec": spec.to_json(),
                "picture": picture,
                "raw": {name: array.tolist() for name, array in arrays.items()},
                "dtypes": {name: array.dtype.name for name, array in arrays.items()},
                "params": params | {"masks": masks},
            }
            sending.write(json.dumps(question) + "\n")
            sending.flush()
            answer: dict[str, Any] = json.loads(receiving.readline())
            return answer

        yield asked
        sending.close()


def decoded(mask: dict[str, Any]) -> NDArray[np.bool_]:
    """COCO's run lengths by their definition: column by column, zeros first."""
    height, width = mask["size"]
    ones = np.zeros(height * width, dtype=bool)
    at = 0
    for number, count in enumerate(mask["counts"]):
        ones[at : at + count] = number % 2
        at += count
    assert at == height * width
    assert all(count > 0 for count in mask["counts"][1:])
    return ones.reshape(width, height).T


def found(answer: dict[str, Any]) -> dict[str, NDArray[np.bool_]]:
    assert "answer" in answer, answer
    told = {}
    for entry in answer["answer"]:
        told[entry["label"]] = decoded(entry["mask"])
        assert entry["area"] == pytest.approx(told[entry["label"]].mean())
    return told


def halves(height: int = 64, width: int = 96) -> NDArray[np.float32]:
    """(1, 3, height, width): the first class left, the second right."""
    scores = np.zeros((1, 3, height, width), np.float32)
    scores[0, 0, :, : width // 2] = 4
    scores[0, 1, :, width // 2 :] = 4
    return scores


LEFT = np.broadcast_to(np.arange(200) < 100, (100, 200))


# -- maps of classes ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(64, 96), (16, 24), (2, 2), (128, 192)])
@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_scores_become_a_mask_for_each_class_that_is_there(ask: Ask, size: tuple[int, int], last: bool) -> None:
    scores = halves(*size)
    answer = ask({"y": scores.transpose(0, 2, 3, 1) if last else scores})
    told = found(answer)
    assert list(told) == ["cat", "dog"]
    assert [entry["score"] for entry in answer["answer"]] == [None, None]
    assert list(answer["answer"][0]) == ["label", "score", "mask", "area"]
    assert np.array_equal(told["cat"], LEFT)
    assert np.array_equal(told["dog"], ~LEFT)


def test_without_labels_the_proportions_tell_where_the_classes_are(ask: Ask) -> None:
    scores = halves(32, 48)
    for raw in (scores, scores.transpose(0, 2, 3, 1)):
        told = found(ask({"y": raw}, labels=()))
        assert np.array_equal(told["LABEL_0"], LEFT)
        assert list(told) == ["LABEL_0", "LABEL_1"]


def test_a_letterbox_is_undone_and_its_grey_shows_nowhere(ask: Ask) -> None:
    scores = np.zeros((1, 3, 64, 96), np.float32)
    scores[0, 0, 8:32], scores[0, 1, 32:56] = 4, 4
    scores[0, 2, :8] = scores[0, 2, 56:] = 40
    told = found(ask({"y": scores}, pre=LETTERBOX))
    assert list(told) == ["cat", "dog"]
    upper = np.broadcast_to((np.arange(100) < 50)[:, np.newaxis], (100, 200))
    assert np.array_equal(told["cat"], upper)
    assert np.array_equal(told["dog"], ~upper)


def test_what_a_crop_cut_off_has_no_class(ask: Ask) -> None:
    how = Preprocessing(size=(64, 64), resize="shortest", crop="center", layout="nchw")
    scores = np.zeros((1, 3, 64, 64), np.float32)
    scores[0, 1] = 1
    told = found(ask({"y": scores}, pre=how))
    # 200 x 100 become 128 x 64, of which the middle 64 columns are seen: those of the picture's middle 100.
    seen = np.zeros((100, 200), dtype=bool)
    seen[:, 50:150] = True
    assert np.array_equal(told["dog"], seen)


@pytest.mark.parametrize("shape", [(1, 64, 96), (1, 1, 64, 96), (1, 64, 96, 1)])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32"])
def test_a_map_of_class_numbers_is_taken_as_it_is(ask: Ask, shape: tuple[int, ...], dtype: str) -> None:
    numbers = np.where(np.arange(96) < 48, 2, 7) * np.ones((64, 1), int)
    post = Postprocessing(head="class-map") if dtype == "float32" else None
    told = found(ask({"y": numbers.reshape(shape).astype(dtype)}, post=post))
    assert list(told) == ["bird", "LABEL_7"]
    assert np.array_equal(told["bird"], LEFT)


@pytest.mark.parametrize("shape", [(1, 64, 96), (1, 1, 64, 96), (1, 64, 96, 1)])
def test_one_channel_is_how_sure_the_model_is_of_the_only_class(ask: Ask, shape: tuple[int, ...]) -> None:
    shares = np.where(np.arange(96) < 48, 0.7, 0.2) * np.ones((64, 1))
    raw = {"y": shares.reshape(shape)}
    assert np.array_equal(found(ask(raw, labels=("cell",)))["cell"], LEFT)
    assert np.array_equal(found(ask(raw, labels=()))["LABEL_0"], LEFT)
    assert list(found(ask(raw, labels=("nothing", "cell")))) == ["nothing", "cell"]
    assert np.array_equal(found(ask(raw, labels=("nothing", "cell")))["cell"], LEFT)
    assert ask(raw, labels=("cell",), threshold=0.8)["answer"] == []
    assert found(ask(raw, labels=("cell",), threshold="0.1"))["cell"].all()
    logits = {"y": np.log(shares / (1 - shares)).reshape(shape)}
    sigmoid = Postprocessing(activation="sigmoid")
    assert np.array_equal(found(ask(logits, labels=("cell",), post=sigmoid))["cell"], LEFT)
    code, message = ask(logits, labels=("cell",))["error"]
    assert code == "model_error"
    assert message.endswith("set activation under [postprocessing] in the sidecar to sigmoid.")


def test_with_a_sigmoid_a_pixel_may_have_several_classes(ask: Ask) -> None:
    logits = halves() * 2 - 4
    logits[0, 2] = 3
    told = found(ask({"y": logits}, post=Postprocessing(activation="sigmoid")))
    assert np.array_equal(told["cat"], LEFT)
    assert told["bird"].all()


# -- boxes with prototypes ---------------------------------------------------------------------------------------------
THINGS = ((CAT, 0, 0.9), (DOG, 1, 0.8))


def in_tensor(box: tuple[float, ...]) -> NDArray[np.float64]:
    return np.array(box) * 0.48 + [0, 8, 0, 8]


def prototypes() -> NDArray[np.float32]:
    """(1, 4, 32, 48): everywhere, the left half, the right half, and nothing."""
    made = np.full((1, 4, 32, 48), -1, np.float32)
    made[0, 0] = 1
    made[0, 1, :, :24] = made[0, 2, :, 24:] = 1
    return made


def rows(kind: str, things: Any = THINGS) -> NDArray[np.float32]:
    cells = 20 if kind == "end-to-end" else 3 * CELLS if kind == "yolov5" else CELLS
    boxes = np.zeros((1, cells, 4), np.float64)
    boxes[0] = np.linspace(1, 64, cells)[:, np.newaxis]
    first = {"yolov8": 4, "yolov5": 5, "end-to-end": 4}[kind]
    scores = np.zeros((1, cells, first - 4 + (2 if kind == "end-to-end" else 3)))
    weights = np.zeros((1, cells, 4))
    for at, (box, number, score) in enumerate(things):
        edges = in_tensor(box)
        weights[0, at, number] = 1
        if kind == "end-to-end":
            boxes[0, at], scores[0, at] = edges, (score, number)
            continue
        boxes[0, at] = [*(edges[:2] + edges[2:]) / 2, *(edges[2:] - edges[:2])]
        scores[0, at, first - 4 + number] = score if kind == "yolov8" else score / 0.5
        if kind == "yolov5":
            scores[0, at, 0] = 0.5
    return np.concatenate([boxes, scores, weights], axis=2)


YOLO: dict[str, dict[str, NDArray[Any]]] = {
    "yolov8": {"output0": rows("yolov8").transpose(0, 2, 1), "output1": prototypes()},
    "yolov8-cells-first": {"output0": rows("yolov8"), "output1": prototypes()},
    "yolov5": {"output0": rows("yolov5"), "output1": prototypes()},
    "end-to-end": {"output0": rows("end-to-end"), "output1": prototypes()},
    "prototypes-last": {
        "output0": rows("yolov8").transpose(0, 2, 1),
        "output1": prototypes().transpose(0, 2, 3, 1),
    },
}


def boxed(box: tuple[int, ...]) -> NDArray[np.bool_]:
    inside = np.zeros((100, 200), dtype=bool)
    inside[box[1] : box[3], box[0] : box[2]] = True
    return inside


@pytest.mark.parametrize("name", YOLO)
def test_a_box_with_prototypes_becomes_a_mask_inside_it(ask: Ask, name: str) -> None:
    answer = ask(YOLO[name], pre=LETTERBOX)
    told = found(answer)
    assert [(e["label"], round(e["score"], 4)) for e in answer["answer"]] == [("cat", 0.9), ("dog", 0.8)]
    assert np.array_equal(told["cat"], boxed(CAT))  # its prototype is everywhere
    assert np.array_equal(told["dog"], boxed(DOG) & LEFT)  # its prototype is the left half


@pytest.mark.parametrize("name", YOLO)
def test_a_stated_head_is_taken_or_refused(ask: Ask, name: str) -> None:
    kind = name.removesuffix("-cells-first").replace("prototypes-last", "yolov8")
    assert found(ask(YOLO[name], pre=LETTERBOX, post=Postprocessing(head=f"{kind}-masks")))
    code, message = ask(YOLO[name], pre=LETTERBOX, post=Postprocessing(head="detr-masks"))["error"]
    assert code == "model_error"
    assert "cannot be read as 'detr-masks'" in message


def test_things_that_overlap_are_one_and_parameters_choose(ask: Ask) -> None:
    near = (22, 12, 72, 62)
    things = ((CAT, 0, 0.7), (near, 0, 0.9), (DOG, 0, 0.4))
    raw = {"output0": rows("yolov8", things).transpose(0, 2, 1), "output1": prototypes()}
    scores = [round(entry["score"], 4) for entry in ask(raw, pre=LETTERBOX)["answer"]]
    assert scores == [0.9, 0.4]
    assert len(ask(raw, pre=LETTERBOX, iou=0.9)["answer"]) == 3
    assert len(ask(raw, pre=LETTERBOX, threshold=0.5)["answer"]) == 1
    assert len(ask(raw, pre=LETTERBOX, top_k=1)["answer"]) == 1
    assert ask(raw, pre=LETTERBOX, threshold=0.95)["answer"] == []


# -- bad outputs -------------------------------------------------------------------------------------------------------
def with_value(raw: dict[str, NDArray[Any]], name: str, value: float) -> dict[str, NDArray[Any]]:
    changed = {key: array.astype(np.float32) for key, array in raw.items()}
    changed[name].flat[3] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({"y": halves()}, "y"),
        (YOLO["yolov8"], "output0"),
        (YOLO["yolov8"], "output1"),
        ({"class_queries_logits": np.zeros((1, 3, 4)), "masks_queries_logits": np.zeros((1, 3, 8, 12))},
         "masks_queries_logits"),
        ({"class_queries_logits": np.zeros((1, 3, 4)), "masks_queries_logits": np.zeros((1, 3, 8, 12))},
         "class_queries_logits"),
    ],
)  # fmt: skip
def test_values_that_are_not_numbers_are_said(ask: Ask, raw: dict[str, NDArray[Any]], name: str, value: float) -> None:
    answer = ask(with_value(raw, name, value), pre=LETTERBOX)
    assert answer["error"] == ["model_error", "The model answered this input with values that are not numbers."]


@pytest.mark.parametrize("shape", [(1, 10), (1, 5, 8, 12), (1, 8, 12), (1, 3, 4, 5, 6)])
def test_shapes_of_no_head_are_named(ask: Ask, shape: tuple[int, ...]) -> None:
    code, message = ask({"y": np.zeros(shape)})["error"]
    assert code == "model_error"
    assert message.startswith(f"The model's outputs, y {list(shape)}, cannot be read for 3 labels: state labels")
    refused = ask({}, outputs=(TensorSpec("y", "float32", (-1, *shape[1:])),))["refused"]
    assert "cannot be read for 3 labels" in refused


def test_queries_that_do_not_belong_together_are_named(ask: Ask) -> None:
    raw = {"class_queries_logits": np.zeros((1, 3, 4)), "masks_queries_logits": np.zeros((1, 4, 8, 12))}
    assert "[3, 4] and masks_queries_logits [4, 8, 12]" in ask(raw)["error"][1]


def test_a_map_of_scores_stated_as_class_numbers_is_said(ask: Ask) -> None:
    raw = {"y": np.full((1, 64, 96), 0.5)}
    assert "no numbers of classes" in ask(raw, post=Postprocessing(head="class-map"))["error"][1]


def test_too_many_classes_are_said(ask: Ask) -> None:
    numbers = np.arange(64 * 96).reshape(1, 64, 96)
    assert "different classes" in ask({"y": numbers}, picture=(96, 64))["error"][1]


def test_parameters_are_checked() -> None:
    outputs = (TensorSpec("logits", "float32", (-1, 3, 64, 96)),)
    task = create_task(make_spec("image-segmentation", labels=LABELS, outputs=outputs, preprocessing=STRETCH))
    assert task.read_params({"masks": "polygons", "iou": "0.4", "other": 1}) == {"masks": "polygons", "iou": 0.4}
    for wrong in ({"masks": "jpeg"}, {"subtask": "all"}, {"threshold": 2}, {"iou": "x"}, {"top_k": 0}):
        with pytest.raises(Malformed):
            task.read_params(wrong)


# -- which head --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shapes", "classes", "size", "kind", "channels"),
    [
        ({"y": (1, 21, 65, 65)}, 21, (513, 513), "semantic", "first"),
        ({"y": (1, 65, 65, 21)}, 21, (513, 513), "semantic", "last"),
        ({"y": (1, 65, 65, 21)}, 0, (513, 513), "semantic", "last"),
        ({"y": (1, 21, 65, 65)}, 20, (513, 513), None, ""),
        ({"y": (1, 64, 64, 64)}, 0, (512, 512), None, ""),
        ({"y": (1, 64, 64, 64)}, 64, (512, 512), None, ""),
        ({"out": (1, 3, 8, 8), "aux": (1, 3, 8, 8)}, 3, (64, 64), "semantic", "first"),
        ({"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}, 80, (640, 640), "yolov8-masks", "first"),
        ({"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}, 0, (640, 640), "yolov8-masks", "first"),
        ({"output0": (1, 8400, 116), "output1": (1, 160, 160, 32)}, 80, (640, 640), "yolov8-masks", "last"),
        ({"output0": (1, 25200, 117), "output1": (1, 32, 160, 160)}, 80, (640, 640), "yolov5-masks", "first"),
        ({"output0": (1, 300, 38), "output1": (1, 32, 160, 160)}, 80, (640, 640), "end-to-end-masks", "first"),
        ({"output0": (1, 116, -1), "output1": (1, 32, -1, -1)}, 80, (640, 640), "yolov8-masks", "first"),
        ({"output0": (1, 10, 10), "output1": (1, 32, 160, 160)}, 80, (640, 640), None, ""),
    ],
)  # fmt: skip
def test_heads_by_shape(
    shapes: dict[str, tuple[int, ...]], classes: int, size: tuple[int, int], kind: str | None, channels: str
) -> None:
    head = recognise_segmentation({name: ("float32", shape) for name, shape in shapes.items()}, classes, size)
    assert ((head.kind, head.channels) if head else (None, "")) == (kind, channels)


def test_every_stated_head_takes_nothing_from_nothing() -> None:
    for head in HEADS:
        assert recognise_segmentation({}, 3, (64, 64), head) is None
        assert recognise_segmentation({"y": ("float32", (1, 7))}, 3, (64, 64), head) is None


# -- forms of a mask ---------------------------------------------------------------------------------------------------
def some_masks() -> dict[str, NDArray[np.bool_]]:
    rng = np.random.default_rng(4)
    ring = np.hypot(*np.mgrid[-20:20, -30:30])
    touching = np.zeros((5, 4), dtype=bool)
    touching[:, 1:3] = True
    return {
        "ring": (ring > 8) & (ring < 15),
        "noise": rng.random((17, 31)) < 0.4,
        "all": np.ones((6, 9), dtype=bool),
        "dot": np.arange(35).reshape(5, 7) == 17,
        "corner": np.arange(35).reshape(5, 7) == 34,
        "diagonal": np.eye(6, dtype=bool),
        "columns": touching,
    }


@pytest.mark.parametrize("name", some_masks())
def test_run_lengths_are_the_mask(name: str) -> None:
    pixels = some_masks()[name]
    for mask in (whole(pixels), Mask(pixels, pixels.shape[::-1])):
        ((entry),) = entries([Segment("a", None, mask)], "rle")
        assert np.array_equal(decoded(entry["mask"]), pixels)
        assert entry["mask"]["size"] == list(pixels.shape)
    assert whole(pixels).area() == pytest.approx(pixels.mean())


@pytest.mark.parametrize("name", some_masks())
def test_polygons_hold_the_middles_of_exactly_the_mask_s_pixels(name: str) -> None:
    pixels = some_masks()[name]
    (entry,) = entries([Segment("a", 0.5, whole(pixels))], "polygons")
    height, width = pixels.shape
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside = np.zeros(pixels.shape, dtype=bool)
    for ring in entry["mask"]:
        points = np.array(ring).reshape(-1, 2)
        assert (points >= 0).all()
        assert (points <= [width, height]).all()
        # Even-odd: how many edges a ray to the right crosses.
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
            crosses = (y1 > y) != (y2 > y)
            with np.errstate(divide="ignore", invalid="ignore"):
                at = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
            inside ^= crosses[:, np.newaxis] & (x[np.newaxis, :] < at[:, np.newaxis])
    assert np.array_equal(inside, pixels)


def test_a_ring_of_a_rectangle_has_no_more_points_than_it_has_corners() -> None:
    pixels = np.zeros((50, 80), dtype=bool)
    pixels[10:40, 20:70] = True
    (ring,) = whole(pixels).polygons()
    assert len(ring) == 2 * 8  # each corner is cut by half a pixel


def test_a_png_has_the_picture_s_size_and_two_values() -> None:
    pixels = some_masks()["ring"]
    (entry,) = entries([Segment("a", None, whole(pixels))], "png")
    with Image.open(io.BytesIO(entry["mask"])) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        assert np.array_equal(np.asarray(image), pixels * np.uint8(255))


def test_masks_that_are_empty_are_none() -> None:
    assert entries([Segment("a", 0.9, whole(np.zeros((4, 4), dtype=bool)))], "png") == []


@pytest.mark.parametrize("form", ["png", "rle", "polygons"])
def test_masks_that_no_answer_can_hold_are_said(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "MOST_NUMBERS", 100)
    monkeypatch.setattr(masks, "MOST_PNG_BYTES", 100)
    noise = whole(np.random.default_rng(1).random((40, 40)) < 0.5)
    with pytest.raises(UnusableInput, match=f"as {form}: raise the threshold") as caught:
        entries([Segment("a", None, noise)], form)
    assert caught.value.code == "masks_too_large"
    if form == "rle":  # before lists of them are made
        with pytest.raises(UnusableInput, match="as rle"):
            noise.run_lengths()


def test_a_mask_too_large_to_trace_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "MOST_TRACED", 100)
    with pytest.raises(UnusableInput, match="20 x 10 pixels is too large for polygons"):
        Mask(np.ones((10, 20), dtype=bool), (20, 10)).polygons()


# -- pictures ----------------------------------------------------------------------------------------------------------
def test_a_turned_photo_has_masks_as_people_see_it() -> None:
    outputs = (TensorSpec("y", "float32", (-1, 3, 64, 96)),)
    spec = make_spec(
        "image-segmentation", labels=LABELS, outputs=outputs, preprocessing=STRETCH,
        inputs=(TensorSpec("x", "float32", (-1, 3, 64, 96)),),
    )  # fmt: skip
    task = create_task(spec)
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (100, 200)).save(stream, "JPEG", exif=exif)
    given = task.from_image(stream.getvalue())
    assert isinstance(given, dict)
    context = next(name for name in given if name != "x")
    (answer,) = task.post({"y": halves(), context: given[context]}, task.read_params({}))
    assert isinstance(answer, list)
    assert [Image.open(io.BytesIO(entry["mask"])).size for entry in answer] == [(200, 100)] * 2
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer[0]["mask"]))) == 255, LEFT)


def test_a_picture_smaller_than_the_model_takes_is_said() -> None:
    how = Preprocessing(resize="multiples", multiple=32, layout="nchw")
    spec = make_spec("image-segmentation", labels=LABELS, preprocessing=how, outputs=(
        TensorSpec("y", "float32", (-1, 3, -1, -1)),), postprocessing=Postprocessing(head="semantic"))  # fmt: skip
    task = create_task(spec)
    stream = io.BytesIO()
    Image.new("RGB", (300, 31)).save(stream, "PNG")
    with pytest.raises(UnusableInput, match=r"The picture \(300 x 31 pixels\) is too small") as caught:
        task.from_image(stream.getvalue())
    assert caught.value.code == "image_too_small"


def test_a_large_picture_never_has_a_score_of_each_class_for_each_pixel() -> None:
    """150 classes of 12 million pixels would be 7.2 GB of float32."""
    scores = np.zeros((150, 32, 48), np.float32)
    rng = np.random.default_rng(2)
    best = rng.integers(0, 150, (4, 6)).repeat(8, axis=0).repeat(8, axis=1)
    np.put_along_axis(scores, best[np.newaxis], 5, axis=0)
    scores += rng.random(scores.shape, dtype=np.float32)
    placement = Placement((4240, 2830), (96, 64), 0, 0, (96, 64))
    tracemalloc.start()
    try:
        classes = best_classes(scores, placement)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert classes.shape == (2830, 4240)
    assert peak < classes.nbytes + (200 << 20)


def test_taking_over_a_sure_class_changes_no_pixel() -> None:
    """Against the plain way: every score at every pixel, and the best of them."""
    rng = np.random.default_rng(8)
    for shape, picture in (
        ((6, 9, 12), (100, 70)),
        ((3, 20, 30), (17, 11)),
        ((4, 8, 8), (8, 8)),
        ((2, 1, 5), (30, 20)),
    ):
        scores = rng.normal(size=shape).round(1).astype(np.float32)
        placement = Placement(picture, (96, 64), 0, 0, (96, 64))
        ours = best_classes(scores, placement)
        x = np.clip((np.arange(picture[0]) + 0.5) * shape[2] / picture[0] - 0.5, 0, None)
        y = np.clip((np.arange(picture[1]) + 0.5) * shape[1] / picture[1] - 0.5, 0, None)
        x0, y0 = x.astype(int), y.astype(int)
        x1, y1 = np.minimum(x0 + 1, shape[2] - 1), np.minimum(y0 + 1, shape[1] - 1)
        a, b = x - x0, (y - y0)[:, np.newaxis]
        plain = (scores[:, y0][:, :, x0] * (1 - a) + scores[:, y0][:, :, x1] * a) * (1 - b) + (
            scores[:, y1][:, :, x0] * (1 - a) + scores[:, y1][:, :, x1] * a
        ) * b
        best = np.sort(plain, axis=0)
        sure = best[-1] - best[-2] > 1e-5
        assert np.array_equal(ours[sure], plain.argmax(axis=0)[sure])
        assert sure.mean() > 0.8
