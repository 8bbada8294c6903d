"""The engine's part in making a model faster: whether it is tried, what is told of it, and what a death of it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from engine.engine import Engine
from engine.model_spec import ModelSpec, TensorSpec
from engine.settings import Settings, WorkerSettings
from tests.engine.engine_harness import (
    PATIENCE_S,
    Watch,
    assert_answers,
    fake,
    gone,
    loaded,
    quick_settings,
    running_engine,
)

ROWS = (TensorSpec("x", "float32", (-1, 4)),)


def preparable(**options: Any) -> ModelSpec:
    return replace(fake(prepare=True, **options), inputs=ROWS)


def told(engine: Engine) -> dict[str, Any] | None:
    (entry,) = engine.stats()["models"]
    found: dict[str, Any] | None = entry["preparation"]
    return found


def until_told(engine: Engine, watch: Watch, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Snapshots come with every change."""

    def look(_: Any) -> dict[str, Any] | None:
        found = told(engine)
        return found if found is not None and wanted(found) else None

    result: dict[str, Any] = watch.until(look)
    return result


def test_a_model_that_is_ready_is_tried_and_what_came_of_it_is_told(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, watch):
        loaded(engine, preparable())
        found = until_told(engine, watch, lambda t: t["state"] != "running")
        assert (found["state"], found["reason"], found["steps"]) == ("unused", "unknown", [])
        assert_answers(engine, 3)
        assert engine.stats()["models"][0]["keeps_memory"] in (True, False)


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    settings = Settings(worker=WorkerSettings.model_validate({"prepare": False}))
    gate = tmp_path / "gate"  # a run would wait for it for ever
    with Engine(settings, folder=tmp_path / "home") as engine:
        watch = Watch(engine)
        loaded(engine, preparable(gate_file=str(gate)))
        assert until_told(engine, watch, lambda t: True)["state"] == "off"
        gate.touch()
        assert_answers(engine, 3)


def test_a_model_is_unloaded_in_the_middle_of_it(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with running_engine(tmp_path / "home") as (engine, watch):
        entry = loaded(engine, preparable(started_file=str(started), gate_file=str(gate)))
        until_told(engine, watch, lambda t: t["state"] == "running")
        engine.unload("fake").result(PATIENCE_S)
        assert engine.stats()["models"] == []
        psutil.wait_procs([p for p in psutil.Process().children() if p.pid == entry["worker_pid"]], PATIENCE_S)
        assert gone(entry["worker_pid"])


def test_a_process_that_dies_of_it_is_started_again_without(tmp_path: Path) -> None:
    with Engine(quick_settings(), folder=tmp_path) as engine:
        watch = Watch(engine)
        engine.load(preparable(crash_on_value=0.0))
        found = until_told(engine, watch, lambda t: t["state"] != "running")
        assert (found["state"], found["reason"]) == ("unused", "died")
        assert engine.stats()["models"][0]["restarts"] == 1
        assert_answers(engine, 3)


def test_rows_of_one_run_end_where_a_probe_found_that_nothing_is_won(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, watch):
        # Every run takes as long, whatever its rows: the more the better.
        loaded(engine, preparable(delay_s=0.01))
        assert until_told(engine, watch, lambda t: t["state"] != "running")["batch"] is None
        assert engine.stats()["models"][0]["max_batch_size"] == engine.settings.limits.max_batch_size
