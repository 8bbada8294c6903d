"""Inputs that were in flight when a worker died: run alone next, and kept out once they did it again.

Inputs are known by their content hash, which is only asked for where it decides something: of a picture as plain
numbers it takes longer than all else this process does for it. Bounded: the oldest are forgotten.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque
from typing import Protocol

_KEPT = 4096
_CHEAP = 1 << 16
"""Bytes of an input whose hash costs next to nothing."""


class Input(Protocol):
    """What is asked of a model: ``size`` in bytes; ``content_hash`` is made when it is asked for first."""

    @property
    def size(self) -> int: ...

    @property
    def content_hash(self) -> bytes: ...


class Suspects:
    """Not thread-safe: its owner holds a lock.

    Of a large input it is known that it was answered while it is at hand elsewhere; of a small one for longer.
    """

    def __init__(self) -> None:
        self._suspects: OrderedDict[bytes, None] = OrderedDict()
        self._quarantined: OrderedDict[bytes, None] = OrderedDict()
        self._answered: OrderedDict[bytes, None] = OrderedDict()
        self._answered_at_hand: deque[weakref.ref[Input]] = deque(maxlen=_KEPT)

    def is_suspect(self, asked: Input) -> bool:
        return bool(self._suspects) and asked.content_hash in self._suspects

    def is_quarantined(self, asked: Input) -> bool:
        return bool(self._quarantined) and asked.content_hash in self._quarantined

    def answered(self, asked: Input) -> None:
        """The worker lived through this input: it is cleared."""
        if self._suspects:
            self._suspects.pop(asked.content_hash, None)
        if asked.size <= _CHEAP:
            _remember(self._answered, asked.content_hash)
        else:
            self._answered_at_hand.append(weakref.ref(asked))

    def died_with(self, asked: Input, *, alone: bool, outside: bool) -> None:
        """The worker died with this input in flight; ``alone``: with nothing else, as a suspect's second chance.

        ``outside``: by a signal from outside, which says nothing about an input that was answered before.
        """
        content_hash = asked.content_hash
        if alone and not (outside and self._was_answered(content_hash)):
            self._suspects.pop(content_hash, None)
            _remember(self._quarantined, content_hash)
        else:
            _remember(self._suspects, content_hash)

    def _was_answered(self, content_hash: bytes) -> bool:
        if content_hash in self._answered:
            return True
        at_hand = (reference() for reference in self._answered_at_hand)
        return any(asked is not None and asked.content_hash == content_hash for asked in at_hand)


def _remember(table: OrderedDict[bytes, None], key: bytes) -> None:
    table[key] = None
    table.move_to_end(key)
    while len(table) > _KEPT:
        table.popitem(last=False)
