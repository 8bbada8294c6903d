"""The engine with real worker processes: loading, answering, lanes, ends."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import numpy as np
import psutil
import pytest

from engine.engine import Engine
from engine.errors import (
    Busy,
    DeadlineExceeded,
    DeviceOutOfMemory,
    Draining,
    EngineError,
    LoadCancelled,
    LoadFailed,
    Loading,
    LoadTimeout,
    Malformed,
    ModelNotFound,
    ModelUnreadable,
    PredictionExpired,
    UnusableInput,
)
from engine.events import LoadStage, ModelState, Snapshot
from engine.prediction import PredictRequest
from engine.serving_types import RequestState
from tests.engine.engine_harness import (
    PATIENCE_S,
    assert_answers,
    fake,
    gone,
    loaded,
    row,
    running_engine,
    workers_of_this_process,
)


def test_a_model_loads_in_its_stages_and_answers(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, watch):
        entry = loaded(engine, fake())
        assert entry["state"] == "READY"
        assert entry["loads"] == 1
        assert_answers(engine, 5.0)
        watch.until_state(ModelState.READY)
        stages = [stage for stage in LoadStage if stage not in (LoadStage.RECOGNISING, LoadStage.HASHING)]
        assert watch.stages() == [str(stage) for stage in stages]
        states = [ModelState.STARTING, ModelState.LOADING, ModelState.WARMING, ModelState.READY]
        assert watch.states() == states
        assert not gone(entry["worker_pid"])
    assert gone(entry["worker_pid"])


def test_thirty_two_threads_load_one_worker(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _), ThreadPoolExecutor(32) as pool:
        start = threading.Barrier(32)

        def load(_: int) -> int:
            start.wait(PATIENCE_S)
            return int(engine.load(fake(load_s=0.2)).future.result(PATIENCE_S)["worker_pid"])

        assert len(set(pool.map(load, range(32)))) == 1
        assert len(workers_of_this_process()) == 1
        assert engine.stats()["models"][0]["loads"] == 1


def test_a_hundred_first_requests_load_an_offered_model_once(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake("other"))
        assert engine.offer(fake(load_s=0.5)) == "fake"
        assert {m["id"]: m["state"] for m in engine.stats()["models"]}["fake"] == "UNLOADED"
        futures = [engine.predict(row(float(n), lane="loopback")) for n in range(100)]
        other = PredictRequest("other", {"x": np.zeros((1, 4), np.float32)})
        assert engine.predict(other).result(PATIENCE_S).outputs is not None
        for n, future in enumerate(futures):
            outputs = future.result(PATIENCE_S).outputs
            assert outputs is not None
            assert outputs["y"][0][0] == 2 * n
        entry = {m["id"]: m for m in engine.stats()["models"]}["fake"]
        assert entry["loads"] == 1
        assert entry["requests"] == {"window": 0, "network": 100}


@pytest.mark.parametrize(
    "stage", [LoadStage.IMPORTING, LoadStage.READING, LoadStage.BUILDING, LoadStage.MOVING, LoadStage.WARMING]
)
def test_a_load_is_cancelled_in_every_stage_of_the_worker(tmp_path: Path, stage: LoadStage) -> None:
    with running_engine(tmp_path) as (engine, watch):
        ticket = engine.load(fake(stage_hang=str(stage)))
        watch.until(lambda _: str(stage) in watch.stages())
        (worker,) = workers_of_this_process()
        ticket.cancel()
        with pytest.raises(LoadCancelled):
            ticket.future.result(PATIENCE_S)
        assert gone(worker.pid)
        assert engine.stats()["models"] == []
        loaded(engine, fake("next"))


def test_a_model_being_closed_while_it_loads_is_gone(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, watch):
        ticket = engine.load(fake(stage_hang=str(LoadStage.BUILDING)))
        watch.until(lambda _: str(LoadStage.BUILDING) in watch.stages())
        engine.unload("fake").result(PATIENCE_S)
        with pytest.raises(LoadCancelled):
            ticket.future.result(PATIENCE_S)
        assert workers_of_this_process() == []


def test_a_load_without_progress_is_ended(tmp_path: Path) -> None:
    with running_engine(tmp_path, load_stall_s=0.5) as (engine, _):
        with pytest.raises(LoadTimeout):
            engine.load(fake(load_hang=True)).future.result(PATIENCE_S)
        assert workers_of_this_process() == []


@pytest.mark.parametrize(
    ("options", "error"), [({"load_error": "The weights are blue."}, LoadFailed), ({"load_crash": True}, LoadFailed)]
)
def test_a_failed_load_says_why_and_the_model_before_it_answers(
    tmp_path: Path, options: dict[str, object], error: type[EngineError]
) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        with pytest.raises(error):
            engine.load(fake("bad", **options)).future.result(PATIENCE_S)
        assert [m["id"] for m in engine.stats()["models"]] == ["fake"]
        assert_answers(engine, 1.0)


def test_who_learns_of_a_failed_load_finds_no_model_of_it(tmp_path: Path) -> None:
    """At the very moment of the news, not only some time later."""
    with running_engine(tmp_path) as (engine, _):
        left: Queue[list[str]] = Queue()
        future = engine.load(fake("bad", load_s=0.5, load_error="The weights are blue.")).future
        future.add_done_callback(lambda _: left.put([m["id"] for m in engine.stats()["models"]]))
        assert left.get(timeout=PATIENCE_S) == []
        with pytest.raises(LoadFailed):
            future.result(PATIENCE_S)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _), pytest.raises(ModelUnreadable, match=r"nothing\.keras"):
        engine.load(tmp_path / "nothing.keras").future.result(PATIENCE_S)


def test_the_second_load_learns_from_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        with running_engine(tmp_path) as (engine, watch):
            loaded(engine, fake(load_s=1.2))
    learnt = [e for e in watch.events if getattr(e, "learnt", False)]
    assert learnt
    assert all(0.0 <= e.fraction <= 0.99 for e in learnt)  # type: ignore[union-attr,operator]


def test_reading_weights_reports_bytes(tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(bytes(24 << 20))
    spec = fake(read_files=True, read_s=1.0)
    from dataclasses import replace

    with running_engine(tmp_path / "data") as (engine, watch):
        loaded(engine, replace(spec, files=(weights,)))
    seen = [e for e in watch.events if getattr(e, "bytes_total", None)]
    fractions = [e.fraction for e in seen]  # type: ignore[union-attr]
    assert seen[0].bytes_total == 24 << 20  # type: ignore[union-attr]
    assert fractions == sorted(fractions)  # type: ignore[type-var]
    assert any(0.0 < f < 1.0 for f in fractions if f is not None)


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        with pytest.raises(ModelNotFound):
            engine.predict(PredictRequest("nobody", b"")).result(PATIENCE_S)
        with pytest.raises(Malformed):
            engine.predict(PredictRequest("fake", 3)).result(PATIENCE_S)  # type: ignore[arg-type]
        with pytest.raises(Malformed):
            engine.predict(row(1.0, lane="express")).result(PATIENCE_S)
        with pytest.raises(UnusableInput):
            engine.predict(PredictRequest("fake", {"x": np.zeros((1, 5), np.float32)})).result(PATIENCE_S)
        assert_answers(engine, 1.0)


def test_a_request_past_its_deadline_is_answered_at_once_and_never_run(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake(gate_file=str(gate)))
        first = engine.predict(row(1.0))
        prepared = engine.predict(row(2.0))
        late = [engine.predict(row(3.0 + n, timeout_s=0.2)) for n in range(5)]
        for future in late:
            with pytest.raises(DeadlineExceeded):
                future.result(PATIENCE_S)
        gate.touch()
        assert first.result(PATIENCE_S)
        assert prepared.result(PATIENCE_S)


def test_a_deadline_before_the_model_is_ready_says_loading(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        engine.offer(fake(load_hang=True))
        with pytest.raises(Loading):
            engine.predict(row(1.0, timeout_s=0.3)).result(PATIENCE_S)


def test_the_line_is_bounded_and_a_cancelled_request_leaves_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with running_engine(tmp_path, waiting_requests=2, max_batch_size=1) as (engine, watch):
        loaded(engine, fake(gate_file=str(gate)))
        running = [engine.predict(row(float(n))) for n in range(2)]
        waiting = [engine.predict(row(10.0 + n)) for n in range(2)]
        with pytest.raises(Busy):
            engine.predict(row(99.0)).result(PATIENCE_S)
        assert waiting[0].cancel()
        replacement = engine.predict(row(20.0))
        gate.touch()
        for future in (*running, waiting[1], replacement):
            assert future.result(PATIENCE_S)
        with pytest.raises(CancelledError):
            waiting[0].result(PATIENCE_S)
        watch.until(lambda events: _last_states(events).count(RequestState.ANSWERED) == 4)
        assert sorted(_last_states(watch.events)) == ["answered"] * 4 + ["gone", "refused"]


def _last_states(events: list[object]) -> list[RequestState]:
    snapshots = [e for e in events if isinstance(e, Snapshot)]
    return [r.state for r in snapshots[-1].requests] if snapshots else []


def test_the_owner_displaces_a_prepared_batch_of_the_network(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    started = tmp_path / "started"
    order: list[str] = []
    with running_engine(tmp_path, max_batch_size=1) as (engine, watch):
        loaded(engine, fake(gate_file=str(gate), started_file=str(started)))
        futures = {name: engine.predict(row(n, lane="lan")) for n, name in enumerate(["running", "prepared", "third"])}
        futures["owner"] = engine.predict(row(9.0, lane="owner"))
        for name, future in futures.items():
            future.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
        # The worker gives the prepared one back while it computes; only then may it go on.
        taken_back = [RequestState.RUNNING, RequestState.WAITING, RequestState.WAITING, RequestState.RUNNING]
        watch.until(lambda _: [record.state for record in engine.requests()] == taken_back)
        gate.touch()
        for future in futures.values():
            future.result(PATIENCE_S)
    assert order == ["running", "owner", "prepared", "third"]


def test_out_of_device_memory_halves_the_batch_and_remembers(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake(oom_above_rows=3))
        data = {"x": np.arange(80, dtype=np.float32).reshape(20, 4)}
        outputs = engine.predict(PredictRequest("fake", data)).result(PATIENCE_S).outputs
        assert outputs is not None
        assert np.array_equal(outputs["y"], 2 * data["x"])
        assert engine.stats()["models"][0]["max_batch_size"] <= 3


def test_one_row_that_does_not_fit_says_so(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake(oom_above_rows=0))
        with pytest.raises(DeviceOutOfMemory):
            engine.predict(row(1.0)).result(PATIENCE_S)


def test_a_row_that_raises_fails_alone(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake(raise_on_value=7, gate_file=str(gate)))
        first = engine.predict(row(0.0))
        futures = [engine.predict(row(float(n))) for n in range(1, 20)]
        gate.touch()
        first.result(PATIENCE_S)
        for n, future in enumerate(futures, 1):
            if n == 7:
                with pytest.raises(UnusableInput):
                    future.result(PATIENCE_S)
            else:
                outputs = future.result(PATIENCE_S).outputs
                assert outputs is not None
                assert outputs["checksum"].tolist() == [n + 6]


def test_unload_turns_waiting_requests_away_and_ends_the_process(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with running_engine(tmp_path, max_batch_size=1) as (engine, _):
        pid = loaded(engine, fake(gate_file=str(gate)))["worker_pid"]
        futures = [engine.predict(row(float(n))) for n in range(5)]
        unloaded = engine.unload("fake")
        for future in futures[2:]:
            with pytest.raises(Draining):
                future.result(PATIENCE_S)
        gate.touch()
        assert futures[0].result(PATIENCE_S)
        unloaded.result(PATIENCE_S)
        assert gone(pid)
        with pytest.raises(ModelNotFound):
            engine.predict(row(1.0)).result(PATIENCE_S)
        with pytest.raises(ModelNotFound):
            engine.unload("fake").result(PATIENCE_S)
        loaded(engine, fake())
        assert_answers(engine, 2.0)


def test_refine_runs_no_inference(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        from dataclasses import replace

        spec = replace(
            fake(), task="tabular-classification", labels=("a", "b", "c"), columns=("p", "q", "r", "s"), outputs=()
        )
        loaded(engine, spec)
        rows = [{"p": 1, "q": 2, "r": 3, "s": 4}]
        prediction = engine.predict(PredictRequest("fake", rows, params={"top_k": 3})).result(PATIENCE_S)
        again = engine.refine(prediction.id, {"top_k": 2}).result(PATIENCE_S)
        assert prediction.predictions is not None
        assert len(prediction.predictions) == 3
        assert again.predictions == prediction.predictions[:2]
        assert again.timing_ms["infer"] == 0.0
        assert engine.stats()["models"][0]["inferences"] == 1
        engine.predict(PredictRequest("fake", rows)).result(PATIENCE_S)
        assert engine.stats()["models"][0]["inferences"] == 2
        with pytest.raises(PredictionExpired):
            engine.refine("m1-99999", {}).result(PATIENCE_S)
        with pytest.raises(PredictionExpired):
            engine.refine("nonsense", {}).result(PATIENCE_S)


def test_closing_leaves_no_process_and_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with running_engine(tmp_path) as (engine, _):
        pids = [loaded(engine, fake(name))["worker_pid"] for name in ("fake", "two")]
        future = engine.predict(row(1.0))
    assert future.exception(PATIENCE_S) is None or isinstance(future.exception(), EngineError)
    assert all(gone(pid) for pid in pids)
    left = [t for t in threading.enumerate() if t not in before and t.is_alive()]
    assert left == []
    engine.close()
    with pytest.raises(Draining):
        engine.load(fake()).future.result(PATIENCE_S)


def test_ids_name_models_and_the_same_model_is_loaded_once(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        one, two = tmp_path / "a" / "model.keras", tmp_path / "b" / "a.keras"
        for path in (one, two):
            path.parent.mkdir()
            path.touch()
        first = engine.load(one, runtime="fake").future.result(PATIENCE_S)
        same = engine.load(tmp_path / "a", runtime="fake").future.result(PATIENCE_S)
        again = engine.load(one, device=first["device"], runtime="fake").future.result(PATIENCE_S)
        other = engine.load(two, runtime="fake").future.result(PATIENCE_S)
        assert first["id"] == same["id"] == again["id"] == "a"
        assert first["worker_pid"] == same["worker_pid"] == again["worker_pid"]
        assert other["id"] == "a-2"


def test_a_bare_engine_works_without_arguments() -> None:
    with Engine() as engine:
        stats = engine.stats()
        assert set(stats.pop("memory")) == {"total", "available", "models", "others", "budget", "devices"}
        assert stats == {"models": [], "waiting": 0, "running": 0, "sandbox": None}


def test_inferences_are_counted_over_restarts(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, watch):
        loaded(engine, fake())
        for _ in range(2):
            engine.predict(PredictRequest("fake", {"x": np.ones((1, 4), np.float32)})).result(PATIENCE_S)
        psutil.Process(engine.stats()["models"][0]["worker_pid"]).kill()
        watch.until_state(ModelState.READY, times=2)
        engine.predict(PredictRequest("fake", {"x": np.ones((1, 4), np.float32)})).result(PATIENCE_S)
        assert engine.stats()["models"][0]["inferences"] == 3
