"""New limits for an engine that runs: they hold at once, drop nobody, and the newest wins."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.errors import Busy, EngineLost
from engine.memory import Policy
from engine.remote import EngineClient
from engine.remote_values import pack, unpack
from engine.settings import EngineLimits
from tests.engine.engine_harness import PATIENCE_S, fake, limit, loaded, quick_settings, row, running_engine
from tests.engine.test_memory import entry
from tests.engine.test_shared_engine import hosts, until


def test_a_shorter_line_drops_no_question_that_has_its_place(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with running_engine(tmp_path / "data", max_batch_size=1) as (engine, _):
        loaded(engine, fake(started_file=str(started), gate_file=str(gate)))
        placed = [engine.predict(row(float(n))) for n in range(8)]
        until(started.exists, "the model computes")
        limit(engine, waiting_requests=1)
        with pytest.raises(Busy):
            engine.predict(row(99.0)).result(PATIENCE_S)
        gate.touch()
        for n, future in enumerate(placed):
            outputs = future.result(PATIENCE_S).outputs
            assert outputs is not None
            assert outputs["y"][0, 0] == 2 * n
        assert engine.predict(row(1.0)).result(PATIENCE_S)


def test_a_longer_line_and_another_share_of_the_network_take_more_at_once(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with running_engine(tmp_path / "data", max_batch_size=1, waiting_requests=2, lan_share=0.5) as (engine, _):
        loaded(engine, fake(started_file=str(started), gate_file=str(gate)))
        placed = [engine.predict(row(float(n), lane="lan")) for n in range(3)]
        until(started.exists, "the model computes")
        with pytest.raises(Busy, match="share"):
            engine.predict(row(9.0, lane="lan")).result(PATIENCE_S)
        limit(engine, lan_share=1.0)
        placed.append(engine.predict(row(9.0, lane="lan")))
        with pytest.raises(Busy, match="Too many"):
            engine.predict(row(9.0, lane="lan")).result(PATIENCE_S)
        limit(engine, waiting_requests=3)
        placed.append(engine.predict(row(9.0, lane="lan")))
        gate.touch()
        for future in placed:
            assert future.result(PATIENCE_S)


@pytest.mark.parametrize(("before", "after", "runs"), [(1, 8, 1), (8, 2, 4)])
def test_so_many_are_asked_together_from_the_next_run_on(tmp_path: Path, before: int, after: int, runs: int) -> None:
    """Two run or are laid out already as the limit changes; the eight behind them are asked as it says now."""
    started, gate = tmp_path / "started", tmp_path / "gate"
    with running_engine(tmp_path / "data", max_batch_size=before) as (engine, _):
        loaded(engine, fake(started_file=str(started), gate_file=str(gate)))
        first = [engine.predict(row(float(n))) for n in range(2)]
        until(started.exists, "the model computes")
        until(lambda: entry(engine)["running"] == 2, "the next is laid out")
        behind = [engine.predict(row(float(n))) for n in range(8)]
        limit(engine, max_batch_size=after)
        assert entry(engine)["max_batch_size"] == after
        gate.touch()
        for future in (*first, *behind):
            assert future.result(PATIENCE_S)
        assert entry(engine)["inferences"] == 2 + runs


def test_a_limit_set_while_a_model_loads_holds_for_it(tmp_path: Path) -> None:
    with running_engine(tmp_path, max_batch_size=2) as (engine, watch):
        ticket = engine.load(fake(load_s=1.0))
        watch.until(lambda _: "reading weights" in watch.stages())
        limit(engine, max_batch_size=16)
        assert ticket.future.result(PATIENCE_S)["max_batch_size"] == 16
        futures = [engine.predict(row(float(n))) for n in range(6)]
        for future in futures:
            assert future.result(PATIENCE_S)


def test_what_memory_was_found_to_allow_stays_under_a_higher_limit(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake(oom_above_rows=3))
        for future in [engine.predict(row(float(n))) for n in range(8)]:
            assert future.result(PATIENCE_S)
        learnt = entry(engine)["max_batch_size"]
        assert isinstance(learnt, int)
        assert learnt <= 3
        limit(engine, max_batch_size=64)
        assert entry(engine)["max_batch_size"] == learnt


def test_of_two_changes_at_once_all_parts_are_of_the_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is held up halfway: the second waits for it, and they do not end up mixed."""
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        halfway, go_on = threading.Event(), threading.Event()
        set_policy = engine._memory.set_policy

        def slow_at_first(policy: Policy) -> None:
            if not halfway.is_set():
                halfway.set()
                assert go_on.wait(PATIENCE_S)
            set_policy(policy)

        monkeypatch.setattr(engine._memory, "set_policy", slow_at_first)
        threads = [
            threading.Thread(target=limit, args=(engine,), kwargs={"max_batch_size": n, "memory_budget_mb": n * 1000})
            for n in (20, 30)
        ]
        threads[0].start()
        assert halfway.wait(PATIENCE_S)
        threads[1].start()
        # Where nothing kept it back, it would be over now, and the first would end later.
        threads[1].join(0.3)
        go_on.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert entry(engine)["max_batch_size"] == 30
        assert engine.stats()["memory"]["budget"] == 30_000_000_000


def test_limits_cross_to_another_process() -> None:
    limits = EngineLimits(waiting_requests=7, hang_after_s=float("inf"))  # type: ignore[call-arg]
    packed, buffers = pack(limits)
    assert unpack(packed, iter(buffers)) == limits


def test_a_host_started_later_begins_with_the_limits_last_set(tmp_path: Path) -> None:
    with EngineClient(tmp_path, quick_settings(), idle_s=0.5) as client:
        client.limit(client.settings.limits.model_copy(update={"memory_budget_mb": 7_000}))
        (host,) = hosts(tmp_path)
        host.kill()
        until(lambda: not host.is_running(), "it has ended")
        until(lambda: _budget(client) == 7_000_000_000, "another has the budget")
        assert hosts(tmp_path) != [host]


def _budget(client: EngineClient) -> int | None:
    try:
        budget: int | None = client.stats()["memory"]["budget"]
    except EngineLost:
        return None
    return budget
