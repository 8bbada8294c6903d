"""Loose weights and folders of transformers in their runtimes: the library's own numbers, or one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.worker.process import PATIENCE_S

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.engine.worker.load_weights", str(tmp_path_factory.mktemp("weights"))]
    environment = dict(os.environ, OMP_WAIT_POLICY="PASSIVE")
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], env=environment, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.decode().splitlines()[-1])
    found["stderr"] = {"text": done.stderr.decode()}
    return found


@pytest.mark.parametrize("name", ["pth", "safetensors", "compiled"])
def test_weights_answer_as_their_class_does(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    own = outcomes["own"]
    assert set(own[name]) == {"output"}
    dtype, values = own[name]["output"]
    assert dtype == "float32"
    np.testing.assert_allclose(values, own["expected"], atol=1e-6)


def test_declared_inputs_are_passed_in_their_order(outcomes: dict[str, dict[str, Any]]) -> None:
    own = outcomes["own"]
    _, values = own["by order"]["output"]
    assert np.abs(np.subtract(values, own["expected"])).max() > 0.01


@pytest.mark.parametrize("kind", ["own", "library"])
def test_half_precision_is_computed_and_told_apart(outcomes: dict[str, dict[str, Any]], kind: str) -> None:
    answers = outcomes[kind]["bfloat16"]
    dtype, values = next(iter(answers.values()))
    assert dtype == "float32"
    difference = np.abs(np.subtract(values, outcomes[kind]["expected"])).max()
    assert 1e-6 < difference < 0.05


def test_a_folder_answers_as_the_library_does(outcomes: dict[str, dict[str, Any]]) -> None:
    dtype, values = outcomes["library"]["float32"]["logits"]
    assert dtype == "float32"
    np.testing.assert_allclose(values, outcomes["library"]["expected"], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("own", "other keys", "do not belong to net.py:Net: they lack last.bias; they hold, unknown to it, extra."),
        ("own", "other shapes", "load_failed: The weights of net.pth have other shapes than net.py:Net has."),
        ("own", "wrong arguments", "load_failed: Net does not take the arguments it was given"),
        ("own", "failing arguments", "load_failed: Net failed with ValueError when it was made."),
        ("own", "too many inputs", "load_failed: 3 inputs are declared, but the model's forward takes 1: x, shift."),
        ("own", "no weights", "model_corrupt: history.pth holds no weights"),
        ("own", "whole module", "model_refused: whole.pth is refused: it holds more than tensors and plain values"),
        ("own", "cut off", "model_corrupt: half.pth is damaged or holds no weights."),
        ("own", "cut off safetensors", "model_corrupt: half.safetensors is damaged"),
        ("own", "missing package", "load_failed: missing.py imports 'no_such_package', which is not there"),
        ("own", "failing code", "load_failed: raises.py failed with ZeroDivisionError when it was opened."),
        ("own", "a function", "load_failed: net.py has no torch.nn.Module named make."),
        ("own", "a missing class", "load_failed: net.py has no torch.nn.Module named Nett."),
        ("own", "keras", "load_failed: net.pth computes in the precision it was saved with"),
        ("library", "headless", "they lack classifier.bias, classifier.weight."),
        ("library", "wider", "load_failed: The weights of wider have other shapes than its config.json says."),
        ("library", "unknown class", "is a ViTForMindReading, which transformers 5."),
        ("library", "no model", "is a Trainer, which transformers 5."),
        ("library", "wrong input", "ViTForImageClassification takes no input 'photo'; it takes pixel_values"),
    ],
    ids=lambda value: value if len(value) < 25 else "",
)  # fmt: skip
def test_a_load_that_cannot_be_right_fails(
    outcomes: dict[str, dict[str, Any]], kind: str, name: str, sentence: str
) -> None:
    assert sentence in outcomes[kind][name]


def test_nothing_is_left_on_standard_error(outcomes: dict[str, dict[str, Any]]) -> None:
    """The parent reads a worker's last words there: bars and reports of the library would bury them."""
    loading = [
        line for line in outcomes["stderr"]["text"].splitlines() if "Loading weights" in line or "REPORT" in line
    ]
    assert loading == []
