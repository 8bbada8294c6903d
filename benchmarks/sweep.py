"""The sweep: which of its settings suits a peer best on this machine, kept in ``.bench/sweep.json``.

It holds as long as the machine, the peers' versions and their programs here stay the same; ``SWEEP=1`` makes it anew.
Each answer is written at once, so that an interrupted sweep goes on where it ended.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import machine
from benchmarks.environments import REQUIREMENTS
from benchmarks.models import BENCH
from benchmarks.servers import Server, Settings

PATH = BENCH / "sweep.json"
SHARE = 0.5
"""Of the best peer: those below in the sweep are not asked again in the rounds."""

Measure = Callable[[Server, Settings], float | None]
"""Answers a second, or None where it did not start or answered wrongly (which is not kept: it is tried again)."""


def key() -> str:
    """What a sweep holds for: the machine, the peers' versions, and their programs."""
    programs = hashlib.sha256()
    for path in sorted((*REQUIREMENTS.glob("*.txt"), *REQUIREMENTS.parent.glob("*.py"))):
        programs.update(path.name.encode() + path.read_bytes())
    return f"{machine.describe()} {programs.hexdigest()[:16]}"


def label(peer: Server, way: Settings) -> str:
    return peer.name + (", prepared model" if way.prepared else "")


class Sweep:
    def __init__(self, path: Path = PATH, holds_for: str | None = None, anew: Iterable[str] = ()) -> None:
        self._path = path
        self._key = key() if holds_for is None else holds_for
        self._rates: dict[str, dict[str, dict[str, float]]] = {}  # model, label, settings
        self._when: dict[str, str] = {}  # model
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["key"] == self._key:
                self._rates, self._when = found["rates"], found["when"]
        for model in anew:
            self._rates.pop(model, None)

    def when(self, model: str) -> str:
        return self._when.get(model, "")

    def has(self, model: str, peer: Server, way: Settings) -> bool:
        return way.name in self._rates.get(model, {}).get(label(peer, way), {})

    def rates(self, model: str) -> list[tuple[str, str, float]]:
        """Peer, settings, answers a second."""
        return [(who, way, rate) for who, ways in self._rates.get(model, {}).items() for way, rate in ways.items()]

    def best(
        self, model: str, peer: Server, ways: tuple[Settings, ...], measure: Measure
    ) -> tuple[Settings, float] | None:
        """The fastest way and its rate, measured where it is not known yet; None: none of them answered."""
        for way in ways:
            if not self.has(model, peer, way) and (rate := measure(peer, way)) is not None:
                self._rates.setdefault(model, {}).setdefault(label(peer, way), {})[way.name] = rate
                self._when[model] = datetime.datetime.now().isoformat(" ", "minutes") + f", {machine.commit()}"
                self._write()
        known = self._rates.get(model, {}).get(label(peer, ways[0]), {}) if ways else {}
        found = [(known[way.name], number) for number, way in enumerate(ways) if way.name in known]
        if not found:
            return None
        rate, number = max(found, key=lambda one: (one[0], -one[1]))
        return ways[number], rate

    def ways(self, model: str, peer: Server, after: str = "") -> tuple[Settings, ...]:
        """What is worth a try; of a peer that was swept with the model ``after``: as documented, and what won there."""
        every = peer.ways(model)
        known = [way for way in every if after and self.has(after, peer, way)]
        if len(known) < len(every):
            return every
        rates = self._rates[after][peer.name]
        won = max(known, key=lambda way: rates[way.name])
        return (won,) if won is every[0] else (every[0], won)

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        waiting = self._path.with_suffix(".new")
        text = json.dumps({"key": self._key, "when": self._when, "rates": self._rates}, indent=1)
        waiting.write_text(text, encoding="utf-8")
        waiting.replace(self._path)


def left_out(rates: dict[str, float]) -> dict[str, str]:
    """Of each peer's best rate: who is too slow for the rounds, and why in words."""
    if not rates:
        return {}
    best = max(rates, key=rates.__getitem__)
    return {
        name: f"{rate:.0f}/s at best in the sweep, below half of the {rates[best]:.0f}/s of {best}"
        for name, rate in rates.items()
        if rate < SHARE * rates[best]
    }
