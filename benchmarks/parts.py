"""What a run leaves behind: one file a part under ``.bench/results``, so that a report is composed of several runs'.

A part knows when, of which commit and on which machine it was taken, and how busy that was. ``QUICK=1`` has a folder of
its own, so that a short try never takes the place of a measurement.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import machine
from benchmarks.load import Outcome
from benchmarks.models import BENCH

NAMES = ("generator", "s", "m", "l", "keras", "engine", "window", "footprint", "load", "profile")
"""Every part, in the order in which they run."""
RESULTS = BENCH / "results"


class Mixed(Exception):
    """Parts that must not stand in one report."""


def kind() -> str:
    return "quick" if os.environ.get("QUICK") else "full" if os.environ.get("FULL") else "standard"


@dataclass
class Part:
    """``rates`` are answers a second by cell, by who answered and by round; ``figures`` whatever else was measured."""

    name: str
    kind: str = "standard"
    when: str = ""
    took_s: float = 0.0
    commit: str = ""
    machine: str = ""
    rounds: int = 0
    seconds: float = 0.0  # of a cell
    busy: list[float] = field(
        default_factory=list
    )  # percent of all cores that others took: before it, before each round, after
    rates: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    details: dict[str, dict[str, Outcome]] = field(default_factory=dict)  # of the last round
    memory_mb: dict[str, float] = field(default_factory=dict)
    sweep: list[tuple[str, str, float]] = field(default_factory=list)  # peer, settings, rate
    swept: str = ""  # when
    chosen: dict[str, str] = field(default_factory=dict)  # a peer's settings in the rounds
    left_out: dict[str, str] = field(default_factory=dict)  # of the rounds, for what the sweep found
    not_run: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    answers: int = 0  # of Deskside, checked
    failed_answers: int = 0  # of Deskside
    figures: dict[str, float] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)  # lines of Markdown, as the part's own program wrote them

    def add(self, cell: str, contestant: str, number: int, rate: float) -> None:
        self.rates.setdefault(cell, {}).setdefault(contestant, {})[number] = rate

    @property
    def is_busy(self) -> bool:
        return machine.is_busy(self.busy)

    def ratio(self, cell: str, ours: str, others: Callable[[str], bool], theirs: str = "") -> tuple[float, str] | None:
        """Ours over the best of others, within each round; ``theirs``: their cell where it is another one."""
        mine = self.rates.get(cell, {}).get(ours, {})
        found = self.rates.get(theirs or cell, {})
        peers = {name: rates for name, rates in found.items() if others(name) and mine.keys() & rates.keys()}
        if not peers:
            return None
        best = max(peers, key=lambda name: statistics.median(peers[name].values()))
        ratios = [mine[number] / peers[best][number] for number in sorted(mine.keys() & peers[best].keys())]
        against = f"{statistics.median(peers[best].values()):.0f}/s of {best}"
        rates = f"{statistics.median(mine.values()):.0f}/s against {against}"
        return statistics.median(ratios), f"{rates}; rounds {min(ratios):.2f} to {max(ratios):.2f}"


class Taking:
    """A part while it is measured; ``write`` keeps it."""

    def __init__(self, name: str, rounds: int = 0, seconds: float = 0.0) -> None:
        now = datetime.datetime.now().isoformat(" ", "minutes")
        self.began = time.monotonic()
        self.part = Part(
            name, kind(), now, 0.0, machine.commit(), machine.describe(), rounds, seconds, [machine.taken_by_others()]
        )

    def write(self) -> Path:
        self.part.took_s = time.monotonic() - self.began
        self.part.busy.append(machine.taken_by_others())
        return write(self.part)


def folder(of_kind: str) -> Path:
    return RESULTS / "quick" if of_kind == "quick" else RESULTS


def write(part: Part) -> Path:
    path = folder(part.kind) / f"{part.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_suffix(".new")
    waiting.write_text(json.dumps(asdict(part), indent=1), encoding="utf-8")
    waiting.replace(path)
    return path


def read(path: Path) -> Part:
    found = json.loads(path.read_text(encoding="utf-8"))
    found["rates"] = {
        cell: {who: {int(number): rate for number, rate in rates.items()} for who, rates in each.items()}
        for cell, each in found["rates"].items()
    }
    found["details"] = {
        cell: {who: Outcome(**outcome) for who, outcome in each.items()} for cell, each in found["details"].items()
    }
    found["sweep"] = [tuple(entry) for entry in found["sweep"]]
    return Part(**found)


def kept(of_kind: str) -> dict[str, Part]:
    """All parts that lie there, in the order of ``NAMES``."""
    paths = {name: folder(of_kind) / f"{name}.json" for name in NAMES}
    return {name: read(path) for name, path in paths.items() if path.exists()}


def check_one_machine(parts: Iterable[Part]) -> None:
    """Raise ``Mixed`` where parts were taken on different machines, or with other libraries."""
    machines: dict[str, list[str]] = {}
    for part in parts:
        machines.setdefault(part.machine, []).append(part.name)
    if len(machines) > 1:
        each = "; ".join(f"{', '.join(names)}: {where}" for where, names in machines.items())
        raise Mixed(f"These parts are not of one machine, take some anew. {each}")
