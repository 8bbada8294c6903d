"""Memory of models: measured, bounded, and given back by those nobody asks; a question never finds its model gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from engine.engine import Engine
from engine.errors import EngineError, PredictionExpired
from engine.events import LoadProgress, LoadStage, ModelState, ModelStateChanged, Notice
from engine.memory import DeviceMemory, MemoryWatch, Policy, process_bytes
from engine.prediction import Prediction, PredictRequest
from tests.engine.engine_harness import PATIENCE_S, fake, limit, loaded, row, running_engine

MB = 1_000_000


@dataclass
class Model:
    """A resident that rests when it is let."""

    id: str
    pids: tuple[int, ...]
    used_at: float = 0.0
    pinned: bool = False
    busy: bool = False
    rested: list[str] = field(default_factory=list)
    device_memory: tuple[DeviceMemory, ...] = ()

    def ask_device_memory(self) -> None:
        """It is on no device."""

    def rest(self) -> bool:
        if self.busy:
            return False
        self.rested.append(self.id)
        self.pids = ()
        return True


def watch(
    models: list[Model], policy: Policy, *, now: float = 100.0, tight: Callable[[str], None] = lambda sentence: None
) -> MemoryWatch:
    """Each process has as many megabytes as its number."""
    return MemoryWatch(
        lambda: models, lambda: now, lambda: None, tight, policy, measure=lambda pid: pid * MB
    )  # fmt: skip


def resting(models: list[Model]) -> list[str]:
    return [model.id for model in models if model.rested]


def test_the_least_recently_used_idle_model_gives_way_first_and_no_more_than_needed() -> None:
    models = [Model("new", (300,), 90.0), Model("old", (200,), 10.0), Model("middle", (250,), 50.0)]
    looked = watch(models, Policy(budget_bytes=600 * MB))
    looked.look()
    assert resting(models) == ["old"]
    assert looked.measured.models == 550 * MB
    looked.look()
    assert resting(models) == ["old"]


def test_one_in_use_or_pinned_never_gives_way_and_that_is_said_once() -> None:
    said: list[str] = []
    models = [Model("busy", (500,), 0.0, busy=True), Model("pinned", (500,), 1.0, pinned=True)]
    looked = watch(models, Policy(budget_bytes=600 * MB, idle_s=1.0), tight=said.append)
    looked.look()
    looked.look()
    assert resting(models) == []
    (sentence,) = said
    assert "1000 MB" in sentence
    assert "600 MB" in sentence
    models[0].busy = False
    looked.look()
    assert resting(models) == ["busy"]


def test_the_one_asked_last_stays_though_it_alone_is_more_than_the_budget_and_that_is_said_once() -> None:
    """Closed after each answer it would be loaded again for each question."""
    said: list[str] = []
    models = [Model("small", (100,), 50.0), Model("large", (700,), 40.0)]
    looked = watch(models, Policy(budget_bytes=500 * MB), tight=said.append)
    looked.look()
    assert resting(models) == ["large"]
    models[1] = Model("large", (700,), 60.0)
    looked.look()
    assert resting(models) == ["small"]
    models[0] = Model("small", (100,), 70.0)
    looked.look()
    models[1] = Model("large", (700,), 80.0)
    looked.look()
    assert models[1].rested == []
    (sentence,) = said
    assert "large alone needs 700 MB" in sentence
    assert "500 MB" in sentence
    looked.set_policy(Policy(budget_bytes=600 * MB))
    looked.look()
    assert len(said) == 2


def test_a_load_makes_room_first_by_what_was_measured_last_or_the_size_of_the_files() -> None:
    models = [Model("new", (300,), 90.0), Model("old", (200,), 10.0), Model("back", (150,), 50.0)]
    looked = watch(models, Policy())
    looked.look()
    back = models.pop()
    looked.set_policy(Policy(budget_bytes=520 * MB))
    with looked.room_for("other", 20 * MB):
        assert resting(models) == []
        # That one counts, though it is not yet measured; of this one it is known what it takes.
        with looked.room_for("back", 1):
            assert resting(models) == ["old"]
    models.append(back)
    with looked.room_for("third", 60 * MB):
        assert resting(models) == ["old"]
    with looked.room_for("third", 80 * MB):
        assert resting(models) == ["old", "back"]


def test_where_there_is_no_room_for_a_load_that_is_said_before_it() -> None:
    said: list[str] = []
    models = [Model("busy", (300,), 0.0, busy=True), Model("pinned", (300,), 0.0, pinned=True)]
    looked = watch(models, Policy(budget_bytes=700 * MB), tight=said.append)
    with looked.room_for("new", 200 * MB):
        (sentence,) = said
        assert "800 MB" in sentence
    with looked.room_for("giant", 900 * MB):
        assert "giant alone needs 900 MB" in said[1]
    assert resting(models) == []
    with looked.room_for("new", 100 * MB):
        assert len(said) == 2


def test_one_nobody_asked_rests_after_its_time() -> None:
    models = [Model("a", (1,), 99.5), Model("b", (1,), 40.0), Model("c", (1,), 40.0, pinned=True)]
    watch(models, Policy(idle_s=60.0)).look()
    assert resting(models) == ["b"]


def test_without_limits_nothing_rests() -> None:
    models = [Model("a", (100_000,), 0.0)]
    watch(models, Policy(), now=1e9).look()
    assert resting(models) == []


def test_what_a_process_has_is_measured_and_what_is_gone_has_nothing() -> None:
    mine = process_bytes(psutil.Process().pid)
    assert 10 * MB < mine < 100_000 * MB
    gone = psutil.Popen(["true"])
    gone.wait()
    assert process_bytes(gone.pid) == 0


def until(condition: Callable[[], bool], what: str) -> None:
    from tests.engine.test_shared_engine import until as wait

    wait(condition, what)


def entry(engine: Engine, model_id: str = "fake") -> dict[str, object]:
    return next(m for m in engine.stats()["models"] if m["id"] == model_id)


def test_real_workers_are_measured(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        until(lambda: bool(entry(engine)["memory"]), "the worker is measured")
        memory = engine.stats()["memory"]
        pid = entry(engine)["worker_pid"]
        assert isinstance(pid, int)
        assert memory["models"] == entry(engine)["memory"]
        assert memory["models"] <= psutil.Process(pid).memory_info().rss * 1.5
        assert 0 < memory["available"] < memory["total"]
        assert memory["others"] <= memory["total"]


def test_what_a_model_takes_is_seen(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake("small"))
        loaded(engine, fake("large", big_mb=300))
        until(lambda: bool(entry(engine, "small")["memory"] and entry(engine, "large")["memory"]), "both are measured")
        small, large = (int(str(entry(engine, name)["memory"])) for name in ("small", "large"))
        assert 280 * MB < large - small < 400 * MB


def test_an_idle_model_rests_and_answers_again(tmp_path: Path) -> None:
    """Its process ends, it stays offered, its counts and its place stay, and the next question finds it."""
    with running_engine(tmp_path) as (engine, watched):
        loaded(engine, fake())
        pid = entry(engine)["worker_pid"]
        assert isinstance(pid, int)
        first = engine.predict(row(1.0)).result(PATIENCE_S)
        limit(engine, unload_idle_s=0.001)
        until(lambda: entry(engine)["state"] == "UNLOADED", "it rests")
        assert (entry(engine)["worker_pid"], entry(engine)["offered"]) == (None, True)
        until(lambda: not psutil.pid_exists(pid), "its process has ended")
        with pytest.raises(PredictionExpired):
            engine.refine(first.id, {}).result(PATIENCE_S)
        limit(engine, unload_idle_s=0.0)
        assert engine.predict(row(1.0)).result(PATIENCE_S).model == "fake"
        now = entry(engine)
        assert (now["state"], now["loads"], now["version"], now["restarts"]) == ("READY", 2, "1", 0)
        assert now["requests"] == {"window": 2, "network": 0}
        assert not any(isinstance(event, Notice) for event in watched.events)


def test_a_pinned_model_stays(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        loaded(engine, fake("other"))
        loaded(engine, fake("third"))
        engine.pin("fake", True)
        limit(engine, memory_budget_mb=1)
        until(lambda: entry(engine, "other")["state"] == "UNLOADED", "the other rests")
        assert entry(engine)["state"] == "READY"
        assert entry(engine, "third")["state"] == "READY"
        engine.pin("fake", False)
        until(lambda: entry(engine)["state"] == "UNLOADED", "it rests once it is not pinned")


def test_a_model_that_is_being_asked_is_never_closed(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with running_engine(tmp_path / "data") as (engine, _):
        loaded(engine, fake(started_file=str(started), gate_file=str(gate)))
        answer = engine.predict(row(1.0))
        until(started.exists, "the model computes")
        limit(engine, memory_budget_mb=1, unload_idle_s=0.001)
        for _ in range(3):
            engine._memory.look()
        assert entry(engine)["state"] == "READY"
        gate.touch()
        assert answer.result(PATIENCE_S).model == "fake"
        assert entry(engine)["loads"] == 1


def test_no_question_is_lost_while_models_rest_under_it(tmp_path: Path) -> None:
    """Eight askers, and a model that is let rest again and again: every question has its answer."""
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        (model,) = engine._models.values()
        over = threading.Event()
        rested = 0

        def disturb() -> None:
            nonlocal rested
            while not over.is_set():
                rested += model.rest()
                over.wait(0.02)

        disturber = threading.Thread(target=disturb)
        disturber.start()
        pause = threading.Event()

        def ask(number: int) -> Prediction:
            future: Future[Prediction] = engine.predict(row(float(number)))
            answer = future.result(PATIENCE_S)
            pause.wait(0.1)
            return answer

        try:
            with ThreadPoolExecutor(8) as askers:
                answers = list(askers.map(ask, range(60)))
        except EngineError as error:
            pytest.fail(f"a question was refused: {error.code} {error.message}")
        finally:
            over.set()
            disturber.join(PATIENCE_S)
        assert len(answers) == 60
        assert rested >= 2, "it never rested: nothing was tried"
        assert entry(engine)["restarts"] == 0
        assert entry(engine)["state"] in (str(ModelState.READY), str(ModelState.UNLOADED))


def test_a_version_being_loaded_keeps_the_one_before_awake(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake(load_s=1.0))
        (model,) = engine._models.values()
        ticket = engine.reload("fake")
        assert not model.rest()
        ticket.future.result(PATIENCE_S)
        assert engine.predict(PredictRequest("fake", row(1.0).data)).result(PATIENCE_S).version == "2"


@pytest.mark.parametrize("what", ["pin", "reload"])
def test_a_rest_is_decided_and_begun_before_or_after_a_pin_or_a_swap(tmp_path: Path, what: str) -> None:
    """One that came just before the process was to end counts, or comes after it: never in between."""
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        (model,) = engine._models.values()
        host = model.serving
        rest, came_first = host.rest, []
        other = threading.Thread(target=engine.pin if what == "pin" else engine.reload, args=("fake", True))

        def rest_a_moment_later() -> object:
            other.start()
            other.join(0.3)
            came_first.append(not other.is_alive())
            return rest()

        host.rest = rest_a_moment_later  # type: ignore[method-assign,assignment]
        rested = model.rest()
        other.join(PATIENCE_S)
        assert not (rested and came_first[0])
        assert not model.rest() or what == "reload"


def test_a_pinned_model_does_not_rest_whoever_asks_it_to(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        (model,) = engine._models.values()
        engine.pin("fake", True)
        assert not model.rest()
        engine.pin("fake", False)
        assert model.rest()


def test_a_model_that_rests_is_the_one_on_the_device_it_had(tmp_path: Path) -> None:
    """Its device was chosen for it; asked for by that device it is not opened a second time."""
    with running_engine(tmp_path) as (engine, _):
        assert loaded(engine, fake())["device"] == "cpu"
        (model,) = engine._models.values()
        assert model.rest()
        assert engine.load(fake(), device="cpu").future.result(PATIENCE_S)["id"] == "fake"
        assert [m["id"] for m in engine.stats()["models"]] == ["fake"]
        assert entry(engine)["loads"] == 2


def test_the_budget_of_the_settings_holds(tmp_path: Path) -> None:
    with running_engine(tmp_path, memory_budget_mb=1) as (engine, _):
        loaded(engine, fake())
        assert engine.stats()["memory"]["budget"] == MB
        loaded(engine, fake("other"))
        until(lambda: entry(engine)["state"] == "UNLOADED", "the one before rests")


def test_a_model_larger_than_the_budget_is_loaded_once_for_many_questions(tmp_path: Path) -> None:
    with running_engine(tmp_path, memory_budget_mb=1) as (engine, watched):
        loaded(engine, fake())
        for number in range(3):
            assert engine.predict(row(float(number))).result(PATIENCE_S)
            engine._memory.look()
        assert (entry(engine)["loads"], entry(engine)["state"]) == (1, "READY")
        (notice,) = watched.until(lambda events: [e for e in events if isinstance(e, Notice)])
        assert (notice.code, "fake alone needs" in notice.message) == ("memory", True)


def test_who_has_to_rests_before_the_process_of_a_load_is_started(tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    with weights.open("wb") as handle:
        handle.truncate(900 * MB)
    with running_engine(tmp_path / "data", memory_budget_mb=800) as (engine, watched):
        loaded(engine, fake("small"))
        loaded(engine, replace(fake("large"), files=(weights,)))
        watched.until_state(ModelState.READY, 2)
        at = {}
        for number, event in enumerate(watched.events):
            if isinstance(event, ModelStateChanged) and (event.model_id, event.state) == ("small", ModelState.UNLOADED):
                at["rest"] = number
            if isinstance(event, LoadProgress) and (event.model_id, event.stage) == ("large", LoadStage.STARTING):
                at["start"] = number
        assert at["rest"] < at["start"]
        notices = [event.message for event in watched.events if isinstance(event, Notice)]
        assert notices == [
            "large alone needs 900 MB, more than the 800 MB that models may have together. It stays open while it is "
            "the one asked last."
        ]


def test_a_file_that_changed_while_its_model_rested_can_be_opened_again(tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"one")
    spec = replace(fake(), files=(weights,))
    with running_engine(tmp_path / "data") as (engine, _):
        loaded(engine, spec)
        (model,) = engine._models.values()
        assert model.rest()
        weights.write_bytes(b"another one")
        with pytest.raises(EngineError, match="not the file that was opened before"):
            engine.predict(row(1.0)).result(PATIENCE_S)
        assert loaded(engine, spec)["state"] == "READY"
