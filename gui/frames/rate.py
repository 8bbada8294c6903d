"""How often something happened lately: events over the seconds they took."""

from __future__ import annotations

from collections import deque

WINDOW_S = 3.0


class Rate:
    """Counts of the last seconds. ``add(now, total)``: by ``now`` (seconds) it had happened ``total`` times."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def clear(self) -> None:
        self._seen.clear()

    def add(self, now: float, total: int) -> None:
        self._seen.append((now, total))

    def per_second(self, now: float) -> float | None:
        """None until it has happened twice; 0 where nothing did for a while."""
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        if len(self._seen) < 2:
            return None
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        usual = (last - first) / (len(self._seen) - 1)
        if now - last > max(WINDOW_S, 2 * usual):
            return 0.0
        return (after - before) / (last - first) if last > first else None


def rate_words(value: float) -> str:
    """``12``, ``0.4``; at most one digit after the point, and none where it says nothing."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")
