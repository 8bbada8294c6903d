"""What both doors rely on, held by the engine, by its client in another process, and by the fake that stands for it in
their tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.engine import Engine
from engine.errors import LoadFailed, ModelNotFound, UnusableInput
from engine.events import Event, ModelState, ModelStateChanged
from engine.ports import EnginePort
from engine.prediction import PredictRequest
from engine.remote import EngineClient
from engine.settings import EngineLimits
from tests.engine.engine_harness import PATIENCE_S, fake, quick_settings
from tests.fakes import FakeEngine

ENTRY_KEYS = {
    "id", "task", "format", "runtime", "device", "state", "loads", "requests", "worker_pid", "waiting", "running",
    "restarts", "error", "offered", "path", "spec", "version", "versions", "workers", "swap", "swap_error", "golden",
    "precision", "threads", "inferences", "statistics", "pinned", "max_batch_size",
}  # fmt: skip
DATA = {"x": np.ones((1, 4), np.float32)}


@pytest.fixture(params=["real", "shared", "fake"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EnginePort]:
    if request.param == "fake":
        yield FakeEngine()
    elif request.param == "shared":
        with EngineClient(tmp_path, quick_settings(), idle_s=0.5) as client:
            yield client
    else:
        with Engine(quick_settings(), folder=tmp_path) as real:
            yield real


def test_a_loaded_model_is_described_by_its_entry(engine: EnginePort) -> None:
    entry = engine.load(fake()).future.result(PATIENCE_S)
    assert set(entry) >= ENTRY_KEYS
    assert entry["state"] == "READY"
    assert entry["requests"] == {"window": 0, "network": 0}
    assert [m["id"] for m in engine.stats()["models"]] == ["fake"]


def test_memory_is_told_and_a_model_can_be_pinned(engine: EnginePort) -> None:
    engine.load(fake()).future.result(PATIENCE_S)
    stats = engine.stats()
    assert set(stats["memory"]) == {"total", "available", "models", "others", "budget", "devices"}
    assert {"memory", "device_memory"} <= set(stats["models"][0])
    engine.pin("fake", True)
    assert engine.stats()["models"][0]["pinned"] is True
    with pytest.raises(ModelNotFound):
        engine.pin("nobody", True)


def test_other_limits_hold_at_once(engine: EnginePort) -> None:
    engine.load(fake()).future.result(PATIENCE_S)
    engine.limit(EngineLimits(memory_budget_mb=5_000, max_batch_size=3))  # type: ignore[call-arg]
    stats = engine.stats()
    assert stats["memory"]["budget"] == 5_000_000_000
    assert stats["models"][0]["max_batch_size"] == 3
    engine.limit(EngineLimits(max_batch_size=20))  # type: ignore[call-arg]
    stats = engine.stats()
    assert stats["memory"]["budget"] is None
    assert stats["models"][0]["max_batch_size"] == 20


@pytest.mark.parametrize(("lane", "door"), [("owner", "window"), ("loopback", "network"), ("lan", "network")])
def test_answers_are_counted_by_their_door(engine: EnginePort, lane: str, door: str) -> None:
    engine.load(fake()).future.result(PATIENCE_S)
    prediction = engine.predict(PredictRequest("fake", DATA, lane=lane)).result(PATIENCE_S)
    assert prediction.model == "fake"
    assert set(prediction.timing_ms) == {"decode", "wait", "infer", "post", "total"}
    assert engine.stats()["models"][0]["requests"][door] == 1


def test_an_offered_model_is_known_before_it_is_loaded(engine: EnginePort) -> None:
    model_id = engine.offer(Path("/nowhere/offered"), runtime="fake")
    (entry,) = engine.stats()["models"]
    assert (entry["id"], entry["state"], entry["offered"]) == (model_id, "UNLOADED", True)


def test_a_reload_is_the_next_version_and_a_rollback_the_one_before(engine: EnginePort) -> None:
    engine.load(fake()).future.result(PATIENCE_S)
    with pytest.raises(LoadFailed):
        engine.rollback("fake").result(PATIENCE_S)
    entry = engine.reload("fake").future.result(PATIENCE_S)
    assert (entry["version"], entry["versions"], entry["swap_error"]) == ("2", ["1", "2"], None)
    entry = engine.rollback("fake").result(PATIENCE_S)
    assert (entry["version"], entry["versions"]) == ("1", ["2", "1"])
    with pytest.raises(ModelNotFound):
        engine.reload("nobody").future.result(PATIENCE_S)


def test_an_answer_is_kept_checked_and_forgotten(engine: EnginePort) -> None:
    engine.load(fake()).future.result(PATIENCE_S)
    with pytest.raises(UnusableInput):
        engine.check_golden("fake").result(PATIENCE_S)
    prediction = engine.predict(PredictRequest("fake", DATA)).result(PATIENCE_S)
    assert engine.keep_golden(prediction.id).result(PATIENCE_S).agreed is True
    sample = engine.golden_sample("fake").result(PATIENCE_S)
    assert sample is not None
    engine.record_golden("fake", sample.unanswered(ValueError("no"), door="network", version="1"))
    (entry,) = engine.stats()["models"]
    assert set(entry["golden"]) == {
        "window", "network", "difference", "tolerance", "checked_at", "version", "source", "message",
    }  # fmt: skip
    assert (entry["golden"]["window"], entry["golden"]["network"]) == (True, None)
    engine.forget_golden("fake").result(PATIENCE_S)
    with pytest.raises(UnusableInput):
        engine.check_golden("fake").result(PATIENCE_S)


def test_nobody_is_no_model(engine: EnginePort) -> None:
    with pytest.raises(ModelNotFound):
        engine.predict(PredictRequest("nobody", DATA)).result(PATIENCE_S)
    with pytest.raises(ModelNotFound):
        engine.unload("nobody").result(PATIENCE_S)


def test_an_unloaded_model_is_gone(engine: EnginePort) -> None:
    engine.load(fake()).future.result(PATIENCE_S)
    engine.unload("fake").result(PATIENCE_S)
    assert engine.stats()["models"] == []
    with pytest.raises(ModelNotFound):
        engine.predict(PredictRequest("fake", DATA)).result(PATIENCE_S)


def test_listeners_hear_states_until_they_leave(engine: EnginePort) -> None:
    heard: list[Event] = []
    leave = engine.subscribe(heard.append)
    engine.load(fake()).future.result(PATIENCE_S)
    engine.unload("fake").result(PATIENCE_S)
    engine.close()
    states = [e.state for e in heard if isinstance(e, ModelStateChanged)]
    assert states[0] is ModelState.STARTING
    assert ModelState.READY in states
    assert states[-1] is ModelState.UNLOADED
    leave()
    leave()
