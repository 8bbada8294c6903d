"""Inputs in several windows: which rows answer together, and what becomes of them where one fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError, UnusableInput
from engine.worker.answers import answer
from engine.worker.tasks.base import CONTEXT, Arrays, Params
from engine.worker.tasks.token_classification import _best_places
from engine.worker.tasks.tokenizing import TokenWindow
from engine.worker.work import Block, Form, Work


class Sums:
    """Answers the sum over all rows it is asked about, and what was noted of them."""

    takes_images = takes_tables = False

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        return [[float(raw["y"].sum()), list(raw[CONTEXT])]]


def block(slot: int, values: list[float], width: int = 1) -> Block:
    context = np.empty(len(values), dtype=object)
    context[:] = [f"{slot}-{row}" for row in range(len(values))]
    made = Block({}, len(values), [slot] * len(values), windows=True, context=context)
    made.parts[0] = {"y": np.array([[value] * width for value in values])}
    return made


def answered(*blocks: Block, form: Form = Form.RESULTS) -> Any:
    work = Work("r", form, {}, blocks=list(blocks), inputs=len(blocks))
    return answer(work.finish(), Sums(), {})[0]["value"]  # type: ignore[arg-type]  # only post is asked


def test_the_windows_of_one_input_answer_together() -> None:
    assert answered(block(0, [1.0, 2.0, 3.0]), form=Form.PREDICTIONS) == [6.0, ["0-0", "0-1", "0-2"]]


@pytest.mark.parametrize("width", [1, 2])
def test_inputs_are_kept_apart_however_many_windows_they_have(width: int) -> None:
    """Of width 2 the middle one's rows differ in shape from its neighbours', and are no piece with them."""
    found = answered(block(0, [1.0]), block(1, [2.0, 3.0], width), block(2, [4.0]), block(3, [5.0]))
    assert [entry["predictions"] for entry in found] == [
        [1.0, ["0-0"]],
        [5.0 * width, ["1-0", "1-1"]],
        [4.0, ["2-0"]],
        [5.0, ["3-0"]],
    ]


def test_an_input_of_which_one_window_failed_has_no_answer() -> None:
    failed = block(0, [1.0, 2.0])
    failed.row_errors[1] = UnusableInput("No.", code="model_error")
    failed.parts = {0: {"y": np.array([[1.0]])}}
    first, second = answered(failed, block(1, [7.0]))
    assert first == {"input": 0, "error": {"code": "model_error", "message": "No."}}
    assert second["predictions"] == [7.0, ["1-0"]]


def window(first: int, tokens: int) -> TokenWindow:
    special = np.array([True, *[False] * tokens, True])
    length = len(special)
    nothing = np.zeros(length, np.int64)
    return TokenWindow("", nothing, np.zeros((length, 2), np.int64), special, np.ones(length, bool), first)


def test_a_token_counts_where_it_lies_further_from_the_edge() -> None:
    """Tokens 0 to 7 and 4 to 11: 4 and 5 lie deeper in the first window, 6 and 7 in the second."""
    places = _best_places([window(0, 8), window(4, 8)])
    assert sorted(places) == list(range(12))
    assert [places[number][0] for number in range(12)] == [0] * 6 + [1] * 6
    assert places[5] == (0, 6)
    assert places[6] == (1, 3)


def test_in_one_window_every_token_counts() -> None:
    assert _best_places([window(0, 3)]) == {0: (0, 1), 1: (0, 2), 2: (0, 3)}
