"""Deskside beside its peers: ``python -m benchmarks.compare`` (``make bench``), into ``docs/performance.md``.

A round starts each contestant in turn, asks it everything and ends it; rounds follow each other in turned order, so
that what else the machine does falls on all. Ratios are taken within a round, and their median over the rounds counts.
Which settings suit a peer best is swept first, and kept (``benchmarks/sweep.py``).

Each part's results lie in ``.bench/results`` once it has ended, so a run that is cut short loses one part, and the
report is composed of what lies there. By environment variables:

- ``ONLY=s,m``: these parts, of s, m, l, keras, engine, window, footprint, load, profile, generator; the report goes to
  ``.bench/performance.md``.
- ``REPORT=1``: nothing is measured, ``docs/performance.md`` is composed of the parts that lie there.
- ``SWEEP=1``: the peers' settings are swept anew.
- ``QUICK=1``: a few peers, short times and no sweep, with results and a report of its own in ``.bench``.
- ``FULL=1``: every kind of body at every number of connections, five rounds.
- ``PYSPY=/path/to/py-spy``: where the time goes is looked at too (part profile).
- ``BENCH_ENVIRONMENTS=/path``: the peers' environments, where another checkout has made them.

Exit 1: an answer was wrong, refused, lost or doubled, or Deskside did not start; 2: the parts are of two machines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, models, parts, report
from benchmarks.environments import NotInstalled, environment
from benchmarks.floors import floors
from benchmarks.load import BadAnswers, Outcome, ceiling
from benchmarks.load import run as ask
from benchmarks.models import BENCH
from benchmarks.servers import (
    BARE_DOOR,
    CORES,
    KERAS_TUTORIAL,
    PEERS,
    ROOT,
    NotStarted,
    Server,
    Settings,
    deskside,
    running,
)
from benchmarks.sweep import Measure, Sweep, label, left_out
from benchmarks.verdicts import (
    FLOOR,
    FLOOR_JPEG,
    FLOOR_ONE,
    HEAD,
    KERAS_JPEG,
    L_RAW,
    M_JPEG,
    M_RAW,
    OURS_ONE_CORE,
    S_C1,
    S_C32,
    S_UNIQUE,
    Cell,
    rows_of,
)

QUICK, FULL = bool(os.environ.get("QUICK")), bool(os.environ.get("FULL"))
ONLY = [part for part in os.environ.get("ONLY", "").split(",") if part]
ROUNDS = 5 if FULL else 2 if QUICK else 3
SECONDS = 1.0 if QUICK else 3.0
SWEEP_S = 2.0
FLOOR_S = 1.0 if QUICK else 2.0
QUICK_PEERS = 2
UNIQUE = "x-request-id"
MODELS = ("s", "m", "l", "keras")

START_ESTIMATES = {
    "": 6, "fastapi": 4, "flask": 4, "mlserver": 5, "litserve": 6, "bentoml": 8, "ray": 18, "keras": 8,
}  # fmt: skip
"""Seconds to start, settle and end, on two quiet cores."""
ESTIMATES = {"generator": 15, "engine": 45, "window": 110, "footprint": 40, "load": 170, "profile": 45}
BEGAN = time.monotonic()


def say(text: str) -> None:
    """A line with the time since the start."""
    minutes, seconds = divmod(int(time.monotonic() - BEGAN), 60)
    print(f"[{minutes:3}:{seconds:02}] {text}", flush=True)


@dataclass(frozen=True)
class Contestant:
    server: Server
    settings: Settings
    only: tuple[Cell, ...] | None = None  # of the cells; None: all that the server knows
    cpu: int | None = None  # its only core; the generator then has the other one
    suffix: str = ""

    @property
    def is_product(self) -> bool:
        return not self.server.environment and self.server is not BARE_DOOR

    @property
    def name(self) -> str:
        if not self.server.environment:
            return self.server.name if self.cpu is None else OURS_ONE_CORE
        return label(self.server, self.settings) + self.suffix


class Comparison:
    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._taking = parts.Taking("s", ROUNDS, SECONDS)

    @property
    def part(self) -> parts.Part:
        return self._taking.part

    # -- asking -------------------------------------------------------------------------------------------------------
    def _ask(self, contestant: Contestant, cells: list[Cell], seconds: float) -> dict[Cell, Outcome]:
        """Start, ask, end. What failed is kept and fails the run; the rest goes on."""
        part, found = self.part, {}
        with running(contestant.server, part.name, contestant.settings, contestant.cpu) as server:
            for cell in cells:
                if cell.kind not in contestant.server.questions:
                    continue
                generator = None if contestant.cpu is None else contestant.cpu + 1
                load = server.load(cell.kind, cell.connections, seconds, UNIQUE if cell.unique else "", generator)
                try:
                    outcome = ask(load)
                    if contestant.is_product:
                        part.answers += outcome.answers
                        part.failed_answers += outcome.failed
                    outcome.check(f"{contestant.name}, {part.name}, {cell.name}")
                except BadAnswers as error:
                    say(f"  FAILED: {error}")
                    part.failures.append(str(error))
                    continue
                found[cell] = outcome
            if contestant.is_product:
                try:
                    server.check_records(sum(outcome.answers for outcome in found.values()))
                except BadAnswers as error:
                    say(f"  FAILED: {error}")
                    part.failures.append(str(error))
            part.memory_mb[contestant.name] = server.memory_mb()
        return found

    def _try(self, contestant: Contestant, cells: list[Cell], seconds: float) -> dict[Cell, Outcome]:
        """The same of a peer that may not start here; then it is reported with the reason."""
        try:
            return self._ask(contestant, cells, seconds)
        except (NotInstalled, NotStarted) as error:
            say(f"  {contestant.name} ({contestant.settings.name}) not run: {error}")
            if not contestant.server.environment:
                self.part.failures.append(str(error))
            self.part.not_run[f"{contestant.name}, {contestant.settings.name}"] = str(error)
            return {}

    # -- choosing settings --------------------------------------------------------------------------------------------
    def peers(self, cell: Cell, after: str = "") -> list[Contestant]:
        """Each peer with the better of its documented and its best swept settings, without those far behind.

        ``after``: a model of the same nature; of a peer that was swept with it only the winner there is tried again.
        """
        model, part = self.part.name, self.part
        if QUICK:
            for peer in PEERS[QUICK_PEERS:]:
                part.not_run[peer.name] = "QUICK=1 asks the first few only"
            return [Contestant(peer, peer.documented) for peer in PEERS[:QUICK_PEERS] if self._is_installed(peer)]
        chosen: dict[str, tuple[Server, Settings, float]] = {}
        for peer in PEERS:
            if self._is_installed(peer):
                best = self._sweep.best(model, peer, self._sweep.ways(model, peer, after), self._swept(cell))
                if best is not None:
                    chosen[peer.name] = (peer, *best)
        part.left_out |= left_out({name: rate for name, (_, _, rate) in chosen.items()})
        for name, why in part.left_out.items():
            say(f"  {name} is not in the rounds: {why}")
        return [Contestant(peer, way) for name, (peer, way, _) in chosen.items() if name not in part.left_out]

    def prepared(self, plain: list[Contestant], cell: Cell) -> list[Contestant]:
        """The same peers with our prepared model, again with the settings that suit them best."""
        found = []
        for contestant in plain:
            ways = contestant.server.ways(self.part.name, prepared=True)
            if QUICK:
                found.append(Contestant(contestant.server, ways[0], (cell,)))
            elif best := self._sweep.best(self.part.name, contestant.server, ways, self._swept(cell)):
                found.append(Contestant(contestant.server, best[0], (cell,)))
        return found

    def _is_installed(self, peer: Server) -> bool:
        try:
            environment(peer.environment)
        except NotInstalled as error:
            self.part.not_run[peer.name] = f"could not be installed: {error}"
            return False
        return True

    def _swept(self, cell: Cell) -> Measure:
        def measure(peer: Server, way: Settings) -> float | None:
            found = self._try(Contestant(peer, way), [cell], SWEEP_S).get(cell)
            if found is not None:
                say(f"  sweep {self.part.name}: {label(peer, way)}, {way.name}: {found.rate:.0f}/s")
            return None if found is None else found.rate

        return measure

    # -- rounds -------------------------------------------------------------------------------------------------------
    def rounds(self, contestants: list[Contestant], cells: list[Cell], also: dict[str, tuple[Cell, bool]]) -> None:
        """``also``: bare loops measured within the round, with the cell they belong to and whether on one core."""
        part = self.part
        part.sweep, part.swept = self._sweep.rates(part.name), self._sweep.when(part.name)
        part.chosen = {c.name: c.settings.name for c in contestants if c.server.environment}
        say(f"  {ROUNDS} rounds of {', '.join(contestant.name for contestant in contestants)}")
        for number in range(ROUNDS):
            part.busy.append(machine.taken_by_others())
            turned = contestants[number % len(contestants) :] + contestants[: number % len(contestants)]
            for contestant in turned:
                found = self._try(contestant, list(contestant.only or cells), SECONDS)
                for cell, outcome in found.items():
                    part.add(cell.name, contestant.name, number, outcome.rate)
                    part.details.setdefault(cell.name, {})[contestant.name] = outcome
                    say(
                        f"  {part.name} round {number + 1}: {contestant.name}, {cell.name}: {outcome.rate:.0f}/s "
                        f"(p99 {outcome.p99_ms:.1f} ms)"
                    )
            for name, (cell, one_core) in also.items():
                ways = floors(part.name, FLOOR_S, one_core, decode=cell.kind == "jpeg")
                best = max(ways, key=ways.__getitem__)
                say(f"  {part.name} round {number + 1}: {name}: {ways[best]:.0f}/s ({best})")
                part.add(cell.name, name, number, ways[best])

    def full(self, kinds: tuple[str, ...]) -> list[Cell]:
        return [Cell(kind, connections) for kind in kinds for connections in (1, 8, 32, 64)] if FULL else []

    # -- the parts ----------------------------------------------------------------------------------------------------
    def s(self) -> None:
        cells = list(dict.fromkeys([S_C32, S_UNIQUE, S_C1, *self.full(("json", "v2-json", "v2-binary"))]))
        ours = [
            Contestant(deskside("s"), Settings("as it ships")),
            Contestant(deskside("s", keyed=True), Settings("as it ships"), (S_C32,)),
            Contestant(BARE_DOOR, Settings("a table of answers behind it"), (S_C32, S_UNIQUE, S_C1)),
        ]
        peers = self.peers(S_C32)
        # What wins with 32 connections, two processes or batches that wait, may lose with one.
        alone = [
            Contestant(c.server, c.server.documented, (S_C1,), suffix=", as documented")
            for c in peers
            if c.settings != c.server.documented
        ]
        self.rounds(ours + peers + alone, cells, {})

    def m(self) -> None:
        cells = list(dict.fromkeys([M_RAW, M_JPEG, *self.full(("v2-binary", "raw", "jpeg"))]))
        if FULL:
            cells.append(Cell("json", 8))
        ours = [Contestant(deskside("m"), Settings("as it ships"))]
        if CORES > 1:
            ours.append(Contestant(deskside("m"), Settings("on one core"), (M_RAW,), cpu=0))
        plain = self.peers(M_RAW)
        contestants = ours + plain + self.prepared(plain, M_RAW)
        self.rounds(contestants, cells, {FLOOR: (M_RAW, False), FLOOR_ONE: (M_RAW, True), FLOOR_JPEG: (M_JPEG, False)})

    def l(self) -> None:  # noqa: E743 (the model's name)
        cells = list(dict.fromkeys([L_RAW, *self.full(("raw", "jpeg"))]))
        ours = [Contestant(deskside("l"), Settings("as it ships"))]
        self.rounds(ours + self.peers(L_RAW, after="m"), cells, {FLOOR: (L_RAW, False)})

    def keras(self) -> None:
        contestants = [Contestant(deskside("keras"), Settings("as it ships"))]
        if self._is_installed(KERAS_TUTORIAL):
            contestants.append(Contestant(KERAS_TUTORIAL, KERAS_TUTORIAL.documented))
        self.rounds(contestants, list(dict.fromkeys([KERAS_JPEG, *self.full(("jpeg",))])), {})

    def generator(self) -> None:
        for name, header in (("constant", ""), ("unique", UNIQUE)):
            found = ceiling(SECONDS, unique=header)
            found.check(f"the generator alone, {name} headers")
            self.part.figures[f"{name}-rate"] = found.rate
            self.part.figures[f"{name}-us"] = found.cpu_share / found.rate * 1e6

    def engine(self) -> None:
        self._program("benchmarks.engine_alone")

    def window(self) -> None:
        self._program("benchmarks.window")

    def footprint(self) -> None:
        self._program("benchmarks.footprint")

    def load(self) -> None:
        self._program("benchmarks.load_time")

    def profile(self) -> None:
        self._program("benchmarks.where_time_goes")

    def _program(self, module: str) -> None:
        """A part that is a program of its own, which prints its figures last; what else it says goes through."""
        command = [sys.executable, "-W", "ignore", "-m", module, "--json"]
        env = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}  # as a person has it
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            self.part.failures.append(f"{module} ended with {done.returncode}")
            return
        found = json.loads(done.stdout.splitlines()[-1])
        self.part.answers += found.pop("answers", 0)
        self.part.tables = found.pop("tables", [])
        self.part.figures = found

    # -- all of it ----------------------------------------------------------------------------------------------------
    def estimate(self, name: str) -> float:
        """Seconds that a part will take on two quiet cores."""
        if name not in MODELS:
            return ESTIMATES[name] / (3 if QUICK else 1)
        cells = {"s": 3, "m": 2}.get(name, 1) * (1 + 3 * FULL)
        slow = 1.0 if name == "l" else 0.0  # until the least number of answers is there

        def one(peer: Server, cells: float, seconds: float) -> float:
            return START_ESTIMATES[peer.environment] + cells * (seconds + min(1.0, seconds) + 0.7 + slow)

        if name == "keras":
            return ROUNDS * (one(deskside("keras"), cells, SECONDS) + one(KERAS_TUTORIAL, cells, SECONDS))
        swept = 0.0
        for peer in () if QUICK else PEERS:
            # L tries two of what M tried; about half of the peers are fast enough to be asked with a prepared model.
            ways = [
                way for way in peer.ways(name)[: 2 if name == "l" else None] if not self._sweep.has(name, peer, way)
            ]
            swept += len(ways) * one(peer, 1, SWEEP_S)
            if name == "m" and ways:
                swept += one(peer, 1, SWEEP_S)
        usual = PEERS[: QUICK_PEERS if QUICK else 4]
        a_round = one(deskside(name), cells + 1, SECONDS) + sum(one(peer, cells, SECONDS) for peer in usual)
        if name == "s":
            a_round += START_ESTIMATES[""] + sum(one(peer, 1, SECONDS) for peer in usual[: len(usual) // 2])
        if name == "m":
            a_round += START_ESTIMATES[""] + sum(one(peer, 1, SECONDS) + 2 for peer in usual)
        if name in ("m", "l"):
            a_round += (3 if name == "m" else 2) * (3 * FLOOR_S + 5)
        return swept + ROUNDS * a_round

    def run(self, names: list[str]) -> bool:
        """Whether every answer of every part was right."""
        right = True
        estimates = {name: self.estimate(name) for name in names}
        say(f"{machine.describe()} About {sum(estimates.values()) / 60:.0f} minutes on a quiet machine of two cores:")
        say("  " + ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in estimates.items()))
        models.make([name for name in MODELS if name in names or name in ("s", "m")])
        for number, name in enumerate(names):
            left = sum(estimates[later] for later in names[number:]) / 60
            say(f"{name}: about {estimates[name] / 60:.1f} minutes, {left:.0f} to the end")
            self._taking = parts.Taking(name, ROUNDS if name in MODELS else 0, SECONDS if name in MODELS else 0.0)
            getattr(self, name)()
            say(f"{name} took {(time.monotonic() - self._taking.began) / 60:.1f} minutes: {self._taking.write()}")
            print(HEAD)
            for row in rows_of({name: self.part}):
                print(row.markdown(), flush=True)
            for failure in self.part.failures:
                say(f"FAILED: {failure}")
            right = right and not self.part.failures
        return right


def main() -> int:
    unknown = set(ONLY) - set(parts.NAMES)
    if unknown:
        print(f"ONLY={','.join(sorted(unknown))}: there are {', '.join(parts.NAMES)}", file=sys.stderr)
        return 2
    composing = bool(os.environ.get("REPORT"))
    right = True
    if not composing:
        names = [name for name in parts.NAMES if not ONLY or name in ONLY]
        right = Comparison(Sweep(anew=names if os.environ.get("SWEEP") else ())).run(names)
    path = report_path(composing)
    try:
        report.write(parts.kept(parts.kind()), path)
    except parts.Mixed as error:
        print(f"No report: {error}", file=sys.stderr)
        return 2
    return int(not right)


def report_path(composing: bool) -> Path:
    """Only all of it, or a wish, touches what is published."""
    if QUICK:
        return BENCH / "quick.md"
    return BENCH / "performance.md" if ONLY and not composing else ROOT / "docs" / "performance.md"


if __name__ == "__main__":
    sys.exit(main())
