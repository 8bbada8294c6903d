"""Pictures and arrays in answers: through the frames and back, and what a lying process can make of them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from engine.answer_parts import as_json, pack_parts, unpack_parts
from engine.prediction import Prediction
from engine.protocol import ProtocolError

PNG = b"\x89PNG\r\n\x1a\n and so on"
DEPTH = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_an_answer_comes_back_as_it_was_sent() -> None:
    value = [{"label": "cat", "mask": PNG}, {"label": "map", "depth": DEPTH, "runs": [0, 4, 2]}]
    tree, told, buffers = pack_parts(value)
    assert tree == [{"label": "cat", "mask": {"$part": 0}}, {"label": "map", "depth": {"$part": 1}, "runs": [0, 4, 2]}]
    back = unpack_parts(tree, told, iter(bytes(b) for b in buffers))
    assert back[0] == value[0]
    np.testing.assert_array_equal(back[1]["depth"], DEPTH)
    assert back[1]["depth"].dtype == np.float32


def test_json_has_base64_and_nested_numbers() -> None:
    answer = Prediction("1", "m", "depth-estimation", {}, predictions={"depth": PNG, "predicted_depth": DEPTH})
    assert answer.to_json()["predictions"] == {
        "depth": base64.b64encode(PNG).decode(),
        "predicted_depth": {"dtype": "float32", "shape": [2, 3], "data": DEPTH.tolist()},
    }
    rows = Prediction("1", "m", "image-to-image", {}, results=[{"input": 0, "predictions": {"image": PNG}}])
    assert rows.to_json()["results"][0]["predictions"]["image"] == base64.b64encode(PNG).decode()


def test_values_that_are_no_numbers_are_null_in_json() -> None:
    assert as_json({"d": np.array([1.0, np.nan, np.inf])})["d"]["data"] == [1.0, None, None]


LIES: dict[str, tuple[Any, Any, list[bytes]]] = {
    "a part that is not there": ([{"$part": 1}], [{"kind": "bytes"}], [b"x"]),
    "a part named twice": ([{"$part": 0}, {"$part": 0}], [{"kind": "bytes"}], [b"x"]),
    "a part named nowhere": ([], [{"kind": "bytes"}], [b"x"]),
    "a part named by true": ([{"$part": True}, {"$part": 0}], [{"kind": "bytes"}, {"kind": "bytes"}], [b"x", b"y"]),
    "a part without a buffer": ([{"$part": 0}], [{"kind": "bytes"}], []),
    "a part of another kind": ([{"$part": 0}], [{"kind": "pickle"}], [b"x"]),
    "a part that is told by no object": ([{"$part": 0}], ["bytes"], [b"x"]),
    "parts that are no list": ([{"$part": 0}], {"0": {"kind": "bytes"}}, [b"x"]),
    "too many parts": ([], [{"kind": "bytes"}] * 10_001, [b"x"]),
    "an array that its buffer does not fill": (
        [{"$part": 0}], [{"kind": "tensor", "name": "", "dtype": "float32", "shape": [9, 9]}], [b"xxxx"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_process_is_found_out(lie: str) -> None:
    tree, told, buffers = LIES[lie]
    with pytest.raises(ProtocolError):
        unpack_parts(tree, told, iter(buffers))


def test_an_answer_deeper_than_any_task_makes_is_refused() -> None:
    tree: Any = {"$part": 0}
    for _ in range(40):
        tree = [tree]
    with pytest.raises(ProtocolError, match="levels"):
        unpack_parts(tree, [{"kind": "bytes"}], iter([b"x"]))
