"""From "open this model" to its first answer, against a script that imports, loads and predicts.

``python -m benchmarks.load_time``. The script starts a new interpreter, as one types it; Deskside's time begins with
``Engine.load`` in an engine that is there, as it is when a window is on the screen. Three of its loads are timed: the
first of an engine, a later one (the inspector has been started), and one that finds a warm spare. Rounds alternate, so
that what else the machine does falls on all of them; the shares are those of one round each, and their median counts.
CPU seconds are those of the processes that ended in between and of this one: on a busy machine they tell more.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine import Engine
from engine.prediction import PredictRequest
from engine.settings import Settings, WorkerSettings
from engine.spares import likely_framework
from tests.e2e.program import DIGITS_KERAS, DIGITS_TORCH

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 3 if QUICK else 5
PATIENCE_S = 120.0
MOST = {"first": 1.15, "later": 1.15, "spare": 0.6}
"""Of the script's time."""

READ = """
import sys, numpy
from PIL import Image
picture = numpy.asarray(Image.open(sys.argv[2]).convert("L").resize((32, 32)), numpy.float32)
"""
SCRIPTS = {
    DIGITS_TORCH: "import torch\nmodel = torch.jit.load(sys.argv[1]).eval()\n"
    "with torch.inference_mode():\n"
    "    print(int(model(torch.from_numpy(picture[None, None])).argmax()), flush=True)\n",
    DIGITS_KERAS: "import keras\nmodel = keras.models.load_model(sys.argv[1])\n"
    "print(int(model.predict(picture[None, :, :, None], verbose=0).argmax()), flush=True)\n",
}


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds to the answer, and of computing until the process is gone."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """Of this process and of all its children that have ended; theirs are not counted on Windows."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def script(model: Path, sample: Path) -> Took:
    """From the start of the interpreter to its answer."""
    computed = cpu_seconds()
    (file,) = model.glob("model.*")
    command = [sys.executable, "-c", READ + SCRIPTS[model], str(file), str(sample)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        answer = process.stdout.readline()
        took = time.perf_counter() - began
    assert answer.strip().isdigit(), answer
    return Took(took, cpu_seconds() - computed)


def load(engine: Engine, model: Path, sample: Path) -> Took:
    """From the call of ``load`` to an answer; the model is then closed."""
    computed = cpu_seconds()
    data = sample.read_bytes()
    began = time.perf_counter()
    entry = engine.load(model).future.result(PATIENCE_S)
    engine.predict(PredictRequest(str(entry["id"]), data)).result(PATIENCE_S)
    took = time.perf_counter() - began
    engine.unload(str(entry["id"])).result(PATIENCE_S)
    return Took(took, cpu_seconds() - computed)


def deskside(model: Path, sample: Path) -> dict[str, Took]:
    settings = Settings(worker=WorkerSettings(spare=True))  # type: ignore[call-arg]  # pydantic's defaults
    with tempfile.TemporaryDirectory() as folder, Engine(Settings(), folder=Path(folder)) as engine:
        took = {"first": load(engine, model, sample), "later": load(engine, model, sample)}
    with tempfile.TemporaryDirectory() as folder, Engine(settings, folder=Path(folder)) as engine:
        engine.inspect(model).result(PATIENCE_S)  # as in a window that has been open for a while
        return took | {"spare": with_spare(engine, model, sample)}


def with_spare(engine: Engine, model: Path, sample: Path) -> Took:
    (file,) = model.glob("model.*")
    framework = likely_framework(file)
    assert framework is not None
    engine.keep_spares(file)
    until = time.monotonic() + PATIENCE_S
    while (spare := engine._spares.kept(framework)) is None and time.monotonic() < until:
        time.sleep(0.01)
    assert spare is not None
    assert spare.is_warm.wait(PATIENCE_S)
    return load(engine, model, sample)


def main() -> int:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {ROUNDS} rounds")
    kept = True
    for model in SCRIPTS:
        sample = sorted((model / "samples").iterdir())[3]
        took: dict[str, list[Took]] = {}
        script(model, sample)  # what is read from the disk lies in memory from here on, for both
        for _ in range(ROUNDS):
            for name, one in {"script": script(model, sample), **deskside(model, sample)}.items():
                took.setdefault(name, []).append(one)
        for name, each in took.items():
            shares = [one.wall / base.wall for one, base in zip(each, took["script"], strict=True)]
            share = statistics.median(shares)
            within = share <= MOST.get(name, share)
            kept = kept and within
            print(
                f"{model.name:<14} {name:<7} {statistics.median(one.wall for one in each):6.2f} s, "
                f"{statistics.median(one.cpu for one in each):5.2f} s of CPU  {share:5.2f}x of the script "
                f"({min(shares):.2f} to {max(shares):.2f}){'' if within else f'  above {MOST[name]}'}",
                flush=True,
            )
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
