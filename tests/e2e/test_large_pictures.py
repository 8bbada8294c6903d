"""Photographs of 100 million pixels through the whole product, in a bounded memory; and one that lies on its side."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from engine.engine import Engine
from engine.prediction import Prediction, PredictRequest
from tests.e2e.program import EXAMPLES, PATIENCE_S
from tests.engine.engine_harness import quick_settings

pytestmark = pytest.mark.real
SIDE = 10_000
DECODED = 4 * SIDE * SIDE
"""Bytes of the picture as Pillow holds colours."""
MOST = {"digits-keras": 1.5, "shapes-detector": 1.25, "shapes-segmenter": 2.5, "shapes-depth": 1.75}
"""How much more memory a worker may ever have had than before, in times of that: the picture once, and what is made of
it in its size (grey values, a map of classes and its runs, a map of distances)."""


@pytest.fixture(scope="module")
def photograph() -> bytes:
    rows, columns = np.mgrid[:SIDE:10, :SIDE:10]
    small = Image.fromarray(((rows + columns) // 8).astype(np.uint8)).convert("RGB")
    file = io.BytesIO()
    small.resize((SIDE, SIDE), Image.Resampling.NEAREST).save(file, "JPEG", quality=60)
    return file.getvalue()


def ask(engine: Engine, model: str, data: bytes, **params: Any) -> Prediction:
    request = PredictRequest(model, data, params=params, timeout_s=PATIENCE_S)
    return engine.predict(request).result(PATIENCE_S)


def most_memory(pid: int) -> int:
    """The most bytes a process has ever had in memory (``VmHWM``)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' account of a process")
@pytest.mark.parametrize("name", MOST)
def test_a_hundred_million_pixels_are_answered_in_bounded_memory(
    tmp_path: Path, photograph: bytes, name: str, record_property: Any
) -> None:
    with Engine(quick_settings(), folder=tmp_path / "engine") as engine:
        entry = engine.load(EXAMPLES / name, trust=True).future.result(PATIENCE_S)
        sample = next((EXAMPLES / name / "samples").glob("*.png")).read_bytes()
        ask(engine, entry["id"], sample)
        process = psutil.Process(entry["worker_pid"])
        before = process.memory_info().rss
        params = {"masks": "rle"} if name == "shapes-segmenter" else {}
        answer = ask(engine, entry["id"], photograph, **params)
        assert answer.predictions is not None
        grown = most_memory(process.pid) - before
    record_property("megabytes", grown / 1e6)
    sys.stdout.write(f"{name}: {grown / 1e6:.0f} MB more\n")
    assert grown < MOST[name] * DECODED


def test_boxes_stand_in_the_picture_as_people_see_it(tmp_path: Path) -> None:
    with Engine(quick_settings(), folder=tmp_path / "engine") as engine:
        engine.load(EXAMPLES / "shapes-detector").future.result(PATIENCE_S)
        path = EXAMPLES / "shapes-detector" / "samples" / "crowd.png"
        upright = ask(engine, "shapes-detector", path.read_bytes()).predictions
        exif = Image.Exif()
        exif[0x0112] = 6  # what the camera stored lies on its left side
        file = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
        turned = ask(engine, "shapes-detector", file.getvalue()).predictions
    assert upright
    assert turned == upright
