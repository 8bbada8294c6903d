"""The engine's part in running several batches at once: who shares, what one's hang or death means for the other."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.engine import Engine
from engine.errors import Quarantined, WorkerRestarted
from engine.events import ModelState
from engine.model_spec import TensorSpec
from engine.prediction import Prediction, PredictRequest
from engine.settings import EngineLimits, Settings, WorkerSettings
from tests.engine.engine_harness import PATIENCE_S, Watch, assert_answers, fake, loaded, row
from tests.engine.worker.test_streams import Gates

ROWS = (TensorSpec("x", "float32", (-1, 4)),)
OPTIONS = {"prepare": True, "streams": True, "delay_s": 0.03}


class Streaming:
    """An engine with one model, asked about by ``ask``; it runs two batches at once as soon as it is prepared."""

    def __init__(self, engine: Engine, gates: Gates) -> None:
        self.engine, self.gates, self.watch = engine, gates, Watch(engine)

    def entry(self) -> dict[str, Any]:
        (entry,) = self.engine.stats()["models"]
        return dict(entry)

    def until_streaming(self) -> dict[str, Any]:
        """Waits until what is told of it is that."""
        found: dict[str, Any] = self.watch.until(
            lambda _: (told := self.entry()["preparation"]) and told["streams"] == 2 and told
        )
        return found

    def until_running(self, count: int) -> None:
        self.watch.until(lambda _: self.entry()["running"] == count)

    def ask(self, value: float, **more: Any) -> Future[Prediction]:
        return self.engine.predict(row(value, **more))


@contextmanager
def streaming(folder: Path, *, hang_after_s: float = 60.0, **options: Any) -> Iterator[Streaming]:
    gates = Gates(folder)
    settings = Settings(
        limits=EngineLimits.model_validate(
            {"backoff_first_s": 0.05, "backoff_last_s": 0.1, "restarts": 10, "hang_after_s": hang_after_s}
        ),
        worker=WorkerSettings.model_validate({"threads": 2}),
    )
    with Engine(settings, folder=folder / "home") as engine:
        streams = Streaming(engine, gates)
        loaded(engine, replace(fake(**OPTIONS, **gates.option, **options), inputs=ROWS))
        streams.until_streaming()
        yield streams


def lost(future: Future[Prediction]) -> bool:
    return isinstance(future.exception(PATIENCE_S), WorkerRestarted)


def test_two_questions_are_answered_at_once_in_any_order(tmp_path: Path) -> None:
    with streaming(tmp_path) as s:
        told = s.until_streaming()
        assert (told["state"], told["steps"], told["streams"]) == ("used", ["frozen"], 2)
        s.gates.close(1, 2)
        one, two = s.ask(1), s.ask(2)
        s.gates.threads_of(1)
        assert s.gates.threads_of(2) == 1
        s.gates.open(2)
        assert two.result(PATIENCE_S).outputs is not None
        assert not one.done()
        s.gates.open(1)
        assert one.result(PATIENCE_S).outputs is not None


def test_what_waits_is_shared_out_among_the_streams(tmp_path: Path) -> None:
    with streaming(tmp_path) as s:
        s.gates.close(1, 2, 3)
        first = [s.ask(value) for value in (1, 2, 3)]  # two run, one is ready in the worker
        s.gates.threads_of(1)
        s.gates.threads_of(2)
        waiting = [s.ask(value) for value in range(10, 17)]
        assert (s.entry()["running"], s.entry()["waiting"]) == (3, 7)
        s.gates.open(1)
        first[0].result(PATIENCE_S)
        s.gates.threads_of(3)
        # Nine are open: one batch has no more than five of them.
        assert (s.entry()["running"], s.entry()["waiting"]) == (2 + 5, 2)
        s.gates.open(2)
        s.gates.open(3)
        for future in (*first, *waiting):
            assert future.result(PATIENCE_S).outputs is not None


def test_the_owner_displaces_a_batch_that_has_not_started(tmp_path: Path) -> None:
    with streaming(tmp_path) as s:
        s.gates.close(1, 2, 3, 4)
        lan = [s.ask(value, lane="lan") for value in (1, 2, 3)]
        s.gates.threads_of(1)
        s.gates.threads_of(2)
        owner = s.ask(4)
        s.gates.open(1)
        s.gates.threads_of(4)
        assert not s.gates.has_begun(3)
        for value in (2, 3, 4):
            s.gates.open(value)
        for future in (*lan, owner):
            assert future.result(PATIENCE_S).outputs is not None


def test_a_death_while_two_run_makes_both_suspects_and_the_guilty_one_is_found(tmp_path: Path) -> None:
    with streaming(tmp_path, crash_on_value=666) as s:
        s.gates.close(1, 666)
        innocent, guilty = s.ask(1), s.ask(666)
        s.gates.threads_of(1)
        s.gates.threads_of(666)
        s.gates.open(666)
        assert lost(innocent)
        assert lost(guilty)
        s.gates.open(1)
        assert lost(s.ask(666))
        assert_answers(s.engine, 1.0)
        with pytest.raises(Quarantined):
            s.ask(666).result(PATIENCE_S)
        assert_answers(s.engine, 1.0)


def test_a_suspect_runs_with_nothing_beside_it_where_two_batches_could_run(tmp_path: Path) -> None:
    with streaming(tmp_path) as s:
        s.gates.close(1, 2)
        futures = s.ask(1), s.ask(2)
        s.gates.threads_of(1)
        s.gates.threads_of(2)
        os.kill(s.entry()["worker_pid"], signal.SIGKILL)  # from outside: it is prepared again
        assert all(lost(future) for future in futures)
        s.watch.until_state(ModelState.READY, times=2)
        s.until_streaming()
        for value in (1, 2):
            suspect = s.ask(value)
            other = s.ask(10 + value)
            s.gates.threads_of(value)
            assert (s.entry()["running"], s.entry()["waiting"]) == (1, 1)
            assert not s.gates.has_begun(10 + value)
            s.gates.open(value)
            assert suspect.result(PATIENCE_S).outputs is not None
            assert other.result(PATIENCE_S).outputs is not None
        assert s.entry()["restarts"] == 1


def test_one_that_hangs_is_found_while_the_other_goes_on_answering(tmp_path: Path) -> None:
    counter = str(tmp_path / "hangs")
    with streaming(tmp_path, hang_after_s=2.0, hang_on_value=4, hang_times=1, counter_file=counter) as s:
        hangs = s.ask(4)
        s.gates.threads_of(4)
        answered = 0
        while not hangs.done():
            if s.ask(5).exception(PATIENCE_S) is None:
                answered += 1
        assert lost(hangs)
        assert answered > 5
        s.watch.until_state(ModelState.READY, times=2)
        assert_answers(s.engine, 4.0)


def test_a_batch_that_waits_behind_a_long_one_is_no_hang(tmp_path: Path) -> None:
    with streaming(tmp_path, hang_after_s=60.0) as s:
        s.gates.close(1)
        slow = s.ask(1)
        s.gates.threads_of(1)
        for value in range(10, 30):
            assert_answers(s.engine, float(value))
        s.gates.open(1)
        assert slow.result(PATIENCE_S).outputs is not None
        assert s.entry()["restarts"] == 0


def test_a_worker_with_more_streams_than_threads_is_replaced(tmp_path: Path) -> None:
    counter = str(tmp_path / "lies")
    with streaming(tmp_path, lie="many_streams", lie_times=1, counter_file=counter) as s:
        assert lost(s.ask(1))
        s.watch.until_state(ModelState.READY, times=2)
        assert_answers(s.engine, 2.0)


def test_no_answer_goes_to_another_question(tmp_path: Path) -> None:
    with streaming(tmp_path) as s:
        random = np.random.default_rng(9)
        turns = threading.Semaphore(40)
        asked = []
        for _ in range(600):
            assert turns.acquire(timeout=PATIENCE_S)
            x = random.normal(size=(int(random.integers(1, 4)), 4)).astype(np.float32)
            future = s.engine.predict(PredictRequest("fake", {"x": x}, timeout_s=PATIENCE_S))
            future.add_done_callback(lambda _: turns.release())
            asked.append((x, future))
        for x, future in asked:
            outputs = future.result(PATIENCE_S).outputs
            assert outputs is not None
            np.testing.assert_array_equal(outputs["y"], 2 * x)
