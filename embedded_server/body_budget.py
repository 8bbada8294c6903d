"""How much memory the bodies of all requests may have together, from their heads until their answers."""

from __future__ import annotations

import logging
import threading

import psutil

log = logging.getLogger(__name__)

SHARE_OF_FREE = 0.5
"""Of the memory that is free when the server starts, the most that bodies get."""


class BodyBudget:
    """``limit`` bytes, taken and given back. Thread-safe.

    The worst case without it is every connection with the largest body: 16 GiB with the default limits.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._used = 0

    @property
    def used(self) -> int:
        return self._used

    def take(self, size: int) -> bool:
        """Whether ``size`` bytes were left; they are taken then."""
        with self._lock:
            if self._used + size > self.limit:
                return False
            self._used += size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self._used -= size


def affordable(wanted: int, largest_body: int, free: int | None = None) -> int:
    """Bytes for bodies on this computer: ``wanted``, less where so much is not free, and one body at least.

    ``free`` are bytes of memory that programs can still have; None asks the system.
    """
    free = psutil.virtual_memory().available if free is None else free
    most = max(int(free * SHARE_OF_FREE), largest_body)
    if most >= wanted:
        return wanted
    log.warning("requests may hold %d MB in all: no more memory is free", most // 1_000_000)
    return most
