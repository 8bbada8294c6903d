"""What is tried on a loaded model, what is kept of it, and which calls it then answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
import pytest

from engine.model_spec import ModelSpec, TensorSpec
from engine.preparation import Preparation, PreparationState, Reason, Step
from engine.protocol import ProtocolError
from engine.worker import preparing
from engine.worker.execution import Executor, Turns
from engine.worker.inputs import InputReader
from engine.worker.loading import LoadedModel
from engine.worker.preparing import agree, prepare
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, NotPrepared, ReportStage, Variant
from engine.worker.tasks import create_task
from engine.worker.work import Block, Form, Work
from tests.engine.worker.process import PATIENCE_S, make_spec

Run = Callable[[Mapping[str, np.ndarray]], Arrays]


def doubled(inputs: Mapping[str, np.ndarray]) -> Arrays:
    return {"y": inputs["x"] * 2}


class Doubling:
    """Doubles ``x``. ``ways``: what it offers, and ``told``: what it was told of each."""

    warm_up_runs = 0
    device = "cpu"

    def __init__(self, *ways: Run | NotPrepared, untouched: Run = doubled) -> None:
        self.ways = ways
        self.untouched = untouched
        self.told: list[bool] = []
        self.calls: list[int] = []

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        return LoadedSignature()

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> Arrays:
        self.calls.append(len(inputs["x"]))
        return self.untouched(inputs)

    def failure(self, error: Exception) -> FailureKind:
        return FailureKind.INPUT

    def variants(self, sample: Mapping[str, np.ndarray]) -> Generator[Variant | NotPrepared, bool, None]:
        for number, way in enumerate(self.ways):
            step = (Step.CHANNELS_LAST, Step.TRACED)[number % 2]
            self.told.append((yield way if isinstance(way, NotPrepared) else Variant((step,), way)))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls take what their functions say (``seconds``, one without it), whatever this machine does."""

    def seconds_of(run: Any, batch: Arrays, clock: Callable[[], float]) -> float:
        return float(getattr(run, "seconds", lambda n: 1.0)(rows(batch)))

    monkeypatch.setattr(preparing, "seconds_of", seconds_of)
    monkeypatch.setattr(preparing, "_PROBE_S", 0.0)


def rows(batch: Arrays) -> int:
    return len(next(iter(batch.values())))


def taking(run: Run, seconds: Callable[[int], float] = lambda n: 0.25) -> Run:
    def timed(inputs: Mapping[str, np.ndarray]) -> Arrays:
        return run(inputs)

    timed.seconds = seconds  # type: ignore[attr-defined]
    return timed


def model_of(runtime: Any, *shape: int, limit: int = 8, fixed: int | None = None) -> LoadedModel:
    spec = make_spec(inputs=(TensorSpec("x", "float32", shape or (-1, 3)),))
    task = create_task(spec)
    return LoadedModel(spec, runtime, task, InputReader(task, spec), Executor(runtime, "", limit, fixed))


def tried(*ways: Run | NotPrepared, **changes: Any) -> Preparation:
    preparation, prepared = prepare(model_of(Doubling(*ways, **changes)))
    assert (prepared is not None) == (preparation.state is PreparationState.USED)
    return preparation


def unused(reason: Reason) -> Preparation:
    return Preparation(PreparationState.UNUSED, reason=reason)


def test_what_is_as_right_and_faster_is_kept() -> None:
    runtime = Doubling(taking(doubled))
    preparation, prepared = prepare(model_of(runtime))
    assert preparation == Preparation(PreparationState.USED, (Step.CHANNELS_LAST,), 4.0)
    assert prepared is not None
    assert prepared.rows == 8
    assert runtime.told == [True]


def test_of_several_ways_the_last_that_wins_is_kept() -> None:
    runtime = Doubling(taking(doubled), taking(doubled, lambda n: 0.5), taking(doubled, lambda n: 0.125))
    preparation, _ = prepare(model_of(runtime))
    assert preparation.gain == 8.0
    assert runtime.told == [True, False, True]


def test_what_is_slower_is_not_kept() -> None:
    assert tried(taking(doubled, lambda n: 1.5)) == unused(Reason.SLOWER)
    # Faster for one row, and slower for many.
    assert tried(taking(doubled, lambda n: 0.1 if n == 1 else 2.0)) == unused(Reason.SLOWER)


@pytest.mark.parametrize(
    "other",
    [
        lambda i: {"y": i["x"] * 2.001},
        lambda i: {"z": i["x"] * 2},
        lambda i: {"y": i["x"].astype(np.float64) * 2},
        lambda i: {"y": np.where(i["x"] < 0, np.nan, i["x"] * 2).astype(np.float32)},
        lambda i: {"y": np.abs(i["x"]) * 2},  # right for what is positive
        lambda i: {"y": np.where(i["x"] > 200, 0, i["x"] * 2).astype(np.float32)},  # right for small numbers
        lambda i: {"y": i["x"] * 2 if len(i["x"]) == 2 else i["x"]},  # a graph for the rows it was traced with
        lambda i: {"y": i["x"] * 2 if len(i["x"]) != 8 else i["x"]},
        lambda i: {"y": (i["x"] * 2)[:2]},
    ],
)
def test_what_answers_differently_is_not_kept(other: Run) -> None:
    assert tried(taking(other)) == unused(Reason.DIFFERS)


