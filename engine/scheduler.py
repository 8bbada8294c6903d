"""Which waiting request goes next: bounded admission, lanes, fair sharing, deadlines. Pure logic, no threads.

Order: lanes from owner to batch; within a lane keys take turns (a client without a key is one by itself), within a key
its clients, each with its requests in their order. A priority orders the requests of one key among themselves and lifts
no key above another.
Ageing: a request climbs one lane for every ``ageing_s`` it has waited, so that none starves; of every
``AGED_ONE_IN`` requests taken at most one goes ahead of a higher lane that way, so that a flood from the network, all
of it old, never overtakes the owner.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engine.errors import Busy
from engine.prediction import LANES, Lane
from engine.settings import EngineLimits

AGED_ONE_IN = 4
BATCH_BYTES = 64 << 20
"""A batch stops growing at this many bytes of input: the worker holds as many as it runs at once, and one more."""

Payload = TypeVar("Payload")


@dataclass(slots=True, eq=False)
class Waiting(Generic[Payload]):
    """One request in line. Times are the clock's seconds; ``alone`` asks for a batch of its own (a suspect)."""

    id: str
    lane: Lane
    client: str
    size: int
    admitted_at: float
    deadline: float
    payload: Payload
    alone: bool = False
    priority: int = 0
    """1 is the first; 0, where none was stated, comes after all."""
    key: str = ""
    """The name of the caller's key, "" for none."""

    @property
    def rank(self) -> float:
        return self.priority or float("inf")

    @property
    def group(self) -> tuple[str, str]:
        """Who shares with the others of the lane: a key, or a client without one."""
        return ("key", self.key) if self.key else ("client", self.client)


_Lines = OrderedDict[str, deque[Waiting[Payload]]]


@dataclass(slots=True)
class _LaneQueue(Generic[Payload]):
    """The groups of one lane, and the clients of each, in the order of their turns."""

    groups: OrderedDict[tuple[str, str], _Lines[Payload]] = field(default_factory=OrderedDict)

    def append(self, item: Waiting[Payload]) -> None:
        line = self.groups.setdefault(item.group, OrderedDict()).setdefault(item.client, deque())
        at = len(line)
        while at and line[at - 1].rank > item.rank:
            at -= 1
        line.insert(at, item)

    def put_back(self, item: Waiting[Payload]) -> None:
        lines = self.groups.setdefault(item.group, OrderedDict())
        lines.setdefault(item.client, deque()).appendleft(item)
        lines.move_to_end(item.client, last=False)
        self.groups.move_to_end(item.group, last=False)

    def head(self) -> Waiting[Payload] | None:
        """Of the group whose turn it is, the client whose request has the best priority, the next one in turn."""
        for lines in self.groups.values():
            if len(lines) == 1:
                return next(iter(lines.values()))[0]
            return min((line[0] for line in lines.values()), key=lambda item: item.rank)
        return None

    def pop(self) -> Waiting[Payload]:
        item = self.head()
        assert item is not None
        lines = self.groups[item.group]
        lines[item.client].popleft()
        self._tidy(item)
        if item.group in self.groups:
            self.groups.move_to_end(item.group)
            if item.client in lines:
                lines.move_to_end(item.client)
        return item

    def remove(self, item: Waiting[Payload]) -> None:
        self.groups[item.group][item.client].remove(item)
        self._tidy(item)

    def _tidy(self, item: Waiting[Payload]) -> None:
        lines = self.groups[item.group]
        if not lines[item.client]:
            del lines[item.client]
        if not lines:
            del self.groups[item.group]

    def in_order(self) -> Iterator[Waiting[Payload]]:
        """As they would be taken, if nobody came any more."""
        copy = _LaneQueue(
            OrderedDict(
                (group, OrderedDict((client, deque(line)) for client, line in lines.items()))
                for group, lines in self.groups.items()
            )
        )
        while copy.groups:
            yield copy.pop()


