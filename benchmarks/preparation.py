"""What preparing a model at load wins: the same files in two engines, one that prepares and one that does not.

``python -m benchmarks.preparation``. A MobileNetV2 of width 0.5 in PyTorch and one in Keras, 224 x 224, random weights
of a fixed seed, float32 tensors through ``Engine.predict``. Both engines have their worker process running the whole
time; rounds alternate, so that what else the machine does falls on both. Every answer is compared with the framework's
own, from another process. One intra-operation thread each: two on a busy machine wait for each other. ``QUICK=1``
takes fewer and shorter rounds.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from engine import Engine
from engine.prediction import PredictRequest
from engine.settings import Settings, WorkerSettings

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 3 if QUICK else 7
SECONDS = 3.0 if QUICK else 6.0
PATIENCE_S = 300.0
TOLERANCE = 1e-4
"""Of the largest number of an answer."""
SAMPLES = 16

SIDECAR = """
architecture = "mobilenet.py:MobileNetV2"
[[inputs]]
name = "x"
dtype = "float32"
shape = [-1, 3, 224, 224]
[[outputs]]
name = "logits"
dtype = "float32"
shape = [-1, 1000]
"""


def write_torch(folder: Path) -> None:
    """Weights, their class, a sidecar, and inputs with the framework's answers."""
    import torch

    from benchmarks.mobilenet import MobileNetV2

    torch.manual_seed(0)
    model = MobileNetV2()
    with torch.no_grad():
        for _ in range(3):  # what the normalisations know must not be zeros and ones
            model(torch.randn(16, 3, 224, 224))
    model.eval()
    torch.save(model.state_dict(), folder / "mobilenet.pth")
    (folder / "mobilenet.py").write_text(Path(__file__).with_name("mobilenet.py").read_text())
    (folder / "deskside.toml").write_text(SIDECAR)
    x = torch.randn(SAMPLES, 3, 224, 224)
    with torch.inference_mode():
        np.savez(folder / "answers.npz", x=x.numpy(), y=np.concatenate([model(row[None]).numpy() for row in x]))


def write_keras(folder: Path) -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None, alpha=0.5, input_shape=(224, 224, 3))
    model.save(folder / "mobilenet.keras")
    x = np.random.default_rng(0).standard_normal((SAMPLES, 224, 224, 3)).astype(np.float32)
    np.savez(folder / "answers.npz", x=x, y=model.predict(x, verbose=0))


class Asked:
    """One engine with one model; ``rate`` asks it for a while."""

    def __init__(self, folder: Path, file: Path, prepare: bool) -> None:
        worker = WorkerSettings.model_validate({"prepare": prepare, "threads": 1})
        self.engine = Engine(Settings(worker=worker), folder=folder)
        began = time.perf_counter()
        entry = self.engine.load(file, device="cpu", trust=True).future.result(PATIENCE_S)
        self.load_s = time.perf_counter() - began
        self.name = str(entry["id"])
        spec = entry["spec"]
        self.input = str(spec["inputs"][0]["name"])
        known = np.load(file.parent / "answers.npz")
        self.x, self.y = known["x"], known["y"]
        self.wrong = self.asked = 0

    def entry(self) -> dict[str, Any]:
        (entry,) = self.engine.stats()["models"]
        return dict(entry)

    def wait_until_prepared(self) -> tuple[dict[str, Any], float]:
        """What came of it, and the seconds it took; questions are answered meanwhile."""
        began = time.perf_counter()
        while (found := self.entry()["preparation"]) is None or found["state"] == "running":
            self.rate(1, 0.2)
            if time.perf_counter() - began > PATIENCE_S:
                raise SystemExit("the preparation did not end")
        return found, time.perf_counter() - began

    def rate(self, at_once: int, seconds: float) -> float:
        """Answers a second, ``at_once`` questions being open all the time."""
        open_: deque[tuple[int, Any]] = deque()
        until, began, number, answered = time.perf_counter() + seconds, time.perf_counter(), 0, 0
        while open_ or time.perf_counter() < until:
            while len(open_) < at_once and time.perf_counter() < until:
                row = number % SAMPLES
                request = PredictRequest(self.name, {self.input: self.x[row : row + 1]}, timeout_s=PATIENCE_S)
                open_.append((row, self.engine.predict(request)))
                number += 1
            row, future = open_.popleft()
            self._check(row, future.result(PATIENCE_S))
            answered += 1
        return answered / (time.perf_counter() - began)

    def _check(self, row: int, prediction: Any) -> None:
        found = np.asarray(next(iter(prediction.outputs.values())))
        self.asked += 1
        limit = TOLERANCE * float(np.abs(self.y[row]).max())
        self.wrong += found.shape != (1, *self.y.shape[1:]) or float(np.abs(found[0] - self.y[row]).max()) > limit


def compare(what: str, file: Path, folder: Path) -> int:
    plain, prepared = (Asked(folder / f"{what}-{on}", file, on) for on in (False, True))
    try:
        found, seconds = prepared.wait_until_prepared()
        words = ", ".join(found["steps"]) or f"nothing: {found['reason']}"
        print(f"\n{what}: {words}; gain in its probe {found['gain']}, rows of one run at most {found['batch']}, after "
              f"{seconds:.1f} s; loaded in {plain.load_s:.1f} s and {prepared.load_s:.1f} s")  # fmt: skip
        print(
            "| open questions | untouched /s | prepared /s | ratio: median (least, most of rounds) |\n|---|---|---|---|"
        )
        for at_once in (1, 8, 32):
            pairs = []
            for number in range(ROUNDS):
                order = (plain, prepared) if number % 2 else (prepared, plain)
                rates = {asked: asked.rate(at_once, SECONDS) for asked in order}
                pairs.append((rates[plain], rates[prepared]))
            ratios = [b / a for a, b in pairs]
            before, after = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"| {at_once} | {before:.1f} | {after:.1f} | {statistics.median(ratios):.2f} "
                  f"({min(ratios):.2f}, {max(ratios):.2f}) |", flush=True)  # fmt: skip
        memory = [asked.entry().get("memory") for asked in (plain, prepared)]
        print(f"memory of the processes, bytes: {memory}; wrong answers: {plain.wrong + prepared.wrong} of "
              f"{plain.asked + prepared.asked}")  # fmt: skip
        return plain.wrong + prepared.wrong
    finally:
        plain.engine.close()
        prepared.engine.close()


def main() -> int:
    if len(sys.argv) == 3:
        {"torch": write_torch, "keras": write_keras}[sys.argv[1]](Path(sys.argv[2]))
        return 0
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()}")
    print(f"{ROUNDS} rounds of {SECONDS:g} s each")
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="deskside-bench-") as name:
        for what, file in (("torch", "mobilenet.pth"), ("keras", "mobilenet.keras")):
            folder = Path(name, what)
            folder.mkdir()
            # No framework in this process: it would take cores from both engines.
            subprocess.run([sys.executable, "-m", "benchmarks.preparation", what, str(folder)], check=True)
            wrong += compare(what, folder / file, Path(name))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
