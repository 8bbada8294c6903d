"""The engine without HTTP: questions a second with 32 under way and with one, each answer checked.

``python -m benchmarks.engine_alone``. What the server reaches beside this is what HTTP costs; what this reaches beside
the bare loop (``benchmarks.floors``) is what the engine's hops between threads and processes cost. CPU time of this
process and of the model's, for each answer, says more than the rate where the machine is busy.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from benchmarks.models import TOLERANCE, arrays, bodies, opened, references
from engine import Engine
from engine.prediction import Prediction, PredictRequest

SECONDS = 1.0 if os.environ.get("QUICK") else 4.0
WARM_S = 1.0
PREPARED_S = 60.0
CASES = (("s", "json", 32), ("s", "json", 1), ("m", "raw", 32), ("m", "raw", 1))
"""Model, what is asked with, how many questions are under way."""


def questions(model: str, kind: str) -> list[PredictRequest]:
    name = f"bench-{model}"
    if kind == "json":
        return [PredictRequest(name, data, "application/json") for data in bodies(model, "json").all()]
    return [PredictRequest(name, {"x": value[None]}) for value in np.array(arrays(model))]


def is_right(answer: Prediction, expected: np.ndarray) -> bool:  # type: ignore[type-arg]
    """Whether the raw output is the reference, within what another order of additions changes."""
    outputs = answer.outputs
    return outputs is not None and bool(np.abs(np.asarray(outputs["y"]).ravel() - expected).max() <= TOLERANCE)


def closed_loop(
    ask: Callable[[PredictRequest], Future[Prediction]], asked: list[PredictRequest], expected: list[np.ndarray],  # type: ignore[type-arg]
    under_way: int, seconds: float,
) -> int:  # fmt: skip
    """Answers within the time, with so many questions under way. Raises SystemExit on a wrong one."""
    done: queue.SimpleQueue[tuple[int, Future[Prediction]]] = queue.SimpleQueue()

    def send(number: int) -> None:
        ask(asked[number]).add_done_callback(lambda future: done.put((number, future)))

    for number in range(under_way):
        send(number)
    answers, following, until = 0, under_way, time.perf_counter() + seconds
    while (now := time.perf_counter()) < until or under_way:
        number, future = done.get(timeout=60.0)
        if not is_right(future.result(), expected[number]):
            raise SystemExit(f"a wrong answer to input {number}")
        if now < until:
            answers += 1
            send(following % len(asked))
            following += 1
        else:
            under_way -= 1
    return answers


def prepared(engine: Engine, name: str) -> None:
    """Wait until the model's background preparation is over."""
    until = time.monotonic() + PREPARED_S
    while time.monotonic() < until:
        (entry,) = (entry for entry in engine.stats()["models"] if entry["id"] == name)
        if entry["preparation"] is not None and entry["preparation"]["state"] != "running":
            return
        time.sleep(0.1)
    raise SystemExit(f"the preparation of {name} did not end within {PREPARED_S:g} s")


def worker_of(engine: Engine, name: str) -> psutil.Process:
    (entry,) = (entry for entry in engine.stats()["models"] if entry["id"] == name)
    return psutil.Process(entry["worker_pid"])


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main(arguments: list[str]) -> None:
    found: dict[str, float] = {"answers": 0}
    own = psutil.Process()
    with tempfile.TemporaryDirectory(prefix="deskside-bench-") as folder, Engine(folder=Path(folder)) as engine:
        for model, kind, under_way in CASES:
            if not any(entry["id"] == f"bench-{model}" for entry in engine.stats()["models"]):
                engine.load(opened(model), None, True).future.result(300)
                prepared(engine, f"bench-{model}")
            expected = [np.asarray(row, np.float32) for row in references(model)]
            loop = partial(closed_loop, engine.predict, questions(model, kind), expected, under_way)
            loop(WARM_S)
            worker = worker_of(engine, f"bench-{model}")
            before, began = (cpu_s(own), cpu_s(worker)), time.perf_counter()
            answers = loop(SECONDS)
            took = time.perf_counter() - began
            name = f"{model} c={under_way}"
            found["answers"] += answers
            found[f"{name} rate"] = answers / took
            found[f"{name} app us"] = (cpu_s(own) - before[0]) / answers * 1e6
            found[f"{name} worker us"] = (cpu_s(worker) - before[1]) / answers * 1e6
            print(
                f"  engine alone, {model}, {under_way} under way: {answers / took:.0f}/s, CPU of an answer: "
                f"{found[f'{name} app us']:.0f} us here, {found[f'{name} worker us']:.0f} us in the model's process",
                file=sys.stderr if "--json" in arguments else sys.stdout, flush=True,
            )  # fmt: skip
    if "--json" in arguments:
        print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
