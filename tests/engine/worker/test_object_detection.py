"""object-detection from first principles: raw outputs made of known boxes, and the boxes that come back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.detection_heads import LITERT_DETECTIONS, recognise_head
from engine.model_spec import Postprocessing, Preprocessing, TensorSpec
from engine.worker.images import DecodedImage
from engine.worker.tasks.image_tensors import LETTERBOX_GREY, ImageTensors
from engine.worker.tasks.placement import place
from tests.engine.worker.process import make_spec

pytestmark = pytest.mark.real

LABELS = ("cat", "dog", "bird")
LETTERBOX = Preprocessing(size=(64, 96), resize="letterbox", layout="nchw")
CELLS = (64 // 8) * (96 // 8) + (64 // 16) * (96 // 16) + (64 // 32) * (96 // 32)
PICTURE = (200, 100)
SCALE, LEFT, TOP = 96 / 200, 0, 8
"""A picture of 200 x 100 in 96 x 64: 96 x 48 pixels of it, 8 grey rows above and below."""
CAT, DOG = (20, 10, 70, 60), (100, 30, 180, 90)
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
            pre: Preprocessing = LETTERBOX,
            labels: tuple[str, ...] = LABELS,
            outputs: tuple[TensorSpec, ...] = (),
            picture: tuple[int, int] = PICTURE,
            **params: Any,
        ) -> dict[str, Any]:
            spec = make_spec(
                "object-detection",
                preprocessing=pre,
                postprocessing=post or Postprocessing(),
                labels=labels,
                outputs=outputs,
            )
            values = {name: np.asarray(array).tolist() for name, array in raw.items()}
            question = {"spec": spec.to_json(), "picture": picture, "raw": values, "params": params}
            sending.write(json.dumps(question) + "\n")
            sending.flush()
            answer: dict[str, Any] = json.loads(receiving.readline())
            return answer

        yield asked
        sending.close()


def in_tensor(box: tuple[float, ...]) -> np.ndarray:
    """xmin, ymin, xmax, ymax of the picture in pixels of the letterboxed tensor."""
    return np.array(box) * SCALE + [LEFT, TOP, LEFT, TOP]


def centred(box: np.ndarray) -> list[float]:
    return [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]


def yolov8(*found: tuple[tuple[float, ...], int, float], classes: int = 3) -> np.ndarray:
    raw = np.zeros((1, 4 + classes, CELLS), np.float32)
    raw[0, :4] = np.linspace(1, 64, CELLS)
    for cell, (box, number, score) in enumerate(found):
        raw[0, :4, cell] = centred(in_tensor(box))
        raw[0, 4 + number, cell] = score
    return raw


def yolov5(*found: tuple[tuple[float, ...], int, float]) -> np.ndarray:
    raw = np.zeros((1, 3 * CELLS, 8), np.float32)
    raw[0, :, :4] = np.linspace(1, 64, 3 * CELLS)[:, np.newaxis]
    for cell, (box, number, score) in enumerate(found):
        raw[0, cell, :5] = [*centred(in_tensor(box)), 0.5]
        raw[0, cell, 5 + number] = score / 0.5
    return raw


def end_to_end(*found: tuple[tuple[float, ...], int, float]) -> np.ndarray:
    raw = np.zeros((1, 20, 6), np.float32)
    for row, (box, number, score) in enumerate(found):
        raw[0, row] = [*in_tensor(box), score, number]
    return raw


def shares(box: tuple[float, ...]) -> np.ndarray:
    return in_tensor(box) / [96, 64, 96, 64]


def detr(*found: tuple[tuple[float, ...], int, float], softmax: bool = True) -> dict[str, np.ndarray]:
    scores = np.full((1, 10, 4 if softmax else 3), 1e-6)
    boxes = np.full((1, 10, 4), 0.5)
    for row, (box, number, score) in enumerate(found):
        boxes[0, row] = centred(shares(box))
        scores[0, row, number] = score
    if softmax:
        scores[0, :, 3] = 1 - scores[0, :, :3].sum(axis=1)
        return {"logits": np.log(scores), "pred_boxes": boxes}
    return {"logits": np.log(scores / (1 - scores)), "pred_boxes": boxes}


def tensorflow(*found: tuple[tuple[float, ...], int, float]) -> dict[str, np.ndarray]:
    """Two rows after the count hold leftovers, which mean nothing."""
    boxes, scores, classes = np.full((1, 6, 4), 0.3), np.full((1, 6), 0.99), np.ones((1, 6))
    for row, (box, number, score) in enumerate(found):
        left, top, right, bottom = shares(box)
        boxes[0, row], scores[0, row], classes[0, row] = [top, left, bottom, right], score, number + 1
    return {
        "detection_boxes": boxes,
        "detection_scores": scores,
        "detection_classes": classes,
        "num_detections": np.array([len(found)]),
        "detection_anchor_indices": np.zeros((1, 6)),
    }


def litert(*found: tuple[tuple[float, ...], int, float]) -> dict[str, np.ndarray]:
    told = tensorflow(*found)
    names = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
    parts = [told[name] for name in names]
    parts[1] = parts[1] - 1
    return dict(zip(LITERT_DETECTIONS, parts, strict=True))


FOUND = ((CAT, 0, 0.9), (DOG, 1, 0.8))
WANTED = [("cat", 0.9, CAT), ("dog", 0.8, DOG)]
HEADS: dict[str, dict[str, np.ndarray]] = {
    "yolov8": {"output0": yolov8(*FOUND)},
    "yolov8-cells-first": {"output0": yolov8(*FOUND).transpose(0, 2, 1)},
    "yolov8-shares": {"output0": yolov8(*FOUND) / np.array([96, 64, 96, 64, 1, 1, 1])[:, np.newaxis]},
    "yolov5": {"output0": yolov5(*FOUND)},
    "end-to-end": {"output0": end_to_end(*FOUND)},
    "detr": detr(*FOUND),
    "detr-sigmoid": detr(*FOUND, softmax=False),
    "tensorflow": tensorflow(*FOUND),
    "litert": litert(*FOUND),
}


def flat(answer: dict[str, Any]) -> list[tuple[str, float, tuple[int, ...]]]:
    assert "answer" in answer, answer
    return [
        (entry["label"], round(entry["score"], 4), tuple(entry["box"][k] for k in ("xmin", "ymin", "xmax", "ymax")))
        for entry in answer["answer"]
    ]


@pytest.mark.parametrize("name", HEADS)
def test_every_head_gives_the_boxes_it_was_made_of(ask: Ask, name: str) -> None:
    answer = ask(HEADS[name])
    assert flat(answer) == WANTED
    entry = answer["answer"][0]
    assert list(entry) == ["label", "score", "box"]
    assert all(type(edge) is int for edge in entry["box"].values())


@pytest.mark.parametrize("name", ["yolov8", "yolov5", "end-to-end"])
def test_cells_and_counts_tell_a_head_without_names_of_classes(ask: Ask, name: str) -> None:
    assert [label for label, _, _ in flat(ask(HEADS[name], labels=()))] == ["LABEL_0", "LABEL_1"]


@pytest.mark.parametrize("name", HEADS)
def test_a_stated_head_is_taken_or_refused(ask: Ask, name: str) -> None:
    kind = name.split("-c")[0].removesuffix("-sigmoid").removesuffix("-shares")
    assert flat(ask(HEADS[name], post=Postprocessing(head=kind), labels=LABELS)) == WANTED
    other = "detr" if kind != "detr" else "yolov5"
    code, message = ask(HEADS[name], post=Postprocessing(head=other))["error"]
    assert code == "model_error"
    assert f"cannot be read as '{other}'" in message


def test_one_thing_has_one_box_and_classes_do_not_suppress_each_other(ask: Ask) -> None:
    near = (22, 12, 72, 62)
    raw = {"output0": yolov8((CAT, 0, 0.7), (near, 0, 0.9), (near, 2, 0.6), (DOG, 1, 0.8))}
    assert flat(ask(raw)) == [("cat", 0.9, near), ("dog", 0.8, DOG), ("bird", 0.6, near)]
    # CAT and near: 48 * 48 of 2 * 2500 - 2304, an overlap of 0.855.
    assert len(flat(ask(raw, iou=0.86))) == 4
    assert len(flat(ask(raw, iou="0.85"))) == 3
    assert len(flat(ask(raw, post=Postprocessing(iou=0.9)))) == 4


def test_threshold_and_top_k(ask: Ask) -> None:
    raw = {"output0": yolov8((CAT, 0, 0.3), (DOG, 1, 0.2))}
    assert len(flat(ask(raw))) == 1
    assert len(flat(ask(raw, threshold=0.1))) == 2
    assert flat(ask(raw, threshold=0.1, top_k=1)) == [("cat", 0.3, CAT)]
    assert flat(ask(raw, post=Postprocessing(threshold=0.5))) == []


def test_boxes_end_at_the_edges_and_those_outside_are_none(ask: Ask) -> None:
    raw = {"output0": yolov8(((-30, -5, 40, 50), 0, 0.9), ((150, 60, 260, 140), 1, 0.8), ((210, 10, 250, 40), 2, 0.7))}
    assert [box for _, _, box in flat(ask(raw))] == [(0, 0, 40, 50), (150, 60, 200, 100)]


@pytest.mark.parametrize("name", ["yolov8", "yolov5", "end-to-end", "detr", "tensorflow"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_numbers_are_said(ask: Ask, name: str, value: float) -> None:
    raw = {key: array.astype(np.float64) for key, array in HEADS[name].items()}
    first = next(key for key in ("output0", "pred_boxes", "detection_boxes") if key in raw)
    raw[first][0, 0, 0] = value
    assert ask(raw)["error"] == ["model_error", "The model answered this input with values that are not numbers."]


def test_scores_outside_0_to_1_are_said_and_a_sigmoid_helps(ask: Ask) -> None:
    raw = yolov8(*FOUND)
    with np.errstate(divide="ignore"):
        raw[0, 4:] = np.maximum(np.log(raw[0, 4:] / (1 - raw[0, 4:])), -20)
    code, message = ask({"output0": raw})["error"]
    assert (code, message[:48]) == ("model_error", "The model's scores do not lie between 0 and 1: s")
    assert flat(ask({"output0": raw}, post=Postprocessing(activation="sigmoid"))) == WANTED


@pytest.mark.parametrize("shape", [(1, 9, 126), (1, 10), (1, 3, 8, 12)])
def test_shapes_of_no_head_are_named(ask: Ask, shape: tuple[int, ...]) -> None:
    code, message = ask({"y": np.zeros(shape)})["error"]
    assert code == "model_error"
    assert message.startswith(f"The model's outputs, y {list(shape)}, cannot be read for 3 labels: state labels")
    refused = ask({}, outputs=(TensorSpec("y", "float32", (-1, *shape[1:])),))["refused"]
    assert "cannot be read for 3 labels" in refused


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        (Preprocessing(size=(8, 8), resize="fit"), "cannot be cut by fractions"),
        (Preprocessing(resize="letterbox"), "needs preprocessing.size"),
        (Preprocessing(resize="edges"), "needs preprocessing.resize_size"),
    ],
)
def test_preprocessing_that_cannot_be_undone_is_refused(ask: Ask, pre: Preprocessing, words: str) -> None:
    assert words in ask({}, pre=pre)["refused"]


# -- which head --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "classes", "kind"),
    [
        ((1, 84, 8400), 80, "yolov8"), ((1, 84, 8400), 0, "yolov8"), ((1, 8400, 84), 80, "yolov8"),
        ((1, 25200, 85), 80, "yolov5"), ((1, 25200, 85), 0, "yolov5"), ((1, 25200, 6), 1, "yolov5"),
        ((1, 300, 6), 80, "end-to-end"), ((1, 300, 6), 1, "end-to-end"), ((1, 300, 6), 2, "end-to-end"),
        ((1, 6, 8400), 2, "yolov8"), ((1, 84, 8400), 79, None), ((1, 100, 7), 0, None), ((1, 50, 60), 3, None),
    ],
)  # fmt: skip
def test_heads_by_shape(shape: tuple[int, ...], classes: int, kind: str | None) -> None:
    head = recognise_head({"output0": shape}, classes, (640, 640))
    assert (head.kind if head else None) == kind
    if head is not None:
        assert str(list(shape)) in head.reason


# -- there and back ----------------------------------------------------------------------------------------------------
def test_letterboxing_is_undone_exactly() -> None:
    """The corners of the picture, and a point inside, from the definition: scaled to whole pixels, padded in the
    middle, the larger half right and below."""
    for width, height in [(200, 100), (100, 200), (96, 64), (33, 47), (641, 479), (5, 300), (1, 1)]:
        placement = place((width, height), (64, 96), LETTERBOX)
        ratio = min(64 / height, 96 / width)
        across, down = max(1, round(width * ratio)), max(1, round(height * ratio))
        left, top = (96 - across) // 2, (64 - down) // 2
        there = np.array([[left, top, left + across, top + down], [left + across / 4, top, left + across / 2, top + 1]])
        back = placement.to_picture(there)
        np.testing.assert_allclose(back[0], [0, 0, width, height], atol=1e-9)
        np.testing.assert_allclose(back[1], [width / 4, 0, width / 2, height / down], atol=1e-9)


@pytest.mark.parametrize(
    "how",
    [
        LETTERBOX,
        Preprocessing(size=(64, 96), resize="letterbox", resample="inter_linear", layout="nchw"),
        Preprocessing(size=(64, 96), resize="stretch", layout="nchw"),
        Preprocessing(size=(64, 96), resize="longest", layout="nchw"),
        Preprocessing(size=(64, 96), resize="shortest", crop="center", layout="nchw"),
        Preprocessing(resize="edges", resize_size=(50, 120), layout="nchw"),
        Preprocessing(resize="edges-of-16", resize_size=(50, 120), layout="nchw"),
    ],
    ids=lambda how: f"{how.resize}-{how.resample}",
)
def test_a_bright_part_of_a_picture_is_found_where_it_is(how: Preprocessing) -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[30:70, 60:140] = 255
    decoded = DecodedImage(Image.fromarray(pixels), (200, 100))
    tensors = ImageTensors(
        make_spec("object-detection", preprocessing=how), TensorSpec("x", "float32", (-1, 3, -1, -1))
    )
    tensor = tensors.convert(decoded)[0]
    bright = np.argwhere(tensor[0] > 0.75)
    (top, left), (bottom, right) = bright.min(axis=0), bright.max(axis=0) + 1
    placement = tensors.place(decoded)
    assert placement.tensor == tensor.shape[:0:-1]
    back = placement.to_picture(np.array([[left, top, right, bottom]], dtype=np.float64))[0]
    step = max(200 / placement.scaled[0], 100 / placement.scaled[1])
    np.testing.assert_allclose(back, [60, 30, 140, 70], atol=step)


def test_the_letterbox_is_grey_and_its_picture_sampled_like_opencvs() -> None:
    how = Preprocessing(size=(4, 4), resize="letterbox", resample="inter_linear", layout="nchw", scaling="0..255")
    row = np.array([0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 200], np.uint8)
    image = Image.fromarray(np.repeat(np.repeat(row[np.newaxis], 8, axis=0)[:, :, np.newaxis], 3, axis=2))
    tensor = ImageTensors(make_spec(preprocessing=how), None).convert(DecodedImage(image, image.size))[0, 0]
    # A new pixel's middle lies between two old ones: (1.5, 5.5, 9.5, 13.5), and only these two count.
    assert tensor.tolist() == [[LETTERBOX_GREY] * 4, [15, 55, 95, 135], [15, 55, 95, 135], [LETTERBOX_GREY] * 4]
