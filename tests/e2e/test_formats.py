"""Each source of the formats table: written by its own library, opened by the engine, asked through both doors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from embedded_server.controller import ServeOptions, ServerController
from engine.engine import Engine
from engine.errors import EngineError
from engine.prediction import PredictRequest
from engine.settings import Settings
from tests.e2e.format_cases import CASES
from tests.embedded_server.wire import Wire

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
PATIENCE_S = 200.0
TOLERANCE = 1e-4

Writer = Callable[[str], Path]


@dataclass(frozen=True)
class Doors:
    """One engine, and the server that stands before it."""

    engine: Engine
    port: int


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings()
    with Engine(settings, folder=home) as engine:
        server = ServerController(engine, settings.server, home)
        try:
            yield Doors(engine, server.start_at(ServeOptions(port=0)).port)
        finally:
            server.stop()


@pytest.fixture(scope="module")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """The folder of a case. The first case of a writer writes those of its cases that this run selected."""
    selected = [item.callspec.params["name"] for item in request.session.items if "format_case" in item.keywords]
    folders: dict[str, Path] = {}

    def write(name: str) -> Path:
        writer = CASES[name].writer
        if writer not in folders:
            folders[writer] = tmp_path_factory.mktemp(writer)
            names = [n for n in selected if CASES[n].writer == writer]
            command = [sys.executable, "-m", "tests.e2e.format_cases", writer, str(folders[writer]), *names]
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"}
            done = subprocess.run(
                command, cwd=ROOT, env=os.environ | quiet, capture_output=True, timeout=PATIENCE_S, check=False
            )
            assert done.returncode == 0, done.stderr.decode()[-3000:]
        return folders[writer] / name

    return write


def assert_same(ours: Any, theirs: Any, at: str = "answer") -> None:
    """Nested lists and dicts with the same words in the same places, and numbers within ``TOLERANCE``."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), at
        assert set(ours) == set(theirs), at
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{at}.{key}")
    elif isinstance(theirs, list) and theirs and not isinstance(theirs[0], dict | str):
        mine, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        assert mine.shape == other.shape, at
        np.testing.assert_allclose(mine, other, rtol=0, atol=TOLERANCE, err_msg=at)
    elif isinstance(theirs, list):
        assert isinstance(ours, list), at
        assert len(ours) == len(theirs), at
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{at}[{i}]")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=0, abs=TOLERANCE), at
    else:
        assert ours == theirs, at


def check_answer(answer: dict[str, Any], ask: dict[str, Any]) -> None:
    if ask["predictions"] is not None:
        assert_same(answer["predictions"], ask["predictions"])
    if ask["outputs"] is not None:
        assert_same({name: tensor["data"] for name, tensor in answer["outputs"].items()}, ask["outputs"])


def check_spec(engine: Engine, path: Path, record: dict[str, Any]) -> None:
    spec = engine.inspect(path).result(PATIENCE_S)
    rows = {field: (value, source) for field, value, source in spec.evidence_rows()}
    rows["trust_class"] = (spec.trust_class.value, "")
    for field, value in record["spec"].items():
        assert_same(rows[field][0], value, field)
    for field, text in record["evidence"].items():
        assert text in rows[field][1], f"{field}: {rows[field][1]}"


def ask_over_http(port: int, model: str, ask: dict[str, Any], body: bytes) -> dict[str, Any]:
    query = f"?{urlencode(ask['params'])}" if ask["params"] else ""
    with Wire(port) as wire:
        answer = wire.request("POST", f"/predict/{model}{query}", body, Content_Type=ask["content_type"]).answer()
    assert answer.status == 200, answer.body
    reply: dict[str, Any] = answer.json
    return reply


@pytest.mark.format_case
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if c.slow else []) for n, c in CASES.items()]
)
def test_a_model_answers_as_its_framework_does(name: str, written: Writer, doors: Doors) -> None:
    folder = written(name)
    record = json.loads((folder / "case.json").read_text())
    assert "error" not in record, record["error"]
    path = folder / record["open"]
    check_spec(doors.engine, path, record)
    try:
        model = doors.engine.load(path, device="cpu", trust=True).future.result(PATIENCE_S)["id"]
    except EngineError as error:
        pytest.fail(f"{error.code}: {error.message}\n{error.details}")
    try:
        assert record["asks"], "a case must ask something"
        for ask in record["asks"]:
            body = (folder / ask["file"]).read_bytes()
            request = PredictRequest(model, body, ask["content_type"], params=ask["params"])
            check_answer(doors.engine.predict(request).result(PATIENCE_S).to_json(), ask)
            check_answer(ask_over_http(doors.port, model, ask, body), ask)
    finally:
        doors.engine.unload(model).result(PATIENCE_S)


def test_every_case_names_the_row_it_stands_for() -> None:
    assert all(case.source for case in CASES.values())
