"""Deskside beside its peers, in one run: ``python -m benchmarks.compare`` (``make bench``).

A round starts each contestant in turn, asks it everything and ends it; rounds follow each other in turned order, so
that what else the machine does falls on all. Ratios are taken within a round, and their median over the rounds counts.
QUICK=1 takes a few peers, short times and no sweep; FULL=1 asks every kind of body at every number of connections.
``ONLY=s,m`` runs some of: s, m, l, keras, window, footprint. Writes ``docs/performance.md``. Exit 1: an answer was
wrong, refused, lost or doubled, or Deskside did not start.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks import models, report
from benchmarks.environments import NotInstalled, environment
from benchmarks.floors import floors
from benchmarks.load import BadAnswers, Outcome, ceiling
from benchmarks.load import run as ask
from benchmarks.machine import Busy, describe
from benchmarks.models import BENCH
from benchmarks.servers import KERAS_TUTORIAL, PEERS, ROOT, NotStarted, Server, Settings, deskside, running
from benchmarks.verdicts import HEAD, PROMISES, Row

QUICK, FULL = bool(os.environ.get("QUICK")), bool(os.environ.get("FULL"))
ONLY = [part for part in os.environ.get("ONLY", "").split(",") if part]
ROUNDS = 3 if QUICK or not FULL else 5
SECONDS = 1.0 if QUICK else 4.0
SWEEP_S = 2.0
QUICK_PEERS = 3
UNIQUE = "x-request-id"
OURS, OURS_KEYED, OURS_ONE_CORE = "Deskside", "Deskside with a key", "Deskside on one core"
FLOOR, FLOOR_ONE = "bare loop, all cores", "bare loop, one core"


@dataclass(frozen=True)
class Cell:
    """One question: a kind of body, how many connections, and whether each request's head differs."""

    kind: str
    connections: int
    unique: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind} c={self.connections}{', unique headers' if self.unique else ''}"


@dataclass(frozen=True)
class Contestant:
    server: Server
    settings: Settings
    only: tuple[Cell, ...] | None = None  # of the cells; None: all that the server knows
    cpu: int | None = None  # its only core; the generator then has the other one

    @property
    def name(self) -> str:
        if not self.server.environment:
            return self.server.name if self.cpu is None else OURS_ONE_CORE
        return self.server.name + (", prepared model" if self.settings.prepared else "")


@dataclass
class Results:
    """All that was found; ``report.py`` writes it down."""

    rates: dict[str, dict[str, dict[str, dict[int, float]]]] = field(default_factory=dict)  # model, cell, who, round
    details: dict[str, dict[str, dict[str, Outcome]]] = field(default_factory=dict)  # of the last round
    memory_mb: dict[str, dict[str, float]] = field(default_factory=dict)
    sweeps: list[tuple[str, str, str, float]] = field(default_factory=list)  # model, peer, settings, rate
    chosen: dict[str, dict[str, str]] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    failed_answers: int = 0  # of Deskside
    answers: int = 0  # of Deskside, checked
    rows: list[Row] = field(default_factory=list)
    window: dict[str, float] = field(default_factory=dict)
    footprint: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, Outcome] = field(default_factory=dict)
    busy: Busy = field(default_factory=Busy)

    def add(self, model: str, cell: str, contestant: str, number: int, rate: float) -> None:
        self.rates.setdefault(model, {}).setdefault(cell, {}).setdefault(contestant, {})[number] = rate

    def ratio(
        self, model: str, cell: str, ours: str, others: Callable[[str], bool], theirs: str = ""
    ) -> tuple[float, str] | None:
        """Ours over the best of others, within each round; ``theirs``: their cell where it is another one."""
        mine = self.rates.get(model, {}).get(cell, {}).get(ours, {})
        found = self.rates.get(model, {}).get(theirs or cell, {})
        peers = {name: rates for name, rates in found.items() if others(name) and mine.keys() & rates.keys()}
        if not peers:
            return None
        best = max(peers, key=lambda name: statistics.median(peers[name].values()))
        ratios = [mine[number] / peers[best][number] for number in sorted(mine.keys() & peers[best].keys())]
        against = f"{statistics.median(peers[best].values()):.0f}/s of {best}"
        rates = f"{statistics.median(mine.values()):.0f}/s against {against}"
        return statistics.median(ratios), f"{rates}; rounds {min(ratios):.2f} to {max(ratios):.2f}"


