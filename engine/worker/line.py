"""The decoded batches in their order, and which of the executing threads may take the next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Line(Generic[Batch]):
    """Threads are numbered from 0; those below ``streams`` take batches, at first number 0 alone.

    ``may_share`` says of a batch whether others may run beside it. Of those that it refuses one runs at a time: the
    next one waits in line, and with it whoever came later, so that nobody is overtaken and none counts as started that
    would only wait for its turn. Those that ``is_dropped`` names are in nobody's way.
    """

    def __init__(self, may_share: Callable[[Batch], bool], is_dropped: Callable[[Batch], bool]) -> None:
        self._may_share = may_share
        self._is_dropped = is_dropped
        self._changed = threading.Condition()
        self._waiting: deque[Batch] = deque()
        self._unshared = 0
        self._streams = 1

    @property
    def streams(self) -> int:
        return self._streams

    @streams.setter
    def streams(self, streams: int) -> None:
        with self._changed:
            self._streams = streams
            self._changed.notify_all()

    @property
    def has_room(self) -> bool:
        """Whether :meth:`put` would not wait. Only who puts can change that to the worse."""
        return len(self._waiting) < self._streams

    def look_again(self) -> None:
        """One of those that wait may have been dropped."""
        with self._changed:
            self._changed.notify_all()

    def put(self, batch: Batch) -> None:
        """Add one; waits while there is one for each stream already: decoding is no use far ahead of running."""
        with self._changed:
            while len(self._waiting) >= self._streams:
                self._changed.wait()
            self._waiting.append(batch)
            self._changed.notify_all()

    def take(self, number: int) -> tuple[Batch, Callable[[], None]] | None:
        """The next batch for thread ``number``, and what to call once it has run; None where that thread is to end."""
        with self._changed:
            while number < self._streams:
                while self._waiting and self._is_dropped(self._waiting[0]):
                    self._waiting.popleft()
                    self._changed.notify_all()
                if self._waiting:
                    is_shared = self._may_share(self._waiting[0])
                    if is_shared or not self._unshared:
                        self._unshared += not is_shared
                        batch = self._waiting.popleft()
                        self._changed.notify_all()
                        return batch, _nothing if is_shared else self._unshared_has_run
                self._changed.wait()
            return None

    def _unshared_has_run(self) -> None:
        with self._changed:
            self._unshared -= 1
            self._changed.notify_all()


def _nothing() -> None:
    pass
