"""From "open this model" to its first answer, against a script that imports, loads and predicts.

``python -m benchmarks.load_time``. The script starts a new interpreter, as one types it; Deskside's time begins with
``Engine.load`` in an engine that is there, as it is when a window is on the screen. Two of its loads are timed: the
first of an engine, and a later one (the inspector has been started). Rounds alternate, so that what else the machine
does falls on all of them.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine import Engine
from engine.prediction import PredictRequest
from engine.settings import Settings
from tests.e2e.program import DIGITS_KERAS, DIGITS_TORCH

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 3 if QUICK else 7
PATIENCE_S = 120.0

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


def script(model: Path, sample: Path) -> float:
    """Seconds from the start of the interpreter to its answer."""
    (file,) = model.glob("model.*")
    command = [sys.executable, "-c", READ + SCRIPTS[model], str(file), str(sample)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        answer = process.stdout.readline()
        took = time.perf_counter() - began
    assert answer.strip().isdigit(), answer
    return took


def load(engine: Engine, model: Path, sample: Path) -> float:
    """Seconds from the call of ``load`` to an answer; the model is then closed."""
    data = sample.read_bytes()
    began = time.perf_counter()
    entry = engine.load(model).future.result(PATIENCE_S)
    engine.predict(PredictRequest(str(entry["id"]), data)).result(PATIENCE_S)
    took = time.perf_counter() - began
    engine.unload(str(entry["id"])).result(PATIENCE_S)
    return took


def deskside(model: Path, sample: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, Engine(Settings(), folder=Path(folder)) as engine:
        return {"first": load(engine, model, sample), "later": load(engine, model, sample)}


def main() -> int:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {ROUNDS} rounds")
    for model in SCRIPTS:
        sample = sorted((model / "samples").iterdir())[3]
        took: dict[str, list[float]] = {}
        script(model, sample)  # what is read from the disk lies in memory from here on, for both
        for _ in range(ROUNDS):
            for name, seconds in {"script": script(model, sample), **deskside(model, sample)}.items():
                took.setdefault(name, []).append(seconds)
        bare = statistics.median(took["script"])
        for name, each in took.items():
            middle = statistics.median(each)
            shares = [one / base for one, base in zip(each, took["script"], strict=True)]
            print(
                f"{model.name:<14} {name:<7} {middle:6.2f} s  {middle / bare:5.2f}x of the script"
                f"  (rounds {min(shares):.2f} to {max(shares):.2f})"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
