"""Admission, lanes, fairness and ageing, with a clock the test moves."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Busy
from engine.prediction import LANES, Lane
from engine.scheduler import AGED_ONE_IN, BATCH_BYTES, ModelQueue, Waiting
from engine.settings import EngineLimits

_ids = itertools.count()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def limits(**changes: object) -> EngineLimits:
    return EngineLimits.model_validate(changes)


def item(clock: Clock, lane: Lane = Lane.OWNER, client: str = "a", size: int = 1, **more: object) -> Waiting[None]:
    values = {"deadline": clock.now + 30.0, "alone": False} | more
    return Waiting(f"i{next(_ids)}", lane, client, size, clock.now, payload=None, **values)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def line(clock: Clock) -> ModelQueue[None]:
    return ModelQueue(EngineLimits, clock)


def lanes_of(batch: list[Waiting[None]]) -> list[str]:
    return [str(i.lane) for i in batch]


def test_higher_lanes_go_first(line: ModelQueue[None], clock: Clock) -> None:
    for lane in reversed(LANES):
        line.admit(item(clock, lane))
    assert lanes_of(line.take(8)) == ["owner", "loopback", "lan", "batch"]
    assert len(line) == 0


def test_clients_of_a_lane_take_turns(line: ModelQueue[None], clock: Clock) -> None:
    for _ in range(10):
        line.admit(item(clock, Lane.LAN, "greedy"))
    line.admit(item(clock, Lane.LAN, "polite"))
    assert [i.client for i in line.take(3)].count("polite") == 1


def test_one_client_keeps_its_order(line: ModelQueue[None], clock: Clock) -> None:
    items = [item(clock, Lane.LAN) for _ in range(5)]
    for i in items:
        line.admit(i)
    assert [i.id for i in line.take(5)] == [i.id for i in items]


def test_the_line_is_bounded_in_requests(clock: Clock) -> None:
    line: ModelQueue[None] = ModelQueue(lambda: limits(waiting_requests=4), clock)
    for _ in range(4):
        line.admit(item(clock))
    with pytest.raises(Busy) as refused:
        line.admit(item(clock))
    assert refused.value.retry_after_s > 0
    line.take(1)
    line.admit(item(clock))


def test_the_line_is_bounded_in_bytes(clock: Clock) -> None:
    line: ModelQueue[None] = ModelQueue(lambda: limits(waiting_bytes=1 << 20), clock)
    line.admit(item(clock, size=1 << 20))
    with pytest.raises(Busy):
        line.admit(item(clock, size=1))


def test_the_network_has_three_quarters_of_the_places(clock: Clock) -> None:
    line: ModelQueue[None] = ModelQueue(lambda: limits(waiting_requests=8), clock)
    for _ in range(6):
        line.admit(item(clock, Lane.LAN))
    with pytest.raises(Busy):
        line.admit(item(clock, Lane.LAN))
    line.admit(item(clock, Lane.LOOPBACK))
    line.admit(item(clock, Lane.OWNER))


def test_old_work_climbs_but_never_starves_the_owner(clock: Clock) -> None:
    line: ModelQueue[None] = ModelQueue(lambda: limits(ageing_s=1.0), clock)
    for _ in range(40):
        line.admit(item(clock, Lane.LAN))
    clock.now += 10.0
    for _ in range(40):
        line.admit(item(clock, Lane.OWNER))
    taken = lanes_of([line.take(1)[0] for _ in range(20)])
    assert taken.count("lan") == 20 // AGED_ONE_IN


def test_waiting_work_of_the_lowest_lane_is_served_under_a_stream_of_the_owners(clock: Clock) -> None:
    line: ModelQueue[None] = ModelQueue(lambda: limits(ageing_s=1.0), clock)
    patient = item(clock, Lane.BATCH)
    line.admit(patient)
    taken: list[str] = []
    for _ in range(60):
        line.admit(item(clock, Lane.OWNER))
        taken += [i.id for i in line.take(1)]
        clock.now += 0.1
    assert patient.id in taken


def test_a_suspect_runs_alone(line: ModelQueue[None], clock: Clock) -> None:
    suspect = item(clock, alone=True)
    for i in (item(clock), suspect, item(clock)):
        line.admit(i)
    assert [len(line.take(8)) for _ in range(3)] == [1, 1, 1]


def test_a_batch_stops_at_its_bytes(line: ModelQueue[None], clock: Clock) -> None:
    for _ in range(3):
        line.admit(item(clock, size=BATCH_BYTES // 2 + 1))
    assert len(line.take(8)) == 1


def test_what_is_late_is_taken_out(line: ModelQueue[None], clock: Clock) -> None:
    late, early = item(clock, deadline=clock.now + 1), item(clock, deadline=clock.now + 9)
    line.admit(late)
    line.admit(early)
    assert line.next_deadline() == clock.now + 1
    clock.now += 2
    assert line.expire() == [late]
    assert line.take(8) == [early]


def test_put_back_keeps_the_order(line: ModelQueue[None], clock: Clock) -> None:
    items = [item(clock, Lane.LAN, client) for client in ("a", "a", "b", "a")]
    for i in items:
        line.admit(i)
    taken = line.take(3)
    line.put_back(taken)
    assert line.take(3) == taken
    assert len(line) == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["admit", "take", "remove", "back", "expire", "later"]), st.integers(0, 3))))
def test_nothing_is_lost_doubled_or_miscounted(steps: list[tuple[str, int]]) -> None:
    """The line against a plain set of ids: every item comes out exactly once, whatever the order of the steps."""
    clock = Clock()
    line: ModelQueue[None] = ModelQueue(lambda: limits(waiting_requests=16), clock)
    inside: dict[str, Waiting[None]] = {}
    out: list[Waiting[None]] = []
    for step, n in steps:
        if step == "admit":
            new = item(clock, LANES[n], f"c{n % 2}", size=n)
            try:
                line.admit(new)
            except Busy:
                assert len(inside) >= 12
            else:
                inside[new.id] = new
        elif step == "take":
            out = line.take(n + 1)
            for taken in out:
                assert inside.pop(taken.id) is taken
        elif step == "back":
            line.put_back(out)
            inside |= {i.id: i for i in out}
            out = []
        elif step == "remove" and inside:
            victim = next(iter(inside))
            assert line.remove(victim) is inside.pop(victim)
            assert line.remove(victim) is None
        elif step == "expire":
            for gone in line.expire():
                assert gone.deadline <= clock.now
                del inside[gone.id]
        else:
            clock.now += 12.0 * n
        assert len(line) == len(inside)
        assert line.waiting_bytes == sum(i.size for i in inside.values())
    assert {i.id for i in line.clear()} == set(inside)
    assert line.best_lane() is None


def test_a_priority_orders_one_clients_requests_and_nobody_elses(line: ModelQueue[None], clock: Clock) -> None:
    for client in ("a", "b"):
        line.admit(item(clock, Lane.LAN, client))
    for priority in (5, 1, 3, 1):
        line.admit(item(clock, Lane.LAN, "b", priority=priority))
    taken = [(i.client, i.priority) for i in line.take(8)]
    assert taken == [("a", 0), ("b", 1), ("b", 1), ("b", 3), ("b", 5), ("b", 0)]


def test_keys_take_turns_and_the_callers_of_one_key_among_themselves(line: ModelQueue[None], clock: Clock) -> None:
    for client in ("a", "a", "a", "b"):
        line.admit(item(clock, Lane.LAN, client, key="class"))
    for _ in range(2):
        line.admit(item(clock, Lane.LAN, "a", key="clinic"))  # the same address with another key
    line.admit(item(clock, Lane.LAN, "c"))
    places = line.positions()
    taken = line.take(8)
    assert [(i.key, i.client) for i in taken] == [
        ("class", "a"), ("clinic", "a"), ("", "c"), ("class", "b"), ("clinic", "a"), ("class", "a"), ("class", "a"),
    ]  # fmt: skip
    assert [places[i.id] for i in taken] == list(range(7))


def test_positions_change_nothing(line: ModelQueue[None], clock: Clock) -> None:
    for lane in (Lane.LAN, Lane.OWNER, Lane.LAN):
        line.admit(item(clock, lane))
    assert sorted(line.positions().values()) == [0, 1, 2]
    assert lanes_of(line.take(8)) == ["owner", "lan", "lan"]


def test_a_priority_holds_among_all_callers_of_one_key(line: ModelQueue[None], clock: Clock) -> None:
    line.admit(item(clock, Lane.LAN, "a", key="class"))
    line.admit(item(clock, Lane.LAN, "b", key="class", priority=1))
    assert [i.client for i in line.take(8)] == ["b", "a"]


def test_new_limits_hold_at_once_and_drop_nobody_who_waits(clock: Clock) -> None:
    now = limits(waiting_requests=8, lan_share=1.0)
    line: ModelQueue[None] = ModelQueue(lambda: now, clock)
    for _ in range(6):
        line.admit(item(clock, Lane.LAN))
    now = limits(waiting_requests=8, lan_share=0.5)
    with pytest.raises(Busy, match="share"):
        line.admit(item(clock, Lane.LAN))
    line.admit(item(clock, Lane.OWNER))
    now = limits(waiting_requests=2)
    with pytest.raises(Busy, match="Too many"):
        line.admit(item(clock, Lane.OWNER))
    assert len(line.take(100)) == 7
    line.admit(item(clock, Lane.OWNER))