@pytest.mark.parametrize("wrong_with", [1, 4])
def test_it_is_compared_with_one_thread_and_with_all(wrong_with: int) -> None:
    class Threads(Doubling):
        threads = 4
        computes_in_caller = True

        def use_threads(self, threads: int) -> None:
            self.threads = threads

    def differing(inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {"y": inputs["x"] * (3 if runtime.threads == wrong_with else 2)}

    runtime = Threads(taking(differing))
    model = model_of(runtime)
    model.executor.threads = 4
    preparation, _ = prepare(model)
    assert preparation.reason is Reason.DIFFERS
    assert runtime.threads == 4


def test_what_raises_is_not_kept() -> None:
    def fail(inputs: Mapping[str, np.ndarray]) -> Arrays:
        raise RuntimeError("no")

    assert tried(taking(fail)) == unused(Reason.FAILED)
    assert tried(NotPrepared(Reason.DEPENDS)) == unused(Reason.DEPENDS)
    assert tried() == unused(Reason.UNKNOWN)


def test_a_random_model_is_left_alone() -> None:
    generator = np.random.default_rng(1)

    def random(inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {"y": inputs["x"] * generator.random(inputs["x"].shape, np.float32)}

    assert tried(taking(doubled), untouched=random) == unused(Reason.RANDOM)


def test_a_model_that_writes_into_its_input_is_left_alone() -> None:
    def doubling_in_place(inputs: Mapping[str, np.ndarray]) -> Arrays:
        x = inputs["x"]
        x *= 2
        return {"y": x.copy()}

    assert tried(taking(doubled), untouched=doubling_in_place) == unused(Reason.RANDOM)


def test_without_a_size_there_is_nothing_to_compare_on() -> None:
    preparation, _ = prepare(model_of(Doubling(taking(doubled)), -1, -1))
    assert preparation == unused(Reason.NO_SAMPLE)


def test_the_golden_sample_tells_the_size_and_is_compared() -> None:
    golden = Work("g", Form.OUTPUTS, {}, [Block({"x": np.full((1, 5), 77.0, np.float32)}, 1, [0])])
    preparation, prepared = prepare(model_of(Doubling(taking(doubled)), -1, -1), golden)
    assert preparation.state is PreparationState.USED
    assert prepared is not None
    assert prepared.takes({"x": np.zeros((8, 5), np.float32)})

    def wrong_on_it(inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {"y": inputs["x"] * (2 if not (inputs["x"] == 77.0).all() else 3)}

    assert prepare(model_of(Doubling(taking(wrong_on_it))), golden)[0] == unused(Reason.DIFFERS)


def test_a_model_of_fixed_rows_is_tried_with_those() -> None:
    runtime = Doubling(taking(doubled))
    preparation, prepared = prepare(model_of(runtime, 4, 3, fixed=4))
    assert preparation.state is PreparationState.USED
    assert preparation.batch is None
    assert set(runtime.calls) == {4}
    assert prepared is not None
    assert prepared.rows == 4


def test_only_calls_like_those_compared_are_prepared() -> None:
    model = model_of(Doubling())
    executor = model.executor
    _, executor.prepared = prepare(model_of(Doubling(taking(doubled)), limit=4))
    untouched = model.runtime
    assert isinstance(untouched, Doubling)

    def ask(count: int, width: int, **changes: Any) -> list[int]:
        untouched.calls.clear()
        x = np.ones((count, width), np.float32)
        work = Work("w", Form.OUTPUTS, {}, [Block({"x": x}, count, list(range(count)), **changes)])
        executor.execute([work])
        (piece,) = work.finish().outputs
        assert (piece["y"] == 2).all()
        return list(untouched.calls)

    assert ask(4, 3) == []
    assert ask(1, 3) == []
    assert ask(5, 3) == [5]  # more rows
    assert ask(2, 4) == [2]  # another size
    assert ask(2, 3, whole=True) == [2]  # what need not be rows


def test_a_prepared_model_that_fails_is_not_used_again() -> None:
    def fail(inputs: Mapping[str, np.ndarray]) -> Arrays:
        raise RuntimeError("at last")

    model = model_of(Doubling(taking(doubled)))
    _, prepared = prepare(model)
    assert prepared is not None
    object.__setattr__(prepared, "run", fail)
    model.executor.prepared = prepared
    work = Work("w", Form.OUTPUTS, {}, [Block({"x": np.ones((2, 3), np.float32)}, 2, [0, 1])])
    model.executor.execute([work])
    assert (work.finish().outputs[0]["y"] == 2).all()
    assert model.executor.prepared is None
    assert model.executor.has_withdrawn


def test_an_input_that_the_untouched_model_refuses_too_withdraws_nothing() -> None:
    def picky(inputs: Mapping[str, np.ndarray]) -> Arrays:
        if (inputs["x"] == 666).any():
            raise ValueError("poison")
        return doubled(inputs)

    model = model_of(Doubling(taking(picky), untouched=picky))
    _, model.executor.prepared = prepare(model)
    work = Work("w", Form.OUTPUTS, {}, [Block({"x": np.array([[1, 1, 1], [666, 1, 1]], np.float32)}, 2, [0, 1])])
    model.executor.execute([work])
    assert set(work.finish().errors) == {1}
    assert model.executor.prepared is not None
    assert not model.executor.has_withdrawn


@pytest.mark.parametrize(
    ("seconds", "knee"),
    [
        (lambda n: 0.01 * n, 1),  # no row is cheaper for the company of others
        (lambda n: 0.01 if n <= 4 else 0.01 * n, 4),
        (lambda n: 0.01, None),  # the more the better
        (lambda n: 0.00001 * n, None),  # the model is the least of what a batch costs
    ],
)
def test_rows_of_one_run_end_where_nothing_is_won(seconds: Callable[[int], float], knee: int | None) -> None:
    fast = taking(doubled, seconds)
    preparation, _ = prepare(model_of(Doubling(fast)))
    assert preparation.batch == knee


def test_rows_that_would_take_long_are_not_tried_and_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_LONG_CALL_S", 0.0)
    runtime = Doubling(taking(doubled))
    preparation, prepared = prepare(model_of(runtime))
    assert prepared is not None
    assert set(runtime.calls) == {2} == {prepared.rows}
    # More rows in one call would fall to the untouched model.
    assert preparation.batch == 2


def test_more_rows_than_are_tried_are_asked_for_in_several_calls() -> None:
    preparation, prepared = prepare(model_of(Doubling(taking(doubled)), limit=100))
    assert prepared is not None
    assert preparation.batch == prepared.rows == 32


@pytest.mark.parametrize(
    ("gain", "threads_from"),
    [
        pytest.param(lambda rows: 2.0, 1, id="they always pay"),
        pytest.param(
            lambda rows: 0.4 if rows < 4 else 1.5, 4, id="they hold each other up where there is little to do"
        ),
        pytest.param(lambda rows: 1.05, 9, id="they never pay"),
    ],
)
def test_a_call_alone_takes_more_threads_where_they_are_faster(gain: Callable[[int], float], threads_from: int) -> None:
    class Threads(Doubling):
        threads = 4
        computes_in_caller = True

        def use_threads(self, threads: int) -> None:
            self.threads = threads

    runtime = Threads()
    untouched = taking(doubled, lambda rows: rows / (gain(rows) if runtime.threads == 4 else 1.0))
    model = model_of(runtime)
    executor = model.executor
    executor.threads = 4
    executor.run_untouched = untouched  # type: ignore[method-assign]
    prepare(model)
    assert executor.threads_from == threads_from
    for number in (1, 4, 8):
        block = Block({"x": np.zeros((number, 3), np.float32)}, number, [0] * number)
        executor.execute([Work("w", Form.OUTPUTS, {}, [block])])
        assert runtime.threads == (4 if number >= threads_from else 1)


def test_answers_are_compared_by_their_largest_number() -> None:
    one = {"y": np.array([1000.0, 0.001], np.float32), "n": np.array([3])}
    assert agree(one, {"y": np.array([1000.0, 0.002], np.float32), "n": np.array([3])})
    assert not agree(one, {"y": np.array([1000.3, 0.001], np.float32), "n": np.array([3])})
    assert not agree(one, {"y": one["y"], "n": np.array([4])})
    assert not agree(one, {"n": one["n"], "y": one["y"]})  # in another order
    nan = {"y": np.array([np.nan, np.inf], np.float32)}
    assert agree(nan, nan)
    assert not agree(nan, {"y": np.array([np.nan, -np.inf], np.float32)})


def test_the_executing_thread_goes_first() -> None:
    turns, order = Turns(), []
    waits = threading.Event()

    def second() -> None:
        waits.set()
        with turns.taken():
            order.append("second")

    thread = threading.Thread(target=second)
    with turns.taken(first=True):
        thread.start()
        assert waits.wait(PATIENCE_S)
        order.append("first")
    thread.join(PATIENCE_S)
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    "change",
    [
        {"state": "great"},
        {"steps": ["magic"]},
        {"gain": float("nan")},
        {"gain": -1},
        {"batch": 0},
        {"reason": 1},
        {"streams": 0},
        {"streams": 9},
        {"streams": None},
        {"streams": 2, "state": "unused"},
    ],
)
def test_what_a_worker_tells_is_checked(change: dict[str, Any]) -> None:
    told = Preparation(PreparationState.USED, (Step.TRACED,), 2.0, batch=4).to_json()
    assert Preparation.read(told).to_json() == told
    with pytest.raises(ProtocolError):
        Preparation.read(told | change)
    with pytest.raises(ProtocolError):
        Preparation.read({name: value for name, value in told.items() if name != "steps"})
    with pytest.raises(ProtocolError):
        Preparation.read(None)
