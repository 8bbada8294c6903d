"""keypoint-detection from first principles: raw outputs made of known points, and the points that come back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.keypoint_heads import COCO_POINTS, COCO_SKELETON, recognise_keypoints
from engine.model_spec import Postprocessing, Preprocessing, TensorSpec
from engine.worker.tasks.keypoint_detection import peaks
from tests.engine.worker.process import make_spec

pytestmark = pytest.mark.real

LETTERBOX = Preprocessing(size=(64, 96), resize="letterbox", layout="nchw")
CELLS = (64 // 8) * (96 // 8) + (64 // 16) * (96 // 16) + (64 // 32) * (96 // 32)
PICTURE = (200, 100)
SCALE, LEFT, TOP = 96 / 200, 0, 8
"""A picture of 200 x 100 in 96 x 64: 96 x 48 pixels of it, 8 grey rows above and below."""
NAMES = ("head", "hand", "foot")
BOX, POINTS = (20.0, 10.0, 70.0, 60.0), ((45.0, 12.0), (30.0, 40.0), (50.0, 58.0))
OTHER_BOX, OTHER_POINTS = (100.0, 30.0, 180.0, 90.0), ((140.0, 35.0), (110.0, 60.0), (150.0, 88.0))
SEEN = (0.9, 0.2, 0.7)
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
            labels: tuple[str, ...] = ("person",),
            names: tuple[str, ...] = NAMES,
            outputs: tuple[TensorSpec, ...] = (),
            **params: Any,
        ) -> dict[str, Any]:
            spec = make_spec(
                "keypoint-detection",
                preprocessing=pre,
                postprocessing=post or Postprocessing(),
                labels=labels,
                keypoints=names,
                outputs=outputs,
            )
            values = {name: np.asarray(array).tolist() for name, array in raw.items()}
            question = {"spec": spec.to_json(), "picture": PICTURE, "raw": values, "params": params}
            sending.write(json.dumps(question) + "\n")
            sending.flush()
            answer: dict[str, Any] = json.loads(receiving.readline())
            return answer

        yield asked
        sending.close()


def in_tensor(points: Any) -> np.ndarray:
    return np.asarray(points, dtype=np.float64) * SCALE + [LEFT, TOP]


def column(box: tuple[float, ...], score: float, points: Any, numbers: int, classes: int = 1) -> list[float]:
    """One cell of a raw head: box, scores, points."""
    low, high = in_tensor([box[:2], box[2:]])
    row = [*((low + high) / 2), *(high - low), score, *[0.0] * (classes - 1)]
    for point, seen in zip(in_tensor(points), SEEN, strict=True):
        row += [*point, seen][:numbers]
    return row


def raw_head(*columns: list[float]) -> np.ndarray:
    raw = np.zeros((1, len(columns[0]), CELLS), np.float32)
    raw[0, :4] = np.linspace(1, 64, CELLS)
    for cell, values in enumerate(columns):
        raw[0, :, cell] = values
    return raw


def assert_points(found: list[dict[str, Any]], wanted: Any, scores: Any = SEEN, within: float = 0.02) -> None:
    assert [point["label"] for point in found] == list(NAMES)
    for point, (x, y), score in zip(found, wanted, scores, strict=True):
        assert (point["x"], point["y"]) == pytest.approx((x, y), abs=within)
        assert point["score"] == (None if score is None else pytest.approx(score, abs=1e-6))


@pytest.mark.parametrize("numbers", [3, 2])
@pytest.mark.parametrize("cells_first", [False, True])
def test_a_pose_head_gives_box_and_points_of_the_picture(ask: Ask, numbers: int, cells_first: bool) -> None:
    raw = raw_head(column(BOX, 0.9, POINTS, numbers), column(OTHER_BOX, 0.6, OTHER_POINTS, numbers))
    answer = ask({"y": raw.transpose(0, 2, 1) if cells_first else raw})["answer"]
    assert [(entry["label"], pytest.approx(entry["score"])) for entry in answer] == [("person", 0.9), ("person", 0.6)]
    assert answer[0]["box"] == {"xmin": 20, "ymin": 10, "xmax": 70, "ymax": 60}
    scores = SEEN if numbers == 3 else (None, None, None)
    assert_points(answer[0]["keypoints"], POINTS, scores)
    assert_points(answer[1]["keypoints"], OTHER_POINTS, scores)


def test_cells_that_show_the_same_are_one_and_a_threshold_leaves_out(ask: Ask) -> None:
    near = tuple(edge + 1 for edge in BOX)
    raw = raw_head(
        column(BOX, 0.9, POINTS, 3), column(near, 0.8, OTHER_POINTS, 3), column(OTHER_BOX, 0.4, OTHER_POINTS, 3)
    )
    assert [entry["score"] for entry in ask({"y": raw})["answer"]] == pytest.approx([0.9, 0.4])
    assert len(ask({"y": raw}, threshold=0.5)["answer"]) == 1
    assert len(ask({"y": raw}, iou=0.99)["answer"]) == 3
    assert len(ask({"y": raw}, top_k=1)["answer"]) == 1
    assert ask({"y": raw}, threshold=0.95)["answer"] == []


def test_an_end_to_end_head_gives_what_is_left_of_overlaps(ask: Ask) -> None:
    raw = np.zeros((1, 10, 6 + 9), np.float32)
    corners = in_tensor([BOX[:2], BOX[2:]]).ravel()
    points = np.column_stack([in_tensor(POINTS), SEEN]).ravel()
    raw[0, 3] = [*corners, 0.8, 0.0, *points]
    (entry,) = ask({"y": raw})["answer"]
    assert entry["box"] == {"xmin": 20, "ymin": 10, "xmax": 70, "ymax": 60}
    assert_points(entry["keypoints"], POINTS)


@pytest.mark.parametrize("last", [False, True])
def test_heat_maps_give_the_middle_of_what_they_show(ask: Ask, last: bool) -> None:
    """Blobs drawn at a quarter of the size; half a pixel of the map is 4 of the picture here."""
    maps = np.zeros((1, 3, 16, 24), np.float32)
    y, x = np.mgrid[:16, :24] + 0.5
    for number, (px, py) in enumerate(in_tensor(POINTS) / 4):
        maps[0, number] = SEEN[number] * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 2)
    raw = np.moveaxis(maps, 1, 3) if last else maps
    (entry,) = ask({"y": raw}, labels=())["answer"]
    assert set(entry) == {"keypoints"}
    assert_points(entry["keypoints"], POINTS, [point["score"] for point in entry["keypoints"]], within=4.2)
    assert len(ask({"y": raw}, labels=(), threshold=0.5)["answer"][0]["keypoints"]) == 2
    assert ask({"y": raw}, labels=(), threshold=0.99)["answer"] == []


@pytest.mark.parametrize("as_shares", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_bare_coordinates_are_read_where_they_are_stated(ask: Ask, as_shares: bool, flat: bool) -> None:
    places = in_tensor(POINTS) / (np.array([96, 64]) if as_shares else 1)
    raw = np.column_stack([places, SEEN])[np.newaxis]
    stated = Postprocessing(head="coordinates")
    (entry,) = ask({"y": raw.reshape(1, -1) if flat else raw}, post=stated, labels=())["answer"]
    assert_points(entry["keypoints"], POINTS, within=0.05)


def test_points_outside_the_picture_are_brought_to_its_edge(ask: Ask) -> None:
    (entry,) = ask({"y": raw_head(column(BOX, 0.9, ((-50, 5), (30, 40), (50, 500)), 3))})["answer"]
    assert (entry["keypoints"][0]["x"], entry["keypoints"][2]["y"]) == (0.0, 100.0)


def test_people_of_seventeen_points_need_no_names(ask: Ask) -> None:
    raw = np.zeros((1, 4 + 1 + 51, CELLS), np.float32)
    raw[0, :5, 0] = [30, 30, 20, 20, 0.9]
    (entry,) = ask({"y": raw}, names=(), labels=())["answer"]
    assert [point["label"] for point in entry["keypoints"]] == [f"POINT_{n}" for n in range(17)]
    assert entry["label"] == "LABEL_0"


def test_what_is_not_told_is_not_guessed() -> None:
    assert recognise_keypoints({"y": (-1, 10, 100)}, 0, 0, (64, 96)) is None
    assert recognise_keypoints({"y": (1, 3, 16, 24), "z": (1, 3, 16, 24)}, 0, 3, (64, 96)) is None
    assert recognise_keypoints({"y": (1, 3, 16, 30)}, 0, 3, (64, 96)) is None
    assert recognise_keypoints({"y": (1, 3, 3)}, 0, 3, (64, 96)) is None


BAD = {
    "values that are not numbers": (np.full((1, 14, CELLS), np.nan), "not numbers"),
    "scores beyond 1": (np.full((1, 14, CELLS), 7.0), "between 0 and 1"),
    "another shape": (np.zeros((1, 9)), "cannot be read"),
}


@pytest.mark.parametrize("what", BAD)
def test_answers_that_fit_no_head_are_told(ask: Ask, what: str) -> None:
    raw, words = BAD[what]
    code, message = ask({"y": raw})["error"]
    assert code == "model_error"
    assert words in message


def test_outputs_that_can_be_no_points_are_refused_when_loaded(ask: Ask) -> None:
    refused = ask({"y": np.zeros((1, 2))}, outputs=(TensorSpec("y", "float32", (-1, 1000)),))["refused"]
    assert "3 key points" in refused
    assert "is none of" in ask({"y": np.zeros((1, 2))}, post=Postprocessing(head="yolov8"))["refused"]


def test_a_peak_is_drawn_towards_its_higher_neighbour() -> None:
    maps = np.zeros((2, 5, 5))
    maps[0, 2, 2], maps[0, 2, 3], maps[0, 1, 2] = 1.0, 0.5, 0.2
    maps[1, 0, 4] = 3.0  # in a corner there is no neighbour to go to
    places, scores = peaks(maps)
    np.testing.assert_allclose(places, [[2.75, 2.25], [4.5, 0.5]])
    np.testing.assert_allclose(scores, [1.0, 3.0])


def test_the_skeleton_of_people_connects_their_points() -> None:
    assert len(COCO_POINTS) == 17
    assert {name for pair in COCO_SKELETON for name in pair} == set(COCO_POINTS)
