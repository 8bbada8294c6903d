"""The steps a package states, against their definitions written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.formats.bioimage_steps import OPERATIONS, StepProblem, read_steps
from engine.worker.tensor_steps import _OPERATIONS, run_steps

X = (np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5) % 17) * np.float32([1, 10])[:, None, None, None]
AXES = ("batch", "channel", "y", "x")


def stepped(name: str, array: Any = X, axes: tuple[str, ...] = AXES, **kwargs: Any) -> Any:
    steps = read_steps([{"id": name, "kwargs": kwargs}], "raw", axes, "before")
    return run_steps(array, steps, {"raw": X, "other": X * 3 + 1}, has_rows=axes[0] in ("b", "batch"))


def test_every_step_that_is_read_can_be_run() -> None:
    assert set(OPERATIONS) == set(_OPERATIONS)


def test_zero_mean_unit_variance_over_axes() -> None:
    mean, std = X.mean((2, 3), keepdims=True), X.std((2, 3), keepdims=True)
    np.testing.assert_allclose(normalised(["y", "x"]), (X - mean) / (std + 1e-6), rtol=1e-5)


def normalised(over: Any) -> Any:
    steps = read_steps([{"id": "zero_mean_unit_variance", "kwargs": {"axes": over}}], "raw", AXES, "before")
    return run_steps(X, steps, {}, has_rows=True)


def test_no_row_depends_on_its_neighbours() -> None:
    """Neither where the package says so (batch among the axes, or no axes at all)."""
    for over in (["batch", "channel", "y", "x"], None, ["channel", "y", "x"]):
        together = normalised(over)
        steps = read_steps([{"id": "zero_mean_unit_variance", "kwargs": {"axes": over}}], "raw", AXES, "before")
        alone = run_steps(X[1:], steps, {}, has_rows=True)
        np.testing.assert_array_equal(together[1:], alone)
        assert abs(float(together[1].mean())) < 1e-5


def test_fixed_values_along_an_axis() -> None:
    mean, std = [1.0, 2.0, 3.0], [2.0, 4.0, 8.0]
    expected = (X - np.float32(mean)[:, None, None]) / (np.float32(std)[:, None, None] + np.float32(1e-6))
    new = stepped("fixed_zero_mean_unit_variance", axis="channel", mean=mean, std=std)
    np.testing.assert_allclose(new, expected, rtol=1e-6)
    old = {"name": "zero_mean_unit_variance", "kwargs": {"mode": "fixed", "axes": "xy", "mean": mean, "std": std}}
    steps = read_steps([old], "raw", tuple("bcyx"), "before")
    np.testing.assert_allclose(run_steps(X, steps, {}, has_rows=True), expected, rtol=1e-6)


def test_scale_linear_and_clip_and_types() -> None:
    np.testing.assert_allclose(stepped("scale_linear", gain=2.0, offset=-1.0), X * 2 - 1)
    gains = np.float32([1, 2, 3])[:, None, None]
    np.testing.assert_allclose(stepped("scale_linear", axis="channel", gain=[1.0, 2.0, 3.0]), X * gains)
    np.testing.assert_array_equal(stepped("clip", min=2, max=9), X.clip(2, 9))
    np.testing.assert_array_equal(stepped("clip", max=9), X.clip(None, 9))
    assert stepped("ensure_dtype", dtype="uint8").dtype == np.uint8
    whole = (X % 7).astype(np.uint16)
    np.testing.assert_allclose(stepped("scale_linear", whole, offset=-5.0, gain=1.0), whole.astype(np.float32) - 5)


def test_scale_range_by_percentiles_of_each_sample() -> None:
    low, high = np.percentile(X, (5, 90), axis=(2, 3), keepdims=True)
    steps = read_steps(
        [{"id": "scale_range", "kwargs": {"axes": ["y", "x"], "min_percentile": 5, "max_percentile": 90}}],
        "raw", AXES, "before",
    )  # fmt: skip
    np.testing.assert_allclose(run_steps(X, steps, {}, has_rows=True), (X - low) / (high - low + 1e-6), rtol=1e-5)
    other = X * 3 + 1
    low, high = np.percentile(other, (0, 100), axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(
        stepped("scale_range", reference_tensor="other"), (X - low) / (high - low + 1e-6), rtol=1e-5
    )


def test_scale_mean_variance_matches_another_tensor() -> None:
    answer = stepped("scale_mean_variance", reference_tensor="other")
    other = X * 3 + 1
    np.testing.assert_allclose(answer.mean((1, 2, 3)), other.mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(answer.std((1, 2, 3)), other.std((1, 2, 3)), rtol=1e-4)


def test_activations() -> None:
    large = np.float32([[-200.0, 0.0, 200.0]])
    axes = ("batch", "channel")
    np.testing.assert_allclose(stepped("sigmoid", large, axes), [[0.0, 0.5, 1.0]], atol=1e-7)
    np.testing.assert_allclose(stepped("softmax", large, axes), [[0.0, 0.0, 1.0]], atol=1e-7)
    np.testing.assert_array_equal(stepped("binarize", large, axes, threshold=0.0), [[0.0, 0.0, 1.0]])
    several = stepped("binarize", large, axes, threshold=[-300.0, 0.0, 300.0], axis="channel")
    np.testing.assert_array_equal(several, [[1.0, 0.0, 0.0]])


def test_without_rows_every_dimension_counts() -> None:
    picture = X[0, 0]
    answer = stepped("zero_mean_unit_variance", picture, ("y", "x"))
    np.testing.assert_allclose(answer, (picture - picture.mean()) / (picture.std() + 1e-6), rtol=1e-5)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"id": "stardist_postprocessing", "kwargs": {}}, "the step 'stardist_postprocessing' is not one that can be"),
        ({"id": "custom", "kwargs": {}}, "the step 'custom' is not one"),
        ({}, "a step has no name"),
        ("sigmoid", "a step has no name"),
        ({"id": "clip", "kwargs": []}, "the step 'clip' is stated wrongly"),
        ({"id": "clip", "kwargs": [1]}, "no readable kwargs"),
        ({"id": "clip", "kwargs": {"min_percentile": 5}}, "bounds by percentile"),
        ({"id": "binarize", "kwargs": {}}, "it lacks 'threshold'"),
        ({"id": "binarize", "kwargs": {"threshold": "high"}}, "'high' is no number"),
        ({"id": "scale_linear", "kwargs": {"gain": [1, 2]}}, "nothing says along which axis"),
        ({"id": "scale_range", "kwargs": {"min_percentile": 90, "max_percentile": 10}}, "wrong order"),
        ({"id": "scale_range", "kwargs": {"max_percentile": 1000}}, "no percentile"),
        ({"id": "softmax", "kwargs": {"axis": "time"}}, "there is no axis 'time'"),
        ({"id": "zero_mean_unit_variance", "kwargs": {"axes": ["batch"]}}, "no axes but the batch"),
        ({"id": "scale_mean_variance", "kwargs": {}}, "it lacks 'reference_tensor'"),
        ({"id": "ensure_dtype", "kwargs": {"dtype": "object"}}, "'object' is no dtype"),
        ({"id": "scale_linear", "kwargs": {"gain": float("nan")}}, "nan is no number"),
    ],
)
def test_a_step_that_cannot_be_done_is_named(step: Any, said: str) -> None:
    with pytest.raises(StepProblem, match=said):
        read_steps([step], "raw", AXES, "before")