class ModelQueue(Generic[Payload]):
    """The requests that wait for one model. Not thread-safe: its owner holds a lock.

    ``limits`` are asked each time, so that others hold at once; who has a place keeps it in a line made shorter.
    """

    def __init__(self, limits: Callable[[], EngineLimits], clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._lanes: dict[Lane, _LaneQueue[Payload]] = {lane: _LaneQueue() for lane in LANES}
        self._items: dict[str, Waiting[Payload]] = {}
        self._bytes = dict.fromkeys(LANES, 0)
        self._counts = dict.fromkeys(LANES, 0)
        self.waiting_bytes = 0
        self._since_aged = AGED_ONE_IN

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Waiting[Payload]]:
        return iter(list(self._items.values()))

    def positions(self) -> dict[str, int]:
        """How many are before each waiting request, by its id, if nobody came any more and none aged."""
        ordered = (item for lane in LANES for item in self._lanes[lane].in_order())
        return {item.id: place for place, item in enumerate(ordered)}

    def admit(self, item: Waiting[Payload]) -> None:
        """Put ``item`` in line. Raises Busy where the line, or the network's share of it, is full."""
        limits = self._limits()
        if len(self._items) >= limits.waiting_requests or self.waiting_bytes + item.size > limits.waiting_bytes:
            raise Busy("Too many requests are waiting for this model. Try again in a moment.")
        if item.lane is Lane.LAN and (
            self._counts[Lane.LAN] >= int(limits.waiting_requests * limits.lan_share)
            or self._bytes[Lane.LAN] + item.size > int(limits.waiting_bytes * limits.lan_share)
        ):
            raise Busy("The network's share of waiting requests is used up. Try again in a moment.")
        self._lanes[item.lane].append(item)
        self._count(item, 1)

    def put_back(self, items: Iterable[Waiting[Payload]]) -> None:
        """Return items that were taken but not run, to the front and in their order, whatever the bounds say."""
        for item in reversed(list(items)):
            self._lanes[item.lane].put_back(item)
            self._count(item, 1)

    def remove(self, item_id: str) -> Waiting[Payload] | None:
        """Take one item out of the line (its caller left); None where it is not waiting."""
        item = self._items.get(item_id)
        if item is not None:
            self._lanes[item.lane].remove(item)
            self._count(item, -1)
        return item

    def clear(self) -> list[Waiting[Payload]]:
        """Take everything out, in no particular order."""
        items = list(self._items.values())
        for item in items:
            self.remove(item.id)
        return items

    def expire(self) -> list[Waiting[Payload]]:
        """Take out every item whose deadline has passed."""
        now = self._clock()
        late = [item for item in self._items.values() if item.deadline <= now]
        for item in late:
            self.remove(item.id)
        return late

    def next_deadline(self) -> float | None:
        return min((item.deadline for item in self._items.values()), default=None)

    def best_lane(self) -> Lane | None:
        """The highest lane in which something waits."""
        for lane in LANES:
            if self._counts[lane]:
                return lane
        return None

    def take(self, max_items: int) -> list[Waiting[Payload]]:
        """The next batch: at most ``max_items``, a suspect always by itself. Empty when nothing waits."""
        batch: list[Waiting[Payload]] = []
        size = 0
        while len(batch) < max_items:
            lane = self._next_lane()
            if lane is None:
                break
            head = self._lanes[lane].head()
            assert head is not None
            if batch and (head.alone or size + head.size > BATCH_BYTES):
                break
            item = self._lanes[lane].pop()
            self._count(item, -1)
            self._since_aged = 0 if lane is not self.best_lane_with(item) else self._since_aged + 1
            batch.append(item)
            size += item.size
            if item.alone:
                break
        return batch

    def best_lane_with(self, item: Waiting[Payload]) -> Lane:
        """The highest lane in which something waits, counting ``item`` as waiting still."""
        best = self.best_lane()
        return item.lane if best is None or LANES.index(item.lane) < LANES.index(best) else best

    def _next_lane(self) -> Lane | None:
        best = self.best_lane()
        if best is None or self._since_aged < AGED_ONE_IN - 1 or self._counts[best] == len(self._items):
            return best
        now, ageing_s = self._clock(), self._limits().ageing_s
        choice, choice_key = best, (LANES.index(best), float("inf"))
        for index, lane in enumerate(LANES):
            head = self._lanes[lane].head()
            if head is None:
                continue
            rank = max(0, index - int((now - head.admitted_at) / ageing_s))
            if (rank, head.admitted_at) < choice_key:
                choice, choice_key = lane, (rank, head.admitted_at)
        return choice

    def _count(self, item: Waiting[Payload], by: int) -> None:
        if by > 0:
            self._items[item.id] = item
        else:
            del self._items[item.id]
        self._counts[item.lane] += by
        self._bytes[item.lane] += by * item.size
        self.waiting_bytes += by * item.size
