"""Workers that crash, hang, are killed, or lie. Each costs its own requests one answer and nothing else."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.errors import (
    DeadlineExceeded,
    EngineError,
    ModelFailed,
    Quarantined,
    WorkerRestarted,
)
from engine.events import ModelState
from engine.prediction import PredictRequest
from tests.engine.engine_harness import PATIENCE_S, assert_answers, fake, gone, loaded, row, running_engine


def test_a_killed_worker_costs_what_it_had_and_comes_back(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with running_engine(tmp_path, max_batch_size=2) as (engine, watch):
        pid = loaded(engine, fake(gate_file=str(gate)))["worker_pid"]
        futures = [engine.predict(row(float(n))) for n in range(8)]
        os.kill(pid, signal.SIGKILL)
        assert isinstance(futures[0].exception(PATIENCE_S), WorkerRestarted)
        gate.touch()
        lost = [f for f in futures if isinstance(f.exception(PATIENCE_S), WorkerRestarted)]
        watch.until_state(ModelState.READY, times=2)
        answered = [f for f in futures if f not in lost]
        assert 1 <= len(lost) <= 4
        assert len(answered) >= 4
        for future in answered:
            assert future.result(PATIENCE_S).outputs is not None
        assert gone(pid)
        assert_answers(engine, 1.0)
        entry = engine.stats()["models"][0]
        assert entry["restarts"] == 1
        assert entry["worker_pid"] != pid


def test_an_input_that_crashes_twice_is_kept_out_and_costs_nobody_else(tmp_path: Path) -> None:
    with running_engine(tmp_path, restarts=10) as (engine, _):
        loaded(engine, fake(crash_on_value=666))
        with pytest.raises(WorkerRestarted):
            engine.predict(row(666.0)).result(PATIENCE_S)
        neighbours = [engine.predict(row(float(n))) for n in range(4)]
        with pytest.raises(WorkerRestarted):
            engine.predict(row(666.0)).result(PATIENCE_S)
        for future in neighbours:
            assert future.result(PATIENCE_S).outputs is not None
        for _ in range(3):
            with pytest.raises(Quarantined):
                engine.predict(row(666.0)).result(PATIENCE_S)
        assert_answers(engine, 3.0)
        assert engine.stats()["models"][0]["restarts"] == 2


def test_an_innocent_suspect_is_cleared_by_its_lone_run(tmp_path: Path) -> None:
    counter = tmp_path / "crashes"
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake(crash_on_value=5, crash_times=1, counter_file=str(counter)))
        with pytest.raises(WorkerRestarted):
            engine.predict(row(5.0)).result(PATIENCE_S)
        assert_answers(engine, 5.0)
        assert_answers(engine, 5.0)


def test_a_kill_from_outside_during_the_lone_run_of_an_answered_input_is_no_proof(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, watch):
        loaded(engine, fake(delay_s=0.3))
        assert_answers(engine, 5.0)
        for kills in (1, 2):
            pid = engine.stats()["models"][0]["worker_pid"]
            future = engine.predict(row(5.0))
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerRestarted):
                future.result(PATIENCE_S)
            watch.until_state(ModelState.READY, times=1 + kills)
        assert_answers(engine, 5.0)


def test_a_model_that_always_crashes_is_given_up_and_can_be_asked_again(tmp_path: Path) -> None:
    with running_engine(tmp_path, restarts=2) as (engine, watch):
        loaded(engine, fake(crash_on_value=1))
        for n in range(3):
            request = PredictRequest("fake", {"x": np.array([[1, n, 0, 0]], np.float32)})
            with pytest.raises(WorkerRestarted):
                engine.predict(request).result(PATIENCE_S)
            if n < 2:
                watch.until_state(ModelState.READY, times=2 + n)
        watch.until_state(ModelState.FAILED)
        with pytest.raises(ModelFailed):
            engine.predict(row(2.0)).result(PATIENCE_S)
        entry = engine.stats()["models"][0]
        assert entry["state"] == "FAILED"
        assert entry["error"]["code"] == "model_failed"
        assert loaded(engine, fake())["state"] == "READY"
        assert_answers(engine, 2.0)


def test_a_worker_that_dies_at_every_restart_is_given_up(tmp_path: Path) -> None:
    """It loads once; then every further load crashes."""
    counter = tmp_path / "crashes"
    with running_engine(tmp_path, restarts=3) as (engine, watch):
        good = fake(load_crash=True, crash_times=0, counter_file=str(counter))
        from dataclasses import replace

        entry = loaded(engine, replace(good, options={}))
        host = engine._models["fake"].serving
        assert host._loaded is not None
        host._loaded = replace(host._loaded, spec=replace(host._loaded.spec, options={"load_crash": True}))
        os.kill(entry["worker_pid"], signal.SIGKILL)
        watch.until_state(ModelState.FAILED)
        assert engine.stats()["models"][0]["restarts"] == 3


def test_a_hanging_model_misses_deadlines_and_is_replaced(tmp_path: Path) -> None:
    counter = tmp_path / "hangs"
    with running_engine(tmp_path, hang_after_s=1.0) as (engine, watch):
        spec = fake(hang_on_value=4, hang_times=1, counter_file=str(counter))
        pid = loaded(engine, spec)["worker_pid"]
        with pytest.raises(DeadlineExceeded):
            engine.predict(row(4.0, timeout_s=0.2)).result(PATIENCE_S)
        assert not gone(pid)
        watch.until_state(ModelState.READY, times=2)
        assert gone(pid)
        assert_answers(engine, 1.0)


def test_a_long_batch_is_no_hang(tmp_path: Path) -> None:
    with running_engine(tmp_path, hang_after_s=5.0) as (engine, _):
        loaded(engine, fake(delay_s=1.0))
        with pytest.raises(DeadlineExceeded):
            engine.predict(row(1.0, timeout_s=0.1)).result(PATIENCE_S)
        assert_answers(engine, 2.0)
        assert engine.stats()["models"][0]["restarts"] == 0


LIES = [
    "wrong_length", "wrong_id", "missing_item", "not_a_result", "garbage", "pickle", "flood", "partial_frame",
    "huge_header", "huge_buffer", "duplicate_done", "started_twice",
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_rogue_worker_costs_its_requests_a_503_and_nothing_else(tmp_path: Path, lie: str) -> None:
    canary = tmp_path / "canary"
    options = {"lie": lie, "lie_times": 1, "counter_file": str(tmp_path / "lies"), "pickle_file": str(canary)}
    with running_engine(tmp_path) as (engine, watch):
        loaded(engine, fake("other"))
        loaded(engine, fake(**options))
        before = psutil.Process().memory_info().rss
        futures = [engine.predict(row(float(n))) for n in range(3)]
        outcomes = [future.exception(PATIENCE_S) for future in futures]
        assert all(error is None or isinstance(error, WorkerRestarted) for error in outcomes)
        if lie != "duplicate_done":  # there the first, true reply is an answer; the second ends the worker
            assert any(isinstance(error, WorkerRestarted) for error in outcomes)
        watch.until_state(ModelState.READY, times=3)
        assert psutil.Process().memory_info().rss - before < 60 << 20
        assert not canary.exists()
        assert_answers(engine, 8.0)
        other = PredictRequest("other", {"x": np.ones((1, 4), np.float32)})
        assert engine.predict(other).result(PATIENCE_S).outputs is not None
        assert {m["id"]: m["restarts"] for m in engine.stats()["models"]} == {"fake": 1, "other": 0}


def test_a_worker_that_falls_silent_within_a_frame_is_replaced(tmp_path: Path) -> None:
    options = {"lie": "stalled_frame", "lie_times": 1, "counter_file": str(tmp_path / "lies")}
    with running_engine(tmp_path, hang_after_s=1.0) as (engine, watch):
        loaded(engine, fake(**options))
        with pytest.raises(EngineError):
            engine.predict(row(1.0)).result(PATIENCE_S)
        watch.until_state(ModelState.READY, times=2)
        assert_answers(engine, 2.0)


def test_noise_on_the_standard_streams_is_no_answer(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake(noise=True))
        for n in range(20):
            assert_answers(engine, float(n))
        assert engine.stats()["models"][0]["restarts"] == 0


def test_five_hundred_mixed_requests_across_kills_mix_nothing_up(tmp_path: Path) -> None:
    with running_engine(tmp_path, restarts=100, ageing_s=0.1) as (engine, _):
        loaded(engine, fake())
        rng = np.random.default_rng(7)
        futures = []
        for n in range(500):
            rows = int(rng.integers(1, 4))
            data = rng.normal(size=(rows, 4)).astype(np.float32)
            lane = ("owner", "loopback", "lan", "batch")[n % 4]
            futures.append((data, engine.predict(PredictRequest("fake", {"x": data}, lane=lane, client=f"c{n % 7}"))))
            if n % 100 == 50:
                pid = engine.stats()["models"][0]["worker_pid"]
                if pid is not None:
                    with suppress(ProcessLookupError):  # it may have been killed a moment ago
                        os.kill(pid, signal.SIGKILL)
        answered = 0
        for data, future in futures:
            error = future.exception(PATIENCE_S)
            if error is None:
                outputs = future.result().outputs
                assert outputs is not None
                assert np.array_equal(outputs["y"], 2 * data)
                assert np.allclose(outputs["checksum"], data.astype(np.float64).sum(axis=1))
                answered += 1
            else:
                assert isinstance(error, WorkerRestarted) or error.code == "busy"  # type: ignore[attr-defined]
        assert answered > 200
