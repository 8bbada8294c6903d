"""The line of waiting requests against what is promised of it: a machine that admits, takes, recalls and cancels.

Whatever the order of steps, each request that was let in leaves exactly once, the bounds hold, nobody is passed over,
and what is counted comes back to nothing. The expectations come from the contract ("Lanes and limits"), not from the
code: they are rules over a plain list of what waits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.errors import Busy
from engine.prediction import LANES, Lane
from engine.scheduler import AGED_ONE_IN, BATCH_BYTES, ModelQueue, Waiting
from engine.settings import EngineLimits
from tests.fuzz.budget import for_a_while, quick

MIB = 1 << 20
LEAST_BYTES = MIB
"""What ``waiting_bytes`` may be set to at the least."""
PLACES = st.one_of(st.integers(1, 12), st.just(100))
SHARES = st.sampled_from((0.1, 0.25, 0.5, 0.75, 1.0))
AGES = st.sampled_from((0.5, 2.0, 1e6))
SIZES = st.sampled_from((1,) * 8 + (0, 100_000, MIB // 4, MIB // 2, MIB * 3 // 4, MIB, MIB + 1))
NEWCOMERS = st.tuples(
    st.sampled_from(LANES),
    st.sampled_from("aaabc"),
    st.sampled_from(("", "", "k", "l")),
    SIZES,
    st.sampled_from((0, 0, 0, 1, 2, 7)),
    st.sampled_from((1e4,) * 6 + (0.0, 0.4, 3.0)),
    st.sampled_from((False,) * 7 + (True,)),
)
"""Lane, client, key, bytes, priority, seconds until its deadline, whether it is a suspect."""


@dataclass
class Passed:
    """How often others of a lane went before somebody who waited, since that somebody's own last turn."""

    by: Counter[object] = field(default_factory=Counter)


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.limits = EngineLimits.model_validate({})
        self.queue: ModelQueue[int] = ModelQueue(lambda: self.limits, lambda: self.now)
        self.waiting: dict[str, Waiting[int]] = {}
        self.running: list[list[Waiting[int]]] = []
        self.left: Counter[str] = Counter()
        self.admitted = 0
        self.ahead: list[bool] = []
        self.turns: dict[tuple[Lane, object], Passed] = {}
        """(lane, group) and (lane, (group, client)) of all that wait -> who passed them."""

    # -- steps -----------------------------------------------------------------------------------------------------
    @initialize(places=PLACES, share=SHARES, ageing=AGES)
    def begin(self, places: int, share: float, ageing: float) -> None:
        self.limits = limits(places, LEAST_BYTES, share, ageing)

    @rule(newcomers=st.lists(NEWCOMERS, min_size=1, max_size=10))
    def admit(self, newcomers: list[tuple[Lane, str, str, int, int, float, bool]]) -> None:
        for lane, client, key, size, priority, wait, alone in newcomers:
            self.admitted += 1
            item = Waiting(
                f"r{self.admitted}", lane, client, size, self.now, self.now + wait, self.admitted, alone, priority, key
            )
            if self._has_room(item):
                self.queue.admit(item)
                self._begin_to_wait(item)
                assert len(self.waiting) <= self.limits.waiting_requests
                assert self._bytes() <= self.limits.waiting_bytes
            else:
                with pytest.raises(Busy):
                    self.queue.admit(item)

    @rule(most=st.integers(1, 5))
    def take(self, most: int) -> None:
        """A batch, as the host forms one: the late ones are turned away first."""
        self._expire()
        highest = {lane: [i for i in self.waiting.values() if i.lane is lane] for lane in LANES}
        batch = self.queue.take(most)
        assert bool(batch) == any(highest.values())
        assert len(batch) <= most
        assert len(batch) == 1 or (sum(i.size for i in batch) <= BATCH_BYTES and not any(i.alone for i in batch))
        for item in batch:
            self._check_turn(item)
            del self.waiting[item.id]
            self._tidy(item)
        assert all(item.deadline > self.now for item in batch)
        if batch:
            self.running.append(batch)

    @precondition(lambda self: self.running)
    @rule(lost=st.sampled_from((0, 0, 0, 1, 2)))
    def recall(self, lost: int) -> None:
        """The newest batch comes back unrun; callers of ``lost`` of it have left meanwhile."""
        batch = self.running.pop()
        for item in batch[:lost]:
            self.left[item.id] += 1
        back = batch[lost:]
        self.queue.put_back(back)
        self.waiting |= {item.id: item for item in back}
        # They have their turn once more, before everybody: what was counted until now proves nothing any more.
        self.turns.clear()
        self._see_who_waits()

    @precondition(lambda self: self.running)
    @rule()
    def finish(self) -> None:
        for item in self.running.pop(0):
            self.left[item.id] += 1

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        known = [f"r{n}" for n in range(1, self.admitted + 1)]
        if not known:
            return
        chosen = data.draw(st.sampled_from(known))
        removed = self.queue.remove(chosen)
        assert removed is self.waiting.pop(chosen, None)
        if removed is not None:
            self.left[removed.id] += 1
            self._tidy(removed)

    @rule(seconds=st.sampled_from((0.1, 0.5, 2.0, 5.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self._expire()

    @rule(places=PLACES, share=SHARES, ageing=AGES)
    def change_limits(self, places: int, share: float, ageing: float) -> None:
        """Nobody who has a place loses it."""
        self.limits = limits(places, LEAST_BYTES, share, ageing)

    @rule(chance=st.integers(0, 9))
    def clear(self, chance: int) -> None:
        if chance == 0:
            for item in self.queue.clear():
                assert self.waiting.pop(item.id) is item
                self.left[item.id] += 1
            assert not self.waiting
            self.turns.clear()

    # -- what always holds -----------------------------------------------------------------------------------------
    @invariant()
    def counts_agree(self) -> None:
        assert {item.id for item in self.queue} == set(self.waiting)
        assert len(self.queue) == len(self.waiting)
        assert self.queue.waiting_bytes == self._bytes()
        assert self.queue.next_deadline() == min((i.deadline for i in self.waiting.values()), default=None)
        lanes = [i.lane for i in self.waiting.values()]
        assert self.queue.best_lane() == min(lanes, key=LANES.index, default=None)
        assert all(times == 1 for times in self.left.values())

    @invariant()
    def positions_are_places(self) -> None:
        places = self.queue.positions()
        assert places.keys() == self.waiting.keys()
        assert sorted(places.values()) == list(range(len(places)))

    def teardown(self) -> None:
        """Without newcomers and ageing the rest leaves in the order it was told, and nothing is left behind."""
        self.limits = limits(1, LEAST_BYTES, 1.0, 1e9)
        told = sorted(self.waiting, key=self.queue.positions().__getitem__)
        taken = [item.id for _ in told for item in self.queue.take(1)]
        assert taken == told
        for at, mine in enumerate(taken):
            for later in taken[at + 1 :]:
                self._check_order(self.waiting[mine], self.waiting[later])
        self.left.update(taken)
        self.left.update(item.id for batch in self.running for item in batch)
        assert (len(self.queue), self.queue.waiting_bytes, self.queue.take(1)) == (0, 0, [])
        assert all(times == 1 for times in self.left.values())

    # -- the plain list --------------------------------------------------------------------------------------------
    def _bytes(self, lane: Lane | None = None) -> int:
        return sum(i.size for i in self.waiting.values() if lane in (None, i.lane))

    def _has_room(self, item: Waiting[int]) -> bool:
        allowed = self.limits
        total = len(self.waiting) + 1 <= allowed.waiting_requests and self._bytes() + item.size <= allowed.waiting_bytes
        if item.lane is not Lane.LAN:
            return total
        from_lan = sum(i.lane is Lane.LAN for i in self.waiting.values())
        return (
            total
            and from_lan + 1 <= allowed.waiting_requests * allowed.lan_share
            and self._bytes(Lane.LAN) + item.size <= allowed.waiting_bytes * allowed.lan_share
        )

    def _begin_to_wait(self, item: Waiting[int]) -> None:
        self.waiting[item.id] = item
        self._see_who_waits()

    def _see_who_waits(self) -> None:
        for item in self.waiting.values():
            self.turns.setdefault((item.lane, item.group), Passed())
            self.turns.setdefault((item.lane, (item.group, item.client)), Passed())

    def _tidy(self, gone: Waiting[int]) -> None:
        """Who has nothing waiting any more has no turn to lose."""
        others = [i for i in self.waiting.values() if i.lane is gone.lane and i.group == gone.group]
        if not others:
            self.turns.pop((gone.lane, gone.group), None)
        if not any(i.client == gone.client for i in others):
            self.turns.pop((gone.lane, (gone.group, gone.client)), None)

    def _expire(self) -> None:
        for item in self.queue.expire():
            assert item.deadline <= self.now
            assert self.waiting.pop(item.id) is item
            self.left[item.id] += 1
            self._tidy(item)
        assert all(item.deadline > self.now for item in self.waiting.values())

    def _check_turn(self, item: Waiting[int]) -> None:
        """``item`` is taken now, of all that wait: nobody is passed over by it who should not be."""
        lane_mates = [i for i in self.waiting.values() if i.lane is item.lane and i is not item]
        for other in lane_mates:
            self._check_order(item, other)
        self._count_pass((item.lane, item.group), {(i.lane, i.group) for i in lane_mates})
        equals = {
            (i.lane, (i.group, i.client))
            for i in lane_mates
            if i.group == item.group and item.rank == min(m.rank for m in lane_mates if self._line(m) == self._line(i))
        }
        self._count_pass((item.lane, (item.group, item.client)), equals)

        best = min((i.lane for i in self.waiting.values()), key=LANES.index)
        self.ahead.append(item.lane is not best)
        climbed = LANES.index(item.lane) - LANES.index(best)
        assert self.now - item.admitted_at >= climbed * self.limits.ageing_s, "it went ahead before it had aged"
        assert sum(self.ahead[-AGED_ONE_IN:]) <= 1, "more than one of four went ahead of a higher lane"

    def _check_order(self, first: Waiting[int], then: Waiting[int]) -> None:
        """One caller's requests are answered as they came, those of a better priority first."""
        if (first.lane, self._line(first)) == (then.lane, self._line(then)):
            assert first.payload < then.payload or first.rank < then.rank, f"{then.id} came before {first.id}"

    @staticmethod
    def _line(item: Waiting[int]) -> object:
        return item.group, item.client

    def _count_pass(self, mine: tuple[Lane, object], others: set[tuple[Lane, object]]) -> None:
        self.turns[mine] = Passed()
        for whom in others - {mine}:
            self.turns[whom].by[mine] += 1
            assert self.turns[whom].by[mine] <= 1, f"{mine} went twice while {whom} waited"


def limits(places: int, size: int, share: float, ageing: float) -> EngineLimits:
    return EngineLimits.model_validate(
        {"waiting_requests": places, "waiting_bytes": size, "lan_share": share, "ageing_s": ageing}
    )


STEPS = 50


def test_every_request_leaves_once_and_in_its_turn() -> None:
    run_state_machine_as_test(SchedulerMachine, settings=quick(120, stateful_step_count=STEPS))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_request_leaves_once_and_in_its_turn_for_long() -> None:
    for_a_while(lambda how: run_state_machine_as_test(SchedulerMachine, settings=how), 100, stateful_step_count=80)


@quick(60)
@given(
    st.lists(st.sampled_from([lane for lane in LANES if lane is not Lane.OWNER]), min_size=1, max_size=8),
    st.integers(1, 8),
)
def test_a_flood_of_the_owner_starves_nobody(lanes: list[Lane], batch: int) -> None:
    """Of ``AGED_ONE_IN`` requests taken one is of a lower lane, as soon as it has waited long enough."""
    now = [0.0]
    allowed = limits(1000, 1 << 30, 1.0, 2.0)
    queue: ModelQueue[None] = ModelQueue(lambda: allowed, lambda: now[0])
    for n, lane in enumerate(lanes):
        queue.admit(Waiting(f"low{n}", lane, "a", 1, now[0], 1e9, None))
    now[0] = len(LANES) * allowed.ageing_s
    taken: list[str] = []
    while len(taken) < AGED_ONE_IN * (len(lanes) + 1):
        for n in range(batch):
            queue.admit(Waiting(f"owner{len(taken)}-{n}", Lane.OWNER, "me", 1, now[0], 1e9, None))
        taken += [item.id for item in queue.take(batch)]
    assert sum(name.startswith("low") for name in taken) == len(lanes)


@quick(60)
@given(st.lists(st.integers(0, BATCH_BYTES + 1), min_size=1, max_size=6), st.integers(1, 8))
def test_a_batch_holds_no_more_bytes_than_it_may(sizes: list[int], most: int) -> None:
    allowed = limits(1000, 1 << 40, 1.0, 2.0)
    queue: ModelQueue[None] = ModelQueue(lambda: allowed, lambda: 0.0)
    for n, size in enumerate(sizes):
        queue.admit(Waiting(f"r{n}", Lane.OWNER, "a", size, 0.0, 1.0, None))
    taken = []
    while batch := queue.take(most):
        assert len(batch) == 1 or sum(item.size for item in batch) <= BATCH_BYTES
        taken += [item.id for item in batch]
    assert taken == [f"r{n}" for n in range(len(sizes))]
    assert queue.waiting_bytes == 0


def test_settings_of_both_forms() -> None:
    """The short form is the same every time, the long one another every time."""
    assert quick(3).derandomize
    assert not settings.get_profile("deskside-fuzz-long").derandomize
