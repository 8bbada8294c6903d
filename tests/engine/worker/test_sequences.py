"""Texts and recordings: the answers of transformers' own pipelines, and windows from first principles.

Tolerance 1e-4 against the references. All models are opened in one child (``ask_sequences``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.worker.process import PATIENCE_S
from tests.engine.worker.sequences import LONG, TEXTS, WORDS

pytestmark = pytest.mark.real
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sequences")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.engine.worker.ask_sequences", str(folder)]
    environment = dict(os.environ, OMP_WAIT_POLICY="PASSIVE")
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], env=environment, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    answers: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return answers


@pytest.fixture(scope="module")
def references(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "references.json").read_text())
    return read


def assert_alike(mine: Any, theirs: Any) -> None:
    """Equal shapes, texts and whole numbers; other numbers within the tolerance."""
    if isinstance(theirs, dict):
        assert mine.keys() == theirs.keys()
        for key in theirs:
            assert_alike(mine[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_alike(one, other)
    elif isinstance(theirs, float):
        assert mine == pytest.approx(theirs, abs=TOLERANCE)
    else:
        assert mine == theirs


@pytest.mark.parametrize(
    "name", ["mood", "topics", "rating", "names simple", "names none", "vectors", "sentences", "sounds"]
)
def test_the_answer_is_that_of_the_library(found: dict[str, Any], references: dict[str, Any], name: str) -> None:
    assert_alike(found[name], references[name])


@pytest.mark.parametrize(
    ("name", "task", "activation"),
    [
        ("mood", "text-classification", "softmax"),
        ("topics", "text-classification", "sigmoid"),
        ("rating", "text-classification", "none"),
        ("names", "token-classification", "softmax"),
        ("sentences", "feature-extraction", "none"),
        ("sounds", "audio-classification", "softmax"),
    ],
)
def test_what_the_folder_states(found: dict[str, Any], name: str, task: str, activation: str) -> None:
    facts = found[f"{name} facts"]
    assert facts["task"][0] == task
    assert facts["task"][1].startswith("config.json")
    assert facts["postprocessing.activation"][0] == activation


def test_the_steps_of_a_sentence_model_are_shown(found: dict[str, Any]) -> None:
    steps, source = found["sentences facts"]["steps"]
    assert [step["name"] for step in steps] == ["tokenize", "pooling", "normalize"]
    assert source == "modules.json, 1_Pooling/config.json"


# -- long texts ----------------------------------------------------------------------------------------------------
def test_the_scores_of_a_long_text_are_the_mean_over_its_windows(
    found: dict[str, Any], references: dict[str, Any]
) -> None:
    windows = np.array(references["mood windows"])
    assert len(windows) > 5
    mean = dict(zip(("bad", "fair", "good"), windows.mean(axis=0), strict=True))
    assert {entry["label"]: entry["score"] for entry in found["mood long"]} == pytest.approx(mean, abs=TOLERANCE)


def test_the_spans_of_a_long_text_lie_where_they_say(found: dict[str, Any]) -> None:
    tokens = found["names long"]
    assert len(tokens) > 100
    assert [token["word"] for token in tokens] == [LONG[t["start"] : t["end"]].lower() for t in tokens]
    numbers = [token["index"] for token in tokens]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] <= 201
    words = [*LONG.removesuffix(".").lower().split(), "."]
    assert [token["word"] for token in tokens] == [words[number - 1] for number in numbers]


def test_spans_may_reach_over_windows(found: dict[str, Any]) -> None:
    spans = found["names long simple"]
    assert [span["word"].replace(" .", ".") for span in spans] == [
        LONG[span["start"] : span["end"]].lower() for span in spans
    ]
    assert all(one["end"] <= other["start"] for one, other in pairwise(spans))
    assert any(" " in span["word"] for span in spans)


def test_a_threshold_changes_the_answer_without_an_inference(found: dict[str, Any]) -> None:
    raised = found["names raised"]
    assert raised == [span for span in found["names long simple"] if span["score"] >= 0.7]
    assert 0 < len(raised) < len(found["names long simple"])


def test_a_text_too_long_for_one_vector_is_refused(found: dict[str, Any]) -> None:
    assert found["vectors long"] == "input_too_large: The text is too long: this model takes at most 24 tokens."
    assert "at most 20 tokens" in found["sentences long"]


# -- texts as people have them -------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["json", "unstated", "utf-16", "charset", "bom"])
def test_one_text_is_one_answer_in_every_form(found: dict[str, Any], form: str) -> None:
    assert found["forms"][form] == found["mood"][0]


def test_a_form_of_several_texts_answers_each(found: dict[str, Any]) -> None:
    first, long, empty, last = found["form"]
    for entry, alone in ((first, found["mood"][0]), (long, found["mood long"]), (last, found["mood"][2])):
        assert_alike(entry["predictions"], alone)
    assert empty == {"input": 2, "error": {"code": "nothing_to_predict", "message": "The text is empty."}}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", "nothing_to_predict: The text is empty."),
        ("nothing", "nothing_to_predict: "),
        ("binary", "unusable_input: This is not a text"),
        ("too long", "input_too_large: The text is too long: it makes 588 windows of 24 tokens, and at most 256"),
        ("far too long", "input_too_large: The text has 1,000,001 characters"),
        ("no text", 'malformed: "text" must be a text.'),
        ("picture", "unsupported_media_type: This model does not take input of type image/png; it takes text"),
        ("invisible", "nothing_to_predict: The text holds nothing this model has tokens for."),
        ("names unknown", "malformed: aggregation_strategy must be one of simple, none."),
        ("silence", "unusable_input: The recording is silent"),
        ("no samples", "nothing_to_predict: The recording is empty"),
        ("cut off", "unusable_input: The recording is cut off: 50% of its samples are there."),
        ("cut off flac", "unusable_input: The recording is damaged"),
        ("not numbers", "unusable_input: The recording holds samples that are not numbers."),
        ("wrong rate", "unusable_input: The recording has 1 channels of 500 samples a second"),
        ("other kind", "unusable_input: Recordings of the kind AIFF are not opened"),
        ("noise", "unusable_input: This is not a recording that can be opened"),
        ("text", "unsupported_media_type: This model does not take input of type text/plain; it takes a recording"),
    ],
)  # fmt: skip
def test_input_that_cannot_be_used_gets_a_sentence(found: dict[str, Any], name: str, sentence: str) -> None:
    assert isinstance(found[name], str), found[name]
    assert found[name].startswith(sentence)


def test_top_k_leaves_the_best(found: dict[str, Any]) -> None:
    assert found["top 1"] == found["mood"][0][:1]


# -- recordings ----------------------------------------------------------------------------------------------------
def scores(answer: list[dict[str, Any]]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in answer}


def test_a_recording_is_one_answer_in_every_coding(found: dict[str, Any]) -> None:
    assert scores(found["flac"]) == pytest.approx(scores(found["sounds"][1]), abs=1e-5)
    assert scores(found["ogg"]) == pytest.approx(scores(found["sounds"][1]), abs=0.05)  # Vorbis is lossy


def test_channels_are_averaged(found: dict[str, Any]) -> None:
    assert scores(found["stereo"]) == pytest.approx(scores(found["mono"]), abs=1e-6)


def test_the_scores_of_a_long_recording_are_the_mean_over_its_windows(found: dict[str, Any]) -> None:
    parts = [scores(part) for part in found["parts"]]
    mean = {label: float(np.mean([part[label] for part in parts])) for label in parts[0]}
    assert scores(found["long"]) == pytest.approx(mean, abs=TOLERANCE)


def test_the_texts_hold_what_the_tests_need() -> None:
    assert len(LONG.split()) == 200
    assert {word.lower().strip(".") for word in LONG.split()} == set(WORDS)
    assert any("zzz" in text for text in TEXTS)
