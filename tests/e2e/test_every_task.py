"""Every task: window, command line and HTTP give one result for one input, and a threshold costs no inference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from embedded_server.controller import ServeOptions, ServerController
from engine.engine import Engine
from engine.prediction import Prediction
from engine.settings import Settings
from gui import build_window
from gui.main_window import MainWindow
from gui.predict_queue import ItemState
from gui.views import view_of, view_of_task
from tests.e2e.program import EXAMPLES, PATIENCE_S, ROOT, Client, run
from tests.engine.worker.sequences import RATE, TEXTS, encoded, tone
from tests.fakes import FakeServer

pytestmark = pytest.mark.real
WAIT_MS = int(PATIENCE_S * 1000)


@dataclass(frozen=True, slots=True)
class Case:
    """A model and a file to ask it about; ``params`` change the answer without an inference."""

    task: str
    model: str
    file: str
    content_type: str
    params: dict[str, Any]


CASES = (
    Case("image-classification", "digits-keras", "digits-keras/samples/digit-7.png", "image/png", {"top_k": 1}),
    Case("object-detection", "shapes-detector", "shapes-detector/samples/crowd.png", "image/png", {"threshold": 0.9}),
    Case("image-segmentation", "shapes-segmenter", "shapes-segmenter/samples/wide.png", "image/png",
         {"masks": "polygons"}),
    Case("keypoint-detection", "shapes-keypoints", "shapes-keypoints/samples/two.png", "image/png",
         {"threshold": 0.99}),
    Case("depth-estimation", "shapes-depth", "shapes-depth/samples/plain.png", "image/png", {"depth": "viridis"}),
    Case("image-to-image", "photo-2x", "photo-2x/samples/flower.png", "image/png", {}),
    Case("tabular-classification", "wine", "wine/samples/cellar.csv", "text/csv", {"top_k": 1}),
    Case("tabular-regression", "rent", "table.csv", "text/csv", {}),
    Case("text-classification", "mood", "text.txt", "text/plain", {"top_k": 1}),
    Case("token-classification", "names", "text.txt", "text/plain", {"threshold": 0.999}),
    Case("feature-extraction", "sentences", "text.txt", "text/plain", {}),
    Case("audio-classification", "sounds", "tone.wav", "audio/wav", {"top_k": 1}),
    Case("raw-tensors", "sums", "tensors.npz", "application/x-npz", {}),
)  # fmt: skip


def made_here(folder: Path) -> None:
    """A model of rents and one of bare tensors with two inputs and two outputs, and inputs for them all."""
    from onnx import TensorProto, helper, save

    def write(name: str, graph: Any) -> None:
        (folder / name).mkdir()
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        save(model, folder / name / "model.onnx")

    value = helper.make_tensor_value_info
    number = TensorProto.FLOAT
    weights = helper.make_tensor("w", number, [2, 1], [9.5, 120.0])
    ends = [[value("x", number, ["n", 2])], [value("y", number, ["n", 1])]]
    write("rent", helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", *ends, [weights]))
    (folder / "rent" / "deskside.toml").write_text(
        'task = "tabular-regression"\ncolumns = ["area", "rooms"]\n[missing]\nrooms = 2.0\n'
    )
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])]
    ends = [[value(name, number, ["n", "m"]) for name in names] for names in (("a", "b"), ("sum", "product"))]
    write("sums", helper.make_graph(nodes, "g", *ends))
    np.savez(folder / "tensors.npz", a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.ones((2, 3), np.float32))
    (folder / "table.csv").write_text("\ufeffrooms;area\n3;70,5\n;40\n", encoding="utf-8")
    (folder / "text.txt").write_text(TEXTS[1], encoding="utf-8")
    (folder / "tone.wav").write_bytes(encoded(tone(1.0, RATE), RATE))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-m", "tests.engine.worker.make_sequences", str(folder)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}, timeout=PATIENCE_S, check=True)
    made_here(folder)
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


def place(case: Case, models: Path) -> tuple[Path, Path]:
    """The model's folder and the input file."""
    folder = models if (models / case.model).exists() else EXAMPLES
    return folder / case.model, folder / case.file


def answer_of(body: dict[str, Any]) -> Any:
    """What an answer says, without what differs from one run to the next."""
    return next(body[kind] for kind in ("predictions", "results", "outputs") if kind in body)


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


def asked_in_the_window(qtbot: QtBot, window: MainWindow, model: Path, file: Path, task: str) -> Prediction:
    """Open ``model``, drop ``file`` on it, wait for the answer in its view."""
    window.load_model(model)
    qtbot.waitUntil(lambda: window.shelf.loading is None and window.shelf.active is not None, timeout=WAIT_MS)
    assert window.shelf.active is not None
    assert window.shelf.active.task == task
    window.predict_page.take_paths([file])
    queue = window.queue
    over = (ItemState.DONE, ItemState.FAILED)
    qtbot.waitUntil(lambda: bool(queue.items) and queue.items[-1].state in over, timeout=WAIT_MS)
    item = queue.items[-1]
    assert item.error is None
    assert item.prediction is not None
    dock = window.predict_page.work.dock
    qtbot.waitUntil(lambda: dock.view is not None, timeout=WAIT_MS)
    shown = view_of_task(task) if item.prediction.results is not None else view_of(item.prediction)
    assert type(dock.view) is shown
    return item.prediction


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.task)
def test_every_door_gives_one_result(
    qtbot: QtBot, models: Path, doors: tuple[Engine, str], tmp_path: Path, case: Case
) -> None:
    engine, url = doors
    model, file = place(case, models)
    window = build_window(engine, FakeServer(), Settings(), None, ())
    window.show()
    try:
        drawn = asked_in_the_window(qtbot, window, model, file, case.task)
    finally:
        window.close()
        qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)
        window.deleteLater()
    # The window may ask for another form of the same result (masks as runs); as the network has it costs no inference.
    before = engine.stats()["models"][0]["inferences"]
    in_window = answer_of(engine.refine(drawn.id, {}).result(PATIENCE_S).to_json())
    other = engine.refine(drawn.id, case.params).result(PATIENCE_S)
    assert engine.stats()["models"][0]["inferences"] == before, "a refined answer cost an inference"
    client = Client(url)
    status, body = client.post(f"/predict/{case.model}", file.read_bytes(), case.content_type)
    query = "&".join(f"{name}={value}" for name, value in case.params.items())
    asked = client.post(f"/predict/{case.model}?{query}", file.read_bytes(), case.content_type)
    client.close()
    engine.unload(case.model).result(PATIENCE_S)
    program = run(["predict", str(model), str(file), "--json"], tmp_path)
    assert in_window
    assert (status, body["task"]) == (200, case.task)
    assert_alike(answer_of(body), in_window)
    assert asked[0] == 200
    assert_alike(answer_of(asked[1]), answer_of(other.to_json()))
    assert program.process.returncode == 0, program.stderr
    (line,) = program.stdout
    assert_alike(answer_of(json.loads(line)), in_window)


def test_a_text_may_be_given_in_place_of_a_file(models: Path, tmp_path: Path) -> None:
    program = run(["predict", str(models / "mood"), str(models / "text.txt"), TEXTS[1], "--json"], tmp_path)
    first, second = (json.loads(line) for line in program.stdout)
    assert_alike(first["predictions"], second["predictions"])
