"""Versions: a swap beside the version that answers, a rollback, numbered folders, and what a failed load leaves."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.engine import Engine
from engine.errors import EngineError, LoadCancelled, LoadFailed, ModelChanged, ModelNotFound
from engine.events import ModelState, ModelStateChanged
from engine.model_spec import ModelSpec
from engine.prediction import Prediction, PredictRequest
from engine.versions import numbered_folders
from tests.engine.engine_harness import (
    PATIENCE_S,
    Watch,
    assert_answers,
    fake,
    gone,
    loaded,
    row,
    running_engine,
    workers_of_this_process,
)


class ChangingModel:
    """A model whose file says by what it multiplies, or with which sentence its load fails."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "options.json"
        self.scales(2)

    def scales(self, scale: float) -> None:
        self.write({"scale": scale})

    def write(self, options: dict[str, Any]) -> None:
        other = self.file.with_suffix(".new")
        other.write_text(json.dumps(options))
        other.replace(self.file)

    def spec(self, **options: Any) -> ModelSpec:
        return replace(fake(options_file=str(self.file), **options), files=(self.file,))


def scale_of(prediction: Prediction) -> float:
    """What the version that answered multiplies by; its answer must be to the row of :func:`row`."""
    assert prediction.outputs is not None
    return float(prediction.outputs["y"][0][1])


def entry_of(engine: Engine) -> dict[str, Any]:
    (entry,) = engine.stats()["models"]
    return entry  # type: ignore[no-any-return]


def ask(engine: Engine, version: str | None = None) -> Prediction:
    return engine.predict(row(1.0, version=version)).result(PATIENCE_S)


def until_gone(watch: Watch, pid: int) -> None:
    watch.until(lambda _: gone(pid))


def test_a_changed_file_becomes_the_next_version(tmp_path: Path) -> None:
    model = ChangingModel(tmp_path)
    with running_engine(tmp_path / "data") as (engine, watch):
        first = loaded(engine, model.spec())
        assert (first["version"], first["versions"]) == ("1", ["1"])
        model.scales(3)
        watch.until_state(ModelState.READY)
        states = len(watch.states())
        entry = engine.reload("fake").future.result(PATIENCE_S)
        assert (entry["version"], entry["versions"], entry["loads"]) == ("2", ["1", "2"], 2)
        assert entry["worker_pid"] != first["worker_pid"]
        assert not gone(first["worker_pid"])
        answer = ask(engine)
        assert (answer.version, scale_of(answer)) == ("2", 3)
        assert (ask(engine, "1").version, scale_of(ask(engine, "1"))) == ("1", 2)
        assert entry_of(engine)["requests"] == {"window": 3, "network": 0}
        watch.until(lambda _: len(watch.states()) > states)
        assert set(watch.states()[states:]) == {ModelState.READY}  # the model never stopped being ready


