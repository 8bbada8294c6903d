"""Inputs that were in flight when a worker died: run alone next, and kept out once they did it again.

Inputs are known by their content hash. Bounded: the oldest are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict

_KEPT = 4096


class Suspects:
    """Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._suspects: OrderedDict[bytes, None] = OrderedDict()
        self._quarantined: OrderedDict[bytes, None] = OrderedDict()
        self._answered: OrderedDict[bytes, None] = OrderedDict()

    def is_suspect(self, content_hash: bytes) -> bool:
        return content_hash in self._suspects

    def is_quarantined(self, content_hash: bytes) -> bool:
        return content_hash in self._quarantined

    def answered(self, content_hash: bytes) -> None:
        """The worker lived through this input: it is cleared."""
        self._suspects.pop(content_hash, None)
        _remember(self._answered, content_hash)

    def died_with(self, content_hash: bytes, *, alone: bool, outside: bool) -> None:
        """The worker died with this input in flight; ``alone``: with nothing else, as a suspect's second chance.

        ``outside``: by a signal from outside, which says nothing about an input that was answered before.
        """
        if alone and not (outside and content_hash in self._answered):
            self._suspects.pop(content_hash, None)
            _remember(self._quarantined, content_hash)
        else:
            _remember(self._suspects, content_hash)


def _remember(table: OrderedDict[bytes, None], key: bytes) -> None:
    table[key] = None
    table.move_to_end(key)
    while len(table) > _KEPT:
        table.popitem(last=False)
