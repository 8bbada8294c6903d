"""Texts and recordings: window, command line and HTTP give one result for one input, each task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded_server.controller import ServeOptions, ServerController
from engine.engine import Engine
from engine.prediction import PredictRequest
from engine.settings import Settings
from tests.e2e.program import PATIENCE_S, ROOT, Client, run
from tests.engine.worker.sequences import RATE, TEXTS, encoded, tone

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sequences")
    command = [sys.executable, "-m", "tests.engine.worker.make_sequences", str(folder)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}, timeout=PATIENCE_S, check=True)
    (folder / "text.txt").write_text(TEXTS[1], encoding="utf-8")
    (folder / "tone.wav").write_bytes(encoded(tone(1.0, RATE), RATE))
    return folder


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, str]]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings()
    with Engine(settings, folder=home) as engine:
        server = ServerController(engine, settings.server, home)
        try:
            yield engine, f"http://127.0.0.1:{server.start_at(ServeOptions(port=0)).port}"
        finally:
            server.stop()


def assert_alike(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_alike(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_alike(one, other)
    else:
        assert ours == (pytest.approx(theirs, abs=1e-6) if isinstance(theirs, float) else theirs)


@pytest.mark.parametrize(
    ("name", "file", "content_type"),
    [
        ("mood", "text.txt", "text/plain"),
        ("names", "text.txt", "text/plain"),
        ("sentences", "text.txt", "text/plain"),
        ("sounds", "tone.wav", "audio/wav"),
    ],
)
def test_every_door_gives_one_result(
    models: Path, doors: tuple[Engine, str], tmp_path: Path, name: str, file: str, content_type: str
) -> None:
    engine, url = doors
    engine.load(models / name).future.result(PATIENCE_S)
    data = (models / file).read_bytes()
    window = engine.predict(PredictRequest(name, data, content_type, timeout_s=PATIENCE_S)).result(PATIENCE_S)
    client = Client(url)
    status, body = client.post(f"/predict/{name}", data, content_type)
    client.close()
    inputs = [str(models / file), *([TEXTS[1]] if content_type == "text/plain" else [])]
    program = run(["predict", str(models / name), *inputs, "--json"], tmp_path)
    engine.unload(name)
    assert window.predictions
    assert status == 200
    assert_alike(body["predictions"], window.predictions)
    assert len(program.stdout) == len(inputs)
    for line in program.stdout:
        assert_alike(json.loads(line)["predictions"], window.predictions)