def is_peer(name: str) -> bool:
    return not name.startswith("Deskside") and not name.startswith("bare loop") and not name.endswith("prepared model")


def is_prepared(name: str) -> bool:
    return name.endswith("prepared model")


class Comparison:
    def __init__(self) -> None:
        self.results = Results()

    # -- asking -------------------------------------------------------------------------------------------------------
    def _ask(self, contestant: Contestant, model: str, cells: list[Cell], seconds: float) -> dict[Cell, Outcome]:
        """Start, ask, end. What failed is kept and fails the run; the rest goes on."""
        found: dict[Cell, Outcome] = {}
        with running(contestant.server, model, contestant.settings, contestant.cpu) as server:
            for cell in cells:
                if cell.kind not in contestant.server.questions:
                    continue
                generator = None if contestant.cpu is None else contestant.cpu + 1
                load = server.load(cell.kind, cell.connections, seconds, UNIQUE if cell.unique else "", generator)
                outcome = ask(load)
                if not contestant.server.environment:
                    self.results.answers += outcome.answers
                    self.results.failed_answers += outcome.failed
                try:
                    outcome.check(f"{contestant.name}, {model}, {cell.name}")
                except BadAnswers as error:
                    print(f"  FAILED: {error}", flush=True)
                    self.results.failures.append(str(error))
                    continue
                found[cell] = outcome
            self.results.memory_mb.setdefault(model, {})[contestant.name] = server.memory_mb()
        return found

    def _try(self, contestant: Contestant, model: str, cells: list[Cell], seconds: float) -> dict[Cell, Outcome]:
        """The same of a peer that may not start here; then it is reported with the reason."""
        name = f"{contestant.name} ({model})"
        try:
            return self._ask(contestant, model, cells, seconds)
        except (NotInstalled, NotStarted) as error:
            print(f"  {name} not run: {error}", flush=True)
            if not contestant.server.environment:
                self.results.failures.append(str(error))
            self.results.not_run[name] = str(error)
            return {}

    # -- choosing settings --------------------------------------------------------------------------------------------
    def peers(self, model: str, cell: Cell, prepared: bool = False) -> list[Contestant]:
        """Each peer with the better of its documented and its best swept settings."""
        chosen = []
        for number, peer in enumerate(PEERS):
            if QUICK and number >= QUICK_PEERS:
                self.results.not_run[peer.name] = "QUICK=1 asks the first few only"
                continue
            try:
                environment(peer.environment)
            except NotInstalled as error:
                self.results.not_run[peer.name] = f"could not be installed: {error}"
                continue
            ways = peer.prepared_sweep if prepared else (peer.documented, *peer.sweep)
            best = ways[0] if QUICK else self._sweep(peer, ways, model, cell)
            if best is not None:
                contestant = Contestant(peer, best)
                self.results.chosen.setdefault(model, {})[contestant.name] = best.name
                chosen.append(contestant)
        return chosen

    def _sweep(self, peer: Server, ways: tuple[Settings, ...], model: str, cell: Cell) -> Settings | None:
        rates: dict[int, float] = {}
        for number, way in enumerate(ways):
            found = self._try(Contestant(peer, way), model, [cell], SWEEP_S)
            if cell in found:
                rates[number] = found[cell].rate
                print(f"  sweep {model}: {peer.name}, {way.name}: {found[cell].rate:.0f}/s", flush=True)
                self.results.sweeps.append(
                    (model, peer.name + (", prepared" if way.prepared else ""), way.name, found[cell].rate)
                )
        return ways[max(rates, key=rates.__getitem__)] if rates else None

    # -- rounds -------------------------------------------------------------------------------------------------------
    def rounds(
        self, model: str, contestants: list[Contestant], cells: list[Cell], also: dict[str, tuple[str, bool]]
    ) -> None:
        """``also``: bare loops measured within the round, with the cell they belong to and whether on one core."""
        for number in range(ROUNDS):
            self.results.busy.sample()
            turned = contestants[number % len(contestants) :] + contestants[: number % len(contestants)]
            for contestant in turned:
                found = self._try(contestant, model, list(contestant.only or cells), SECONDS)
                for cell, outcome in found.items():
                    self.results.add(model, cell.name, contestant.name, number, outcome.rate)
                    self.results.details.setdefault(model, {}).setdefault(cell.name, {})[contestant.name] = outcome
                    print(
                        f"  {model} round {number + 1}: {contestant.name}, {cell.name}: {outcome.rate:.0f}/s "
                        f"(p99 {outcome.p99_ms:.1f} ms)", flush=True,
                    )  # fmt: skip
            for name, (cell_name, one_core) in also.items():
                ways = floors(model, min(SECONDS, 2.0), one_core)
                best = max(ways, key=ways.__getitem__)
                print(f"  {model} round {number + 1}: {name}: {ways[best]:.0f}/s ({best})", flush=True)
                self.results.add(model, cell_name, name, number, ways[best])

    def row(
        self,
        key: str,
        model: str,
        cell: Cell,
        others: Callable[[str], bool],
        ours: str = OURS,
        theirs: Cell | None = None,
    ) -> None:
        promise = PROMISES[key]
        found = self.results.ratio(model, cell.name, ours, others, theirs.name if theirs else "")
        if found is None:
            reasons = [why for name, why in self.results.not_run.items() if f"({model})" in name]
            self._row(Row(promise, None, "; ".join(reasons)[:300] or "one of the two sides was not measured"))
        else:
            self._row(Row(promise, found[0] * (100 if promise.unit == "%" else 1), found[1]))

    def _row(self, row: Row) -> None:
        self.results.rows.append(row)
        print(row.markdown(), flush=True)

    def full(self, kinds: tuple[str, ...]) -> list[Cell]:
        return [Cell(kind, connections) for kind in kinds for connections in (1, 8, 32, 64)] if FULL else []

    # -- the models ---------------------------------------------------------------------------------------------------
    def s(self) -> None:
        c32, unique, c1 = Cell("json", 32), Cell("json", 32, True), Cell("json", 1)
        cells = list(dict.fromkeys([c32, unique, c1, *self.full(("json", "v2-json", "v2-binary"))]))
        ours = [
            Contestant(deskside("s"), Settings("as it ships")),
            Contestant(deskside("s", keyed=True), Settings("as it ships"), (c32,)),
        ]
        self.rounds("s", ours + self.peers("s", c32), cells, {})
        self.row("s-c32", "s", c32, is_peer)
        self.row("s-c32-unique", "s", unique, is_peer)
        self.row("s-c32-key", "s", c32, is_peer, OURS_KEYED)
        self.row("s-c1", "s", c1, is_peer)

    def m(self) -> None:
        raw, jpeg = Cell("raw", 32), Cell("jpeg", 32)
        cells = list(dict.fromkeys([raw, jpeg, *self.full(("v2-binary", "raw", "jpeg"))]))
        if FULL:
            cells.append(Cell("json", 8))
        ours = [Contestant(deskside("m"), Settings("as it ships"))]
        cores = os.cpu_count() or 1
        if cores > 1:
            ours.append(Contestant(deskside("m"), Settings("on one core"), (raw,), cpu=0))
        plain = self.peers("m", raw)
        prepared = [Contestant(c.server, c.settings, (raw,)) for c in self.peers("m", raw, prepared=True)]
        self.rounds("m", ours + plain + prepared, cells, {FLOOR: (raw.name, False), FLOOR_ONE: (raw.name, True)})
        self.row("m-raw", "m", raw, is_peer)
        self.row("m-jpeg", "m", jpeg, is_peer)
        self.row("m-prepared", "m", raw, is_prepared)
        self.row("m-floor-one", "m", raw, FLOOR_ONE.__eq__, OURS_ONE_CORE)
        self.row("m-floor-all", "m", raw, FLOOR.__eq__)

    def l(self) -> None:  # noqa: E743 (the model's name)
        raw = Cell("raw", 8)
        ours = [Contestant(deskside("l"), Settings("as it ships"))]
        self.rounds(
            "l",
            ours + self.peers("l", raw),
            list(dict.fromkeys([raw, *self.full(("raw", "jpeg"))])),
            {FLOOR: (raw.name, False)},
        )
        self.row("l-peer", "l", raw, is_peer)
        self.row("l-floor", "l", raw, FLOOR.__eq__)

    def keras(self) -> None:
        jpeg = Cell("jpeg", 8)
        ours = [Contestant(deskside("keras"), Settings("as it ships"))]
        try:
            environment(KERAS_TUTORIAL.environment)
            theirs = [Contestant(KERAS_TUTORIAL, KERAS_TUTORIAL.documented)]
        except NotInstalled as error:
            self.results.not_run[f"{KERAS_TUTORIAL.name} (keras)"], theirs = f"could not be installed: {error}", []
        self.rounds("keras", ours + theirs, list(dict.fromkeys([jpeg, *self.full(("jpeg",))])), {})
        self.row("keras", "keras", jpeg, is_peer)

    def window(self) -> None:
        found = self._printed("benchmarks.window")
        self.results.window = found
        for key in ("gap-s", "gap-m", "gap-json"):
            value = found.get(key)
            note = f"idle p99 {found['idle']:.1f} ms" if value is not None else "see what the run printed"
            self._row(Row(PROMISES[key], value, note))

    def footprint(self) -> None:
        found = self._printed("benchmarks.footprint")
        self.results.footprint = found
        for key, note in (
            ("load", "{bare_s:.1f} s for the bare script, {load_s:.1f} s in the running program"),
            ("load-spare", "this version keeps no spare process"),
            ("memory", "{app_mb:.0f} MB and {bare_mb:.0f} MB, with every process of each"),
        ):
            value = found.get(key)
            self._row(
                Row(
                    PROMISES[key],
                    value,
                    note.format(**found) if value is not None else note if key == "load-spare" else "failed",
                )
            )

    def _printed(self, module: str) -> dict[str, float]:
        """The figures that a program of its own prints last; what else it says goes through."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", module], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            self.results.failures.append(f"{module} ended with {done.returncode}")
            return {}
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]

    def run(self) -> int:
        print(describe(), flush=True)
        for name, header in (("constant headers", ""), ("unique headers", UNIQUE)):
            found = ceiling(SECONDS, unique=header)
            self.results.ceilings[name] = found
            print(f"the generator alone, {name}: {report.ceiling_text(found)}", flush=True)
        parts = [part for part in ("s", "m", "l", "keras", "window", "footprint") if not ONLY or part in ONLY]
        models.make([part for part in parts if part in ("s", "m", "l", "keras")] or ["s", "m"])
        for part in parts:
            print(f"\n{part}\n{HEAD}", flush=True)
            getattr(self, part)()
        if self.results.answers:
            note = f"of {self.results.answers} answers of Deskside's, each checked in the timed run"
            self._row(Row(PROMISES["wrong"], self.results.failed_answers, note))
        for key, promise in PROMISES.items():
            if key != "wrong" and all(row.promise is not promise for row in self.results.rows):
                self.results.rows.append(Row(promise, None, f"ONLY={','.join(ONLY)}"))
        report.write(self.results, BENCH / "partial.md" if ONLY else ROOT / "docs" / "performance.md")
        for failure in self.results.failures:
            print(f"FAILED: {failure}")
        return int(bool(self.results.failures))


if __name__ == "__main__":
    sys.exit(Comparison().run())
