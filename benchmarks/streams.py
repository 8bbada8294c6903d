"""What several streams in a worker win: the same MobileNetV2 in two engines, one of which runs one batch at a time.

``python -m benchmarks.streams`` (after ``python -m benchmarks.models m``). Both are given every core's thread and keep
their process running the whole time; rounds alternate, so that what else the machine does falls on both. 602 KB of raw
float32 through ``Engine.predict``, every answer compared with the framework's own. The floor is the best bare loop over
all cores (``benchmarks.floors``), measured before the rounds and after. Beside the rate stands what a thousand answers
cost of the processor, in the engine's process and in the worker's: on a busy machine it is the steadier number.
``QUICK=1`` takes fewer and shorter rounds.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import machine
from benchmarks.floors import floors
from benchmarks.models import TOLERANCE, arrays, opened, references
from engine import Engine
from engine.prediction import PredictRequest
from engine.settings import Settings, WorkerSettings

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 3 if QUICK else 7
SECONDS = 3.0 if QUICK else 6.0
PATIENCE_S = 300.0
AT_ONCE = (1, 8, 32)
ONE_STREAM = """
import sys
import engine.worker.preparing
from engine.worker.__main__ import main
engine.worker.preparing.MAX_STREAMS = 1
main(sys.argv[1:])
"""


class Asked:
    """An engine with the model; ``rate`` asks it for a while."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        worker = WorkerSettings.model_validate({"threads": len(os.sched_getaffinity(0)), "command": command})
        self.engine = Engine(Settings(worker=worker), folder=folder)
        entry = self.engine.load(opened("m"), device="cpu", trust=True).future.result(PATIENCE_S)
        self.name = str(entry["id"])
        self.worker = psutil.Process(entry["worker_pid"])
        self.inputs = np.array(arrays("m"))
        self.expected = np.asarray(references("m"))
        self.wrong = self.asked = 0

    def told(self) -> dict[str, Any] | None:
        (entry,) = self.engine.stats()["models"]
        found: dict[str, Any] | None = entry["preparation"]
        return found

    def wait_until_prepared(self) -> dict[str, Any]:
        until = time.perf_counter() + PATIENCE_S
        while (found := self.told()) is None or found["state"] == "running":
            self.rate(1, 0.2)
            if time.perf_counter() > until:
                raise SystemExit("the preparation did not end")
        return found

    def rate(self, at_once: int, seconds: float) -> tuple[float, float, float]:
        """Answers a second, ``at_once`` questions being open all the time; CPU milliseconds an answer, here and in the
        worker."""
        open_: deque[tuple[int, Any]] = deque()
        here, there = time.process_time(), sum(self.worker.cpu_times()[:2])
        until, began, number, answered = time.perf_counter() + seconds, time.perf_counter(), 0, 0
        while open_ or time.perf_counter() < until:
            while len(open_) < at_once and time.perf_counter() < until:
                row = number % len(self.inputs)
                request = PredictRequest(self.name, {"x": self.inputs[row : row + 1]}, timeout_s=PATIENCE_S)
                open_.append((row, self.engine.predict(request)))
                number += 1
            row, future = open_.popleft()
            self._check(row, future.result(PATIENCE_S))
            answered += 1
        spent = time.perf_counter() - began
        here, there = time.process_time() - here, sum(self.worker.cpu_times()[:2]) - there
        return answered / spent, 1000 * here / answered, 1000 * there / answered

    def _check(self, row: int, prediction: Any) -> None:
        found = np.asarray(next(iter(prediction.outputs.values())))
        self.asked += 1
        expected = self.expected[row]
        self.wrong += found.shape != (1, *expected.shape) or float(np.abs(found[0] - expected).max()) > TOLERANCE


def compare(one: Asked, several: Asked, floor: dict[str, float]) -> None:
    best = max(floor.values())
    print(
        "| open questions | one stream /s | several /s | ratio: median (least, most of rounds) | several, of the floor "
        "| CPU ms an answer: one (engine + worker) | several |\n|---|---|---|---|---|---|---|"
    )
    for at_once in AT_ONCE:
        rounds = []
        for number in range(ROUNDS):
            order = (one, several) if number % 2 else (several, one)
            found = {asked: asked.rate(at_once, SECONDS) for asked in order}
            rounds.append((found[one], found[several]))
        ratios = [after[0] / before[0] for before, after in rounds]
        ones, severals = ([statistics.median(part) for part in zip(*c, strict=True)] for c in zip(*rounds, strict=True))
        print(
            f"| {at_once} | {ones[0]:.1f} | {severals[0]:.1f} | {statistics.median(ratios):.2f} ({min(ratios):.2f}, "
            f"{max(ratios):.2f}) | {100 * severals[0] / best:.0f} % | {ones[1]:.2f} + {ones[2]:.2f} "
            f"| {severals[1]:.2f} + {severals[2]:.2f} |",
            flush=True,
        )


def main() -> int:
    print(machine.describe(), f"Load {os.getloadavg()}; {ROUNDS} rounds of {SECONDS:g} s each.")
    floor = floors("m", SECONDS, one_core=False)
    with tempfile.TemporaryDirectory(prefix="deskside-bench-") as name:
        several = Asked(Path(name, "several"), [])
        one = Asked(Path(name, "one"), [sys.executable, "-c", ONE_STREAM])
        try:
            for what, asked in (("several streams", several), ("one stream", one)):
                print(f"{what}: {asked.wait_until_prepared()}")
            compare(one, several, floor)
        finally:
            one.engine.close()
            several.engine.close()
    after = floors("m", SECONDS, one_core=False)
    print("floors before and after, samples/s:", {way: (round(floor[way]), round(after[way])) for way in floor})
    print(f"wrong answers: {one.wrong + several.wrong} of {one.asked + several.asked}")
    return int(one.wrong + several.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
