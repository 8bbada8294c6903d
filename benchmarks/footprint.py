"""How long until a model answers, and what the program weighs without one. The last line printed is JSON.

Load to first answer: M in the program that already runs, against a script that imports PyTorch, reads the same file and
answers the same picture. Memory (PSS, so that shared pages count once; every process of each): the program's window
without a model against a bare PySide6 window.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.models import MODELS, Bodies, opened, references, softmax
from benchmarks.servers import ROOT, family, pss
from engine import Engine
from engine.prediction import PredictRequest

ROUNDS = 3 if os.environ.get("QUICK") else 5
START_S = 120.0
SETTLED_TURNS = 6
"""Seconds in a row in which a program's memory changed by less than a hundredth: it has come to rest."""

BARE_SCRIPT = """
import io, sys, torch, numpy as np
from PIL import Image
model = torch.jit.load(sys.argv[1]).eval()
picture = Image.open(sys.argv[2]).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
pixels = (np.asarray(picture, np.float32) / 255 - mean) / std
with torch.inference_mode():
    scores = torch.softmax(model(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]), 1)
print(scores[0].tolist())
"""

BARE_WINDOW = """
import sys
from PySide6.QtWidgets import QApplication, QMainWindow
app = QApplication(sys.argv)
window = QMainWindow()
window.resize(1100, 720)
window.show()
app.exec()
"""


def check(scores: list[float]) -> None:
    expected = softmax(references("m")[0])
    if len(scores) != len(expected) or max(abs(a - b) for a, b in zip(scores, expected, strict=True)) > 1e-3:
        raise SystemExit(f"a wrong answer: {scores}")


def bare_load(picture: Path) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", BARE_SCRIPT, str(opened("m") / "model.pt"), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took = time.perf_counter() - began
    check(json.loads(done.stdout))
    return took


def our_load(engine: Engine, data: bytes) -> float:
    began = time.perf_counter()
    model = engine.load(opened("m"), None, True).future.result(300)["id"]
    answer = engine.predict(PredictRequest(model, data, "image/jpeg", {"top_k": 10})).result(60)
    took = time.perf_counter() - began
    found = {item["label"]: item["score"] for item in answer.predictions or []}
    check([found[f"LABEL_{number}"] for number in range(len(found))])
    engine.unload(model).result(60)
    return took


def weight_mb(command: list[str]) -> float:
    """Of a window that has come to rest, with all its processes."""
    with tempfile.TemporaryDirectory(prefix="deskside-bench-") as home:
        env = os.environ | {"QT_QPA_PLATFORM": "offscreen", "DESKSIDE_HOME": home}
        process = subprocess.Popen(command, env=env, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return settled(process) / 1e6
        finally:
            members = family(process.pid)
            process.terminate()
            _, alive = psutil.wait_procs(members, timeout=15)
            for member in alive:
                member.kill()
            process.wait()


def settled(process: subprocess.Popen[bytes]) -> int:
    """Bytes of a program and its children once they no longer grow."""
    before, turns, until = 0, 0, time.monotonic() + START_S
    while time.monotonic() < until:
        time.sleep(1.0)
        if process.poll() is not None:
            raise SystemExit(f"a window ended with {process.returncode}")
        now = sum(pss(member) for member in family(process.pid))
        turns = turns + 1 if abs(now - before) < before / 100 else 0
        if turns == SETTLED_TURNS:
            return now
        before = now
    raise SystemExit(f"a window did not come to rest within {START_S:g} s")


def main() -> None:
    found: dict[str, float] = {}
    data = Bodies(MODELS / "pictures").all()[0]
    with tempfile.TemporaryDirectory(prefix="deskside-bench-") as folder:
        picture = Path(folder) / "first.jpg"
        picture.write_bytes(data)
        with Engine(folder=Path(folder) / "home") as engine:
            our_load(engine, data), bare_load(picture)  # both read what the disk has for the first time
            pairs = [(our_load(engine, data), bare_load(picture)) for _ in range(ROUNDS)]
    found["load"] = statistics.median(ours / bare for ours, bare in pairs)
    found["load_s"], found["bare_s"] = (statistics.median(column) for column in zip(*pairs, strict=True))
    found["app_mb"] = weight_mb([sys.executable, str(ROOT / "main.py")])
    found["bare_mb"] = weight_mb([sys.executable, "-c", BARE_WINDOW])
    found["memory"] = found["app_mb"] - found["bare_mb"]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
