"""From "open this model" to its first answer, against a script that imports, loads and predicts.

``python -m benchmarks.load_time``. The script starts a new interpreter, as one types it; Deskside's time begins with
``Engine.load`` in an engine that is there, as it is when a window is on the screen. Three of its loads are timed: the
first of an engine, a later one (the inspector has been started), and one that finds a warm spare. Rounds alternate, so
that what else the machine does falls on all of them; the shares are those of one round each, and their median counts.
CPU seconds are those of the processes that ended in between and of this one: on a busy machine they tell more.
``--json``: the last line printed is JSON, with the worst of the models as ``load`` and ``load-spare``.
"""

from __future__ import annotations

import json
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

from benchmarks.models import jpegs, opened
from engine import Engine
from engine.prediction import PredictRequest
from engine.settings import Settings, WorkerSettings
from engine.spares import likely_framework
from tests.e2e.program import DIGITS_KERAS, DIGITS_TORCH

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 1 if QUICK else 5
PATIENCE_S = 120.0
MOST = {"first": 1.15, "later": 1.15, "spare": 0.6}
"""Of the script's time."""

SCRIPT = """
import io, sys, numpy
from PIL import Image
{read}
{load}
"""
DIGIT = 'picture = numpy.asarray(Image.open(sys.argv[2]).convert("L").resize((32, 32)), numpy.float32)'
PHOTO = """
picture = Image.open(sys.argv[2]).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
mean, std = numpy.float32([0.485, 0.456, 0.406]), numpy.float32([0.229, 0.224, 0.225])
picture = numpy.ascontiguousarray(((numpy.asarray(picture, numpy.float32) / 255 - mean) / std).transpose(2, 0, 1))
"""
TORCH = """
import torch
model = torch.jit.load(sys.argv[1]).eval()
with torch.inference_mode():
    print(int(model(torch.from_numpy(picture.reshape(1, -1, *picture.shape[-2:]))).argmax()), flush=True)
"""
KERAS = """
import keras
model = keras.models.load_model(sys.argv[1])
print(int(model.predict(picture[None, :, :, None], verbose=0).argmax()), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A model, a picture for it, and the script that a person would write for both."""

    name: str
    model: Path
    sample: Path
    script: str

    @property
    def file(self) -> Path:
        (file,) = self.model.glob("model.*")
        return file


def cases(folder: Path) -> list[Case]:
    """M, and the two samples of the examples. ``folder`` takes M's picture."""
    photo = folder / "photo.jpg"
    photo.write_bytes(jpegs()[0])
    found = [Case("m", opened("m"), photo, SCRIPT.format(read=PHOTO, load=TORCH))]
    for model, load in ((DIGITS_TORCH, TORCH), (DIGITS_KERAS, KERAS)):
        sample = sorted((model / "samples").iterdir())[3]
        found.append(Case(model.name, model, sample, SCRIPT.format(read=DIGIT, load=load)))
    return found


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds to the answer, and of computing until the process is gone."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """Of this process and of all its children that have ended; theirs are not counted on Windows."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def script(case: Case) -> tuple[Took, str]:
    """From the start of the interpreter to its answer."""
    computed = cpu_seconds()
    command = [sys.executable, "-c", case.script, str(case.file), str(case.sample)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        answer = process.stdout.readline().decode().strip()
        took = time.perf_counter() - began
    if not answer.isdigit():
        raise SystemExit(f"the script for {case.name} printed {answer!r}")
    return Took(took, cpu_seconds() - computed), answer


def load(engine: Engine, case: Case, expected: str) -> Took:
    """From the call of ``load`` to an answer, which has to be the script's; the model is then closed."""
    computed = cpu_seconds()
    data = case.sample.read_bytes()
    began = time.perf_counter()
    entry = engine.load(case.model, None, True).future.result(PATIENCE_S)
    answer = engine.predict(PredictRequest(str(entry["id"]), data)).result(PATIENCE_S)
    took = time.perf_counter() - began
    engine.unload(str(entry["id"])).result(PATIENCE_S)
    best = max(answer.predictions or [], key=lambda item: item["score"])  # type: ignore[index,call-overload]
    if not str(best["label"]).endswith(expected):
        raise SystemExit(f"{case.name}: {best} where the script says {expected}")
    return Took(took, cpu_seconds() - computed)


def deskside(case: Case, expected: str) -> dict[str, Took]:
    settings = Settings(worker=WorkerSettings(spare=True))  # type: ignore[call-arg]  # pydantic's defaults
    with tempfile.TemporaryDirectory() as folder, Engine(Settings(), folder=Path(folder)) as engine:
        took = {"first": load(engine, case, expected), "later": load(engine, case, expected)}
    with tempfile.TemporaryDirectory() as folder, Engine(settings, folder=Path(folder)) as engine:
        engine.inspect(case.model).result(PATIENCE_S)  # as in a window that has been open for a while
        return took | {"spare": with_spare(engine, case, expected)}


def with_spare(engine: Engine, case: Case, expected: str) -> Took:
    framework = likely_framework(case.file)
    assert framework is not None
    engine.keep_spares(case.file)
    until = time.monotonic() + PATIENCE_S
    while (spare := engine._spares.kept(framework)) is None and time.monotonic() < until:
        time.sleep(0.01)
    assert spare is not None
    assert spare.is_warm.wait(PATIENCE_S)
    return load(engine, case, expected)


def measured(case: Case) -> dict[str, list[Took]]:
    took: dict[str, list[Took]] = {}
    _, expected = script(case)  # what is read from the disk lies in memory from here on, for both
    for _ in range(ROUNDS):
        for name, one in {"script": script(case)[0], **deskside(case, expected)}.items():
            took.setdefault(name, []).append(one)
    return took


def main(arguments: list[str]) -> int:
    out = sys.stderr if "--json" in arguments else sys.stdout
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {ROUNDS} rounds", file=out
    )
    found: dict[str, float] = {}
    names: list[str] = []
    with tempfile.TemporaryDirectory(prefix="deskside-bench-") as folder:
        for case in cases(Path(folder)):
            names.append(case.name)
            took = measured(case)
            for name, each in took.items():
                shares = [one.wall / base.wall for one, base in zip(each, took["script"], strict=True)]
                share = statistics.median(shares)
                found[f"{name}-{case.name}"] = share
                found[f"{name}-{case.name} s"] = statistics.median(one.wall for one in each)
                cpu = statistics.median(one.cpu for one in each)
                print(
                    f"  {case.name:<14} {name:<7} {found[f'{name}-{case.name} s']:6.2f} s, {cpu:5.2f} s of CPU  "
                    f"{share:5.2f}x of the script ({min(shares):.2f} to {max(shares):.2f})"
                    f"{'' if share <= MOST.get(name, share) else f'  above {MOST[name]}'}",
                    file=out, flush=True,
                )  # fmt: skip
            # What a person waits for is the slower of an engine's first load and a later one.
            found[f"load-{case.name}"] = max(found[f"first-{case.name}"], found[f"later-{case.name}"])
    kept = all(found[f"{name}-{case}"] <= most for name, most in MOST.items() for case in names)
    found["load"] = max(found[f"load-{name}"] for name in names)
    found["load-spare"] = max(found[f"spare-{name}"] for name in names)
    if "--json" in arguments:
        print(json.dumps(found))
        return 0
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