def test_a_version_that_there_is_not_is_named(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        with pytest.raises(ModelNotFound, match="fake has no version 3"):
            ask(engine, "3")
        assert ask(engine, "1").version == "1"


def test_a_rollback_is_at_once_and_can_be_taken_back(tmp_path: Path) -> None:
    model = ChangingModel(tmp_path)
    with running_engine(tmp_path / "data") as (engine, _):
        first = loaded(engine, model.spec())
        with pytest.raises(LoadFailed, match="no earlier version"):
            engine.rollback("fake").result(PATIENCE_S)
        model.scales(3)
        second = engine.reload("fake").future.result(PATIENCE_S)
        entry = engine.rollback("fake").result(PATIENCE_S)
        assert (entry["version"], entry["versions"]) == ("1", ["2", "1"])
        assert entry["worker_pid"] == first["worker_pid"]
        assert scale_of(ask(engine)) == 2
        assert engine.rollback("fake").result(PATIENCE_S)["worker_pid"] == second["worker_pid"]
        assert scale_of(ask(engine)) == 3
        engine.rollback("fake").result(PATIENCE_S)
        assert engine.reload("fake").future.result(PATIENCE_S)["version"] == "3"  # "2" has been another one


def test_a_request_that_comes_too_late_for_its_version_goes_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The swap falls between choosing the version and handing it the request."""
    with running_engine(tmp_path, keep_previous_s=0.0) as (engine, watch):
        first = loaded(engine, fake())
        model = engine._models["fake"]
        old, choose = model.serving, model.host_for
        engine.reload("fake").future.result(PATIENCE_S)
        until_gone(watch, first["worker_pid"])
        chosen = iter([old, old])
        monkeypatch.setattr(model, "host_for", lambda version: next(chosen, None) or choose(version))
        assert ask(engine).version == "2"


def test_a_rollback_after_the_worker_is_gone_loads_it_or_says_why_not(tmp_path: Path) -> None:
    model = ChangingModel(tmp_path)
    with running_engine(tmp_path / "data", keep_previous_s=0.0) as (engine, watch):
        first = loaded(engine, model.spec())
        engine.reload("fake").future.result(PATIENCE_S)
        until_gone(watch, first["worker_pid"])
        back = engine.rollback("fake").result(PATIENCE_S)
        assert back["version"] == "1"
        assert scale_of(ask(engine)) == 2
        model.scales(3)
        engine.reload("fake").future.result(PATIENCE_S)
        with pytest.raises(ModelChanged):
            engine.rollback("fake").result(PATIENCE_S)
        entry = entry_of(engine)
        assert (entry["version"], entry["swap_error"]["code"]) == ("3", "model_changed")
        assert scale_of(ask(engine)) == 3


def test_the_previous_version_is_ended_after_its_time(tmp_path: Path) -> None:
    with running_engine(tmp_path, keep_previous_s=0.3) as (engine, watch):
        first = loaded(engine, fake())
        engine.reload("fake").future.result(PATIENCE_S)
        until_gone(watch, first["worker_pid"])
        # The process is gone before the engine has read so.
        watch.until(lambda _: [w["version"] for w in entry_of(engine)["workers"]] == ["2"])


@pytest.mark.parametrize(
    ("options", "words"),
    [({"load_error": "The weights are blue."}, "blue"), ({"load_crash": True}, "ended its process")],
)
def test_a_failed_load_leaves_the_version_before_and_says_why(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    model = ChangingModel(tmp_path)
    with running_engine(tmp_path / "data") as (engine, watch):
        first = loaded(engine, model.spec())
        model.write(options)
        with pytest.raises(LoadFailed, match=words):
            engine.reload("fake").future.result(PATIENCE_S)
        entry = entry_of(engine)
        assert (entry["state"], entry["version"], entry["worker_pid"]) == ("READY", "1", first["worker_pid"])
        assert words in entry["swap_error"]["message"]
        assert scale_of(ask(engine)) == 2
        model.scales(5)
        entry = engine.reload("fake").future.result(PATIENCE_S)
        assert (entry["version"], entry["swap_error"]) == ("2", None)
        assert scale_of(ask(engine)) == 5
        errors = [e for e in watch.events if isinstance(e, ModelStateChanged) and e.error]
        assert errors == []


def test_a_swap_is_cancelled_in_its_load(tmp_path: Path) -> None:
    model = ChangingModel(tmp_path)
    with running_engine(tmp_path / "data") as (engine, watch):
        first = loaded(engine, model.spec())
        # What a worker hangs in is not in the events of the version that answers: the entry tells it.
        model.write({"load_hang": True})
        ticket = engine.reload("fake")
        again = engine.reload("fake")
        watch.until(lambda _: len(workers_of_this_process()) == 2)
        assert entry_of(engine)["swap"] == ModelState.STARTING
        ticket.cancel()
        for future in (ticket.future, again.future):
            with pytest.raises(LoadCancelled):
                future.result(PATIENCE_S)
        watch.until(lambda _: len(workers_of_this_process()) == 1)
        assert entry_of(engine)["swap_error"] is None
        assert entry_of(engine)["worker_pid"] == first["worker_pid"]
        assert_answers(engine, 4.0)


def test_requests_stay_with_the_version_that_took_them(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    model = ChangingModel(tmp_path)
    with running_engine(tmp_path / "data", keep_previous_s=0.0, max_batch_size=1) as (engine, watch):
        model.write({"scale": 2, "gate_file": str(gate)})
        first = loaded(engine, model.spec())
        before = [engine.predict(row(1.0)) for _ in range(6)]
        model.scales(3)
        engine.reload("fake").future.result(PATIENCE_S)
        assert scale_of(ask(engine)) == 3
        assert not gone(first["worker_pid"])
        gate.touch()
        assert {(f.result(PATIENCE_S).version, scale_of(f.result())) for f in before} == {("1", 2.0)}
        until_gone(watch, first["worker_pid"])


def test_what_a_lost_version_can_no_longer_answer_goes_to_the_one_that_serves(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    model = ChangingModel(tmp_path)
    with running_engine(tmp_path / "data", max_batch_size=1) as (engine, _):
        model.write({"scale": 2, "gate_file": str(gate)})
        first = loaded(engine, model.spec())
        futures = [engine.predict(row(1.0)) for _ in range(6)]
        model.scales(3)
        engine.reload("fake").future.result(PATIENCE_S)
        os.kill(first["worker_pid"], signal.SIGKILL)  # its file has changed: it cannot start again
        outcomes = [future.exception(PATIENCE_S) for future in futures]
        assert [getattr(error, "code", "") for error in outcomes[:2]] == ["worker_restarted"] * 2
        assert outcomes[2:] == [None] * 4
        assert {(f.result().version, scale_of(f.result())) for f in futures[2:]} == {("2", 3.0)}


def test_a_worker_never_comes_back_with_another_file(tmp_path: Path) -> None:
    model = ChangingModel(tmp_path)
    with running_engine(tmp_path / "data") as (engine, watch):
        first = loaded(engine, model.spec())
        model.scales(3)
        os.kill(first["worker_pid"], signal.SIGKILL)
        watch.until_state(ModelState.FAILED)
        assert entry_of(engine)["error"]["code"] == "model_changed"
        entry = engine.reload("fake").future.result(PATIENCE_S)
        assert (entry["state"], entry["version"]) == ("READY", "2")
        assert scale_of(ask(engine)) == 3


def test_an_unloaded_model_leaves_no_version_behind(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        engine.reload("fake").future.result(PATIENCE_S)
        assert len(workers_of_this_process()) == 2
        engine.unload("fake").result(PATIENCE_S)
        assert workers_of_this_process() == []
        assert engine.stats()["models"] == []
        with pytest.raises(ModelNotFound):
            engine.reload("fake").future.result(PATIENCE_S)
        with pytest.raises(ModelNotFound):
            engine.rollback("fake").result(PATIENCE_S)


def test_closing_in_the_middle_of_a_swap_leaves_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    model = ChangingModel(tmp_path)
    with running_engine(tmp_path / "data") as (engine, watch):
        loaded(engine, model.spec())
        model.write({"load_hang": True})
        ticket = engine.reload("fake")
        watch.until(lambda _: len(workers_of_this_process()) == 2)
    with pytest.raises(EngineError):
        ticket.future.result(PATIENCE_S)
    assert workers_of_this_process() == []
    assert [t for t in threading.enumerate() if t not in before and t.is_alive()] == []


def test_a_folder_of_numbered_folders_gives_the_versions(tmp_path: Path) -> None:
    folder = tmp_path / "wine"
    for name in ("1", "2", "10", "notes", "assets.extra"):
        (folder / name).mkdir(parents=True)
    (folder / "README").touch()
    assert sorted(numbered_folders(folder)) == [1, 2, 10]
    with running_engine(tmp_path / "data") as (engine, watch):
        entry = engine.load(folder, runtime="fake").future.result(PATIENCE_S)
        assert (entry["id"], entry["version"], entry["versions"]) == ("wine", "10", ["1", "2", "10"])
        assert entry["path"] == str(folder)
        data = {"x": np.ones((1, 4), np.float32)}
        assert engine.predict(PredictRequest("wine", data)).result(PATIENCE_S).version == "10"
        named = engine.predict(PredictRequest("wine", data, version="1")).result(PATIENCE_S)
        assert named.version == "1"
        assert [w["version"] for w in entry_of(engine)["workers"]] == ["10", "1"]
        # Naming yet another ends the one named before it: a caller cannot fill the memory with versions.
        assert engine.predict(PredictRequest("wine", data, version="2")).result(PATIENCE_S).version == "2"
        watch.until(lambda _: len(workers_of_this_process()) == 2)
        with pytest.raises(ModelNotFound, match="wine has no version 11"):
            engine.predict(PredictRequest("wine", data, version="11")).result(PATIENCE_S)
        (folder / "11").mkdir()
        entry = engine.reload("wine").future.result(PATIENCE_S)
        assert (entry["version"], entry["versions"]) == ("11", ["1", "2", "10", "11"])
        assert engine.rollback("wine").result(PATIENCE_S)["version"] == "10"


def test_a_rollback_of_numbered_folders_goes_to_the_number_below(tmp_path: Path) -> None:
    folder = tmp_path / "wine"
    for name in ("1", "3"):
        (folder / name).mkdir(parents=True)
    with running_engine(tmp_path / "data") as (engine, _):
        engine.load(folder, runtime="fake").future.result(PATIENCE_S)
        assert engine.rollback("wine").result(PATIENCE_S)["version"] == "1"


@pytest.mark.parametrize("inside", ["saved_model.pb", "model.keras"])
def test_a_model_with_a_numbered_folder_in_it_is_no_folder_of_versions(tmp_path: Path, inside: str) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / inside).touch()
    assert numbered_folders(tmp_path) == {}


@pytest.mark.parametrize("swaps", [6, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_swaps_under_eight_clients_drop_nothing_and_mix_nothing_up(tmp_path: Path, swaps: int) -> None:
    """Every third load fails. Every answer is the one of the version that it names."""
    model = ChangingModel(tmp_path)
    scales = {"1": 2.0}
    wrong: list[object] = []
    answered = itertools.count()
    over = threading.Event()
    with running_engine(tmp_path / "data", keep_previous_s=0.0) as (engine, watch):
        loaded(engine, model.spec())

        def client(number: int) -> None:
            value = float(number)
            while not over.is_set():
                future: Future[Prediction] = engine.predict(row(value, lane="lan", client=f"c{number}"))
                try:
                    prediction = future.result(PATIENCE_S)
                    assert prediction.outputs is not None
                    expected = [scales[prediction.version] * x for x in (value, 1, 2, 3)]
                    if prediction.outputs["y"].tolist() != [expected]:
                        wrong.append(prediction)
                    next(answered)
                except Exception as error:
                    wrong.append(error)
                    return

        clients = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        for thread in clients:
            thread.start()
        version = 1
        for swap in range(swaps):
            if swap % 3 == 2:
                model.write({"load_crash": True} if swap % 2 else {"load_error": "The weights are blue."})
                with pytest.raises(LoadFailed):
                    engine.reload("fake").future.result(PATIENCE_S)
                continue
            version += 1
            scales[str(version)] = version + 1.0
            model.scales(version + 1.0)
            assert engine.reload("fake").future.result(PATIENCE_S)["version"] == str(version)
        over.set()
        for thread in clients:
            thread.join(PATIENCE_S)
        assert wrong == []
        assert next(answered) > swaps
        entry = entry_of(engine)
        assert (entry["version"], entry["restarts"], entry["waiting"]) == (str(version), 0, 0)
        assert entry["requests"]["network"] == next(answered) - 1
        watch.until(lambda _: [w.pid for w in workers_of_this_process()] == [entry["worker_pid"]])


def test_a_load_stage_is_no_stage_of_the_version_that_answers(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, watch):
        loaded(engine, fake())
        watch.until_state(ModelState.READY)
        stages = watch.stages()
        engine.reload("fake").future.result(PATIENCE_S)
        watch.until_state(ModelState.READY, times=2)
        assert watch.stages() == stages
