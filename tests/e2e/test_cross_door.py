"""One picture through every protocol, the window and the command line: one answer."""

from __future__ import annotations

import base64
import http.client
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from embedded_server.controller import ServeOptions, ServerController
from engine.engine import Engine
from engine.settings import Settings
from gui import build_window
from tests.e2e.program import DIGITS_KERAS, PATIENCE_S, run
from tests.e2e.test_every_task import WAIT_MS, asked_in_the_window
from tests.fakes import FakeServer

pytestmark = pytest.mark.real
PICTURE = DIGITS_KERAS / "samples" / "digit-3.png"
DATA = PICTURE.read_bytes()
TEXT = base64.b64encode(DATA).decode()
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, int]]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings()
    with Engine(settings, folder=home) as engine:
        engine.load(DIGITS_KERAS).future.result(PATIENCE_S)
        server = ServerController(engine, settings.server, home)
        try:
            yield engine, server.start_at(ServeOptions(port=0)).port
        finally:
            server.stop()


def post(port: int, path: str, body: Any, **headers: str) -> tuple[bytes, dict[str, str]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("POST", path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        return answer, dict(response.headers)
    finally:
        connection.close()


def by_label(entries: list[dict[str, Any]]) -> list[float]:
    scores = {entry["label"]: entry["score"] for entry in entries}
    return [scores[str(number)] for number in range(10)]


def native(port: int) -> Iterator[list[float]]:
    path = "/predict/digits-keras?top_k=10"
    form = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\nContent-Type: image/png\r\n\r\n'
        + DATA
        + b"\r\n--b--\r\n"
    )
    for body, kind in (
        (DATA, "image/png"), (DATA, "application/octet-stream"), (form, "multipart/form-data; boundary=b"),
        ({"image": TEXT}, "application/json"),
    ):  # fmt: skip
        answer, _ = post(port, path, body, Content_Type=kind)
        yield by_label(json.loads(answer)["predictions"])


def open_inference(port: int) -> Iterator[list[float]]:
    path = "/v2/models/digits-keras/infer"
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES"}
    coded = tensor | {"parameters": {"content_type": "base64"}, "data": [TEXT]}
    answer, _ = post(port, path, {"inputs": [coded]})
    yield json.loads(answer)["outputs"][0]["data"]
    element = struct.pack("<I", len(DATA)) + DATA
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(element)}}]}).encode()
    answer, _ = post(port, path, head + element, **{LENGTH: str(len(head))})
    yield json.loads(answer)["outputs"][0]["data"]
    answer, headers = post(port, path, DATA, **{LENGTH: "0"})
    yield list(struct.unpack("<10f", answer[int(headers[LENGTH]) :]))


def tensorflow_serving(port: int) -> Iterator[list[float]]:
    path = "/v1/models/digits-keras"
    for body in ({"instances": [{"b64": TEXT}]}, {"inputs": {"image": [{"b64": TEXT}]}}):
        answer, _ = post(port, f"{path}:predict", body)
        found = json.loads(answer)
        yield (found.get("predictions") or found["outputs"])[0]
    answer, _ = post(port, f"{path}:classify", {"examples": [{"image": {"b64": TEXT}}]})
    yield by_label([{"label": label, "score": score} for label, score in json.loads(answer)["results"][0]])


def test_one_picture_has_one_answer(qtbot: QtBot, served: tuple[Engine, int], tmp_path: Path) -> None:
    engine, port = served
    window = build_window(engine, FakeServer(), Settings(), None, ())
    window.show()
    try:
        shown = asked_in_the_window(qtbot, window, DIGITS_KERAS, PICTURE, "image-classification")
    finally:
        window.close()
        qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)
    assert isinstance(shown.predictions, list)
    answers = {"native": [*native(port)], "v2": [*open_inference(port)], "tfs": [*tensorflow_serving(port)]}
    scores = answers["native"][0]
    assert [scores[int(entry["label"])] for entry in shown.predictions] == pytest.approx(
        [entry["score"] for entry in shown.predictions], abs=1e-6
    )
    for protocol, found in answers.items():
        assert len(found) >= 3, protocol
        for answer in found:
            assert answer == pytest.approx(scores, abs=1e-6), protocol
    told = run(["predict", DIGITS_KERAS, PICTURE, "--json"], tmp_path)
    assert told.process.returncode == 0
    (line,) = told.stdout
    for entry in json.loads(line)["predictions"]:
        assert entry["score"] == pytest.approx(scores[int(entry["label"])], abs=1e-6)
