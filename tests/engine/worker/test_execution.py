"""The executor: what runs together, and what happens to whom when a call fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from engine.errors import DeviceOutOfMemory, UnusableInput
from engine.model_spec import ModelSpec
from engine.worker.execution import DeviceLost, Executor
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, ReportStage
from engine.worker.work import Block, Form, RawResult, Work

POISON = 666.0


class RecordingRuntime:
    """Doubles its input and keeps the row counts of its calls; fails as its attributes say."""

    warm_up_runs = 0
    device = "cpu"

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.memory_rows = 1000
        self.lost = False
        self.scalar_output = False

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        return LoadedSignature()

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> Arrays:
        x = inputs["x"]
        self.calls.append(len(x))
        if self.lost:
            raise RuntimeError("lost")
        if len(x) > self.memory_rows:
            raise MemoryError
        if (x == POISON).any():
            raise ValueError("poison")
        return {"y": np.float32(x.sum())[()] * np.ones(())} if self.scalar_output else {"y": x * 2}

    def failure(self, error: Exception) -> FailureKind:
        if isinstance(error, MemoryError):
            return FailureKind.OUT_OF_MEMORY
        return FailureKind.DEVICE_LOST if self.lost else FailureKind.INPUT


def work(name: str, values: list[float], form: Form = Form.RESULTS, width: int = 1, **changes: Any) -> Work:
    x = np.repeat(np.array(values, dtype=np.float32)[:, None], width, axis=1)
    return Work(name, form, {}, [Block({"x": x}, len(values), list(range(len(values))), **changes)])


def run(runtime: RecordingRuntime, *works: Work, max_rows: int = 4, fixed: int | None = None) -> list[RawResult]:
    executor = Executor(runtime, "", max_rows, fixed)
    executor.execute(works)
    return [w.finish() for w in works]


def values(raw: RawResult) -> list[float]:
    (piece,) = raw.outputs
    return [float(v) for v in piece["y"][:, 0]]


def test_rows_of_several_requests_run_together_and_come_back_to_their_own() -> None:
    runtime = RecordingRuntime()
    a, b, c = run(runtime, work("a", [1]), work("b", [2, 3]), work("c", [4]))
    assert runtime.calls == [4]
    assert (values(a), values(b), values(c)) == ([2], [4, 6], [8])


def test_larger_inputs_are_cut_into_calls_and_joined_again() -> None:
    runtime = RecordingRuntime()
    a, b = run(runtime, work("a", list(range(10))), work("b", [50]))
    assert runtime.calls == [4, 4, 3]
    assert values(a) == [2 * i for i in range(10)]
    assert a.slots == list(range(10))
    assert values(b) == [100]


def test_only_equal_shapes_run_together() -> None:
    runtime = RecordingRuntime()
    a, b, c = run(runtime, work("a", [1]), work("b", [2], width=3), work("c", [3]))
    assert sorted(runtime.calls) == [1, 2]
    assert (values(a), values(b), values(c)) == ([2], [4], [6])


def test_whole_blocks_run_alone_and_uncut() -> None:
    runtime = RecordingRuntime()
    a, b = run(runtime, work("a", [1] * 9, Form.OUTPUTS, whole=True), work("b", [2], Form.OUTPUTS, whole=True))
    assert runtime.calls == [9, 1]
    assert len(values(a)) == 9
    assert values(b) == [4]


def test_a_poison_row_fails_alone() -> None:
    runtime = RecordingRuntime()
    a, b = run(runtime, work("a", [1]), work("b", [2, POISON, 4]))
    assert values(a) == [2]
    assert values(b) == [4, 8]
    assert b.slots == [0, 2]
    assert list(b.errors) == [1]
    assert isinstance(b.errors[1], UnusableInput)
    assert b.errors[1].code == "model_error"
    # together; each request; each row of the one that failed: never again after that
    assert runtime.calls == [4, 1, 3, 1, 1, 1]


def test_tensors_with_a_poison_row_fail_as_a_whole() -> None:
    runtime = RecordingRuntime()
    a, b = run(runtime, work("a", [1]), work("b", [2, POISON], Form.OUTPUTS, row_by_row=False))
    assert values(a) == [2]
    assert b.errors
    assert runtime.calls == [3, 1, 2]


def test_out_of_memory_halves_the_rows_and_remembers() -> None:
    runtime = RecordingRuntime()
    runtime.memory_rows = 3
    executor = Executor(runtime, "", 16)
    first = work("a", list(range(16)))
    executor.execute([first])
    assert values(first.finish()) == [2 * i for i in range(16)]
    assert executor.max_rows == 2
    runtime.calls.clear()
    executor.execute([work("b", [1, 2, 3, 4])])
    assert runtime.calls == [2, 2]


def test_another_limit_of_rows_holds_from_the_next_call_and_forgets_nothing_of_the_memory() -> None:
    runtime = RecordingRuntime()
    executor = Executor(runtime, "", 2)
    executor.execute([work("a", [1, 2, 3, 4])])
    executor.limit = 16
    executor.execute([work("b", [1, 2, 3, 4])])
    assert runtime.calls == [2, 2, 4]
    runtime.memory_rows = 3
    executor.execute([work("c", [1, 2, 3, 4])])
    executor.limit = 32
    assert (executor.max_rows, executor.fits) == (2, 2)
    executor.limit = 1
    assert executor.max_rows == 1
    fixed = Executor(runtime, "", 2, 4)
    fixed.limit = 1
    assert fixed.max_rows == 4


def test_one_row_that_does_not_fit_says_so() -> None:
    runtime = RecordingRuntime()
    runtime.memory_rows = 0
    (a,) = run(runtime, work("a", [1, 2]))
    assert isinstance(a.errors[0], DeviceOutOfMemory)
    assert isinstance(a.errors[1], DeviceOutOfMemory)


def test_a_model_with_a_fixed_first_dimension_is_always_given_that_many_rows() -> None:
    runtime = RecordingRuntime()
    a, b = run(runtime, work("a", [1, 2, 3, 4]), work("b", [5]), fixed=3)
    assert runtime.calls == [3, 3]
    assert values(a) == [2, 4, 6, 8]
    assert values(b) == [10]


def test_an_output_without_rows_is_not_shared_out() -> None:
    runtime = RecordingRuntime()
    runtime.scalar_output = True
    a, b = run(runtime, work("a", [1, 2], Form.OUTPUTS, row_by_row=False), work("b", [3, 4]))
    assert a.outputs[0]["y"] == 3.0
    assert "y" in b.errors[0].message
    assert b.errors[0].code == "model_error"


def test_a_lost_device_ends_everything() -> None:
    runtime = RecordingRuntime()
    runtime.lost = True
    with pytest.raises(DeviceLost):
        run(runtime, work("a", [1]))
