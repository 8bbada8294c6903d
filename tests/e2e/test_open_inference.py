"""The Open Inference Protocol through the whole product: ``tritonclient`` and plain HTTP against a running server."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from embedded_server.controller import ServeOptions, ServerController
from engine.engine import Engine
from engine.prediction import PredictRequest
from engine.settings import Settings
from tests.e2e.ask_triton import KINDS
from tests.e2e.program import DIGITS_KERAS, PATIENCE_S, ROOT, Client

pytestmark = pytest.mark.real
PICTURE = DIGITS_KERAS / "samples" / "digit-7.png"
LENGTH = "Inference-Header-Content-Length"


def write(folder: Path, name: str, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    (folder / name).mkdir()
    ends = [[helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in side.items()]
            for side in (inputs, outputs)]  # fmt: skip
    graph = helper.make_graph(nodes, "g", *ends)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    save(made, folder / name / "model.onnx")


def models(folder: Path) -> list[Path]:
    """Sums and products of two inputs, an echo of each kind of number, words said twice, and a picture classifier."""
    number, text = (TensorProto.FLOAT, ["n", "m"]), (TensorProto.STRING, ["n", "m"])
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])]
    write(folder, "sums", nodes, {"a": number, "b": number}, {"sum": number, "product": number})
    for name in KINDS:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(name)), ["n", "m"]
        write(folder, f"kind-{name}", [helper.make_node("Identity", ["x"], ["y"])], {"x": kind}, {"y": kind})
    write(folder, "words", [helper.make_node("StringConcat", ["x", "x"], ["y"])], {"x": text}, {"y": text})
    shutil.copytree(DIGITS_KERAS, folder / "digits")
    return [folder / name for name in ("sums", *(f"kind-{name}" for name in KINDS), "words", "digits")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, str]]:
    folder = tmp_path_factory.mktemp("served")
    settings = Settings.model_validate({"server": {"repository_control": True}})
    with Engine(folder=folder / "engine") as engine:
        (folder / "models").mkdir()
        for load in [engine.load(path) for path in models(folder / "models")]:
            load.future.result(PATIENCE_S)
        server = ServerController(engine, settings.server, folder)
        try:
            yield engine, f"http://127.0.0.1:{server.start_at(ServeOptions(port=0)).port}"
        finally:
            server.stop()


@pytest.fixture(scope="module")
def triton(served: tuple[Engine, str]) -> dict[str, Any]:
    """What ``tritonclient`` was told, after every one of its own checks passed."""
    address = served[1].removeprefix("http://")
    command = [sys.executable, "-m", "tests.e2e.ask_triton", address, str(PICTURE)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": "ignore"}, capture_output=True, timeout=PATIENCE_S,
        check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout))


def ask(url: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    client = Client(url)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        return client.ask(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
    finally:
        client.connection.close()


def test_tritonclient_drives_every_verb(triton: dict[str, Any]) -> None:
    assert triton["aio"] == pytest.approx(triton["scores"], abs=1e-6)
    assert len(triton["classes"]) == 3
    value, index, label = triton["classes"][0].split(":")
    assert (index, label) == ("7", "7")
    assert float(value) == pytest.approx(triton["scores"][7], abs=1e-6)


def test_tritonclient_reads_the_sentences_it_knows(triton: dict[str, Any]) -> None:
    errors = triton["errors"]
    assert errors["model"] == "404 Request for unknown model: 'nobody' is not found"
    assert errors["version"] == "404 Request for unknown model: 'sums' version 9 is not found"
    assert errors["shape"] == "400 unexpected shape for input 'b' for model 'sums'. Expected [-1,-1], got [2,2,2]."
    assert errors["dtype"] == "400 inference input 'a' data-type is 'INT32', but model 'sums' expects 'FP32'"
    assert errors["missing"].startswith("400 expected 2 inputs but got 1 inputs for model 'sums'.")
    assert errors["surplus"] == "400 unexpected inference input 'c' for model 'sums'"
    assert errors["output"] == "400 unexpected inference output 'z' for model 'sums'"
    assert errors["files"].startswith("400 failed to load")


def test_one_picture_has_one_answer_in_every_form(served: tuple[Engine, str], triton: dict[str, Any]) -> None:
    engine, url = served
    picture = PICTURE.read_bytes()
    request = PredictRequest("digits", picture, "image/png", params={"top_k": 10})
    window = {entry["label"]: entry["score"] for entry in engine.predict(request).result(PATIENCE_S).predictions}
    scores = [window[str(number)] for number in range(10)]
    assert triton["scores"] == pytest.approx(scores, abs=1e-6)
    text = base64.b64encode(picture).decode()
    forms = [
        {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"content_type": "base64"}, "data": [text]},
        {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": {"content_type": "pillow_image"},
         "data": [[text]]},
        {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]},
    ]  # fmt: skip
    for form in forms:
        status, body, _ = ask(url, "POST", "/v2/models/digits/infer", {"inputs": [form]})
        assert status == 200, body
        assert body["outputs"][0]["datatype"] == "FP32"
        assert body["outputs"][0]["data"] == pytest.approx(scores, abs=1e-6)


def test_a_raw_request_is_one_tensor_or_one_picture(served: tuple[Engine, str]) -> None:
    _, url = served
    status, _, headers = ask(
        url, "POST", "/v2/models/digits/infer", PICTURE.read_bytes(), Inference_Header_Content_Length="0"
    )
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    raw = struct.pack("<3f", 1.0, 2.5, -3.0)
    client = Client(url)
    client.connection.request("POST", "/v2/models/kind-float32/infer", raw, {LENGTH: "0"})
    response = client.connection.getresponse()
    data, length = response.read(), int(response.headers[LENGTH])
    client.connection.close()
    assert json.loads(data[:length])["outputs"][0]["shape"] == [1, 3]
    assert data[length:] == raw


def test_the_byte_exact_example_of_the_extension(served: tuple[Engine, str]) -> None:
    """A JSON header, then each binary input's bytes in the order of ``inputs``, no padding."""
    _, url = served
    head = json.dumps(
        {
            "id": "7",
            "inputs": [
                {"name": "a", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
                {"name": "b", "shape": [1, 2], "datatype": "FP32", "data": [[3.0, 4.0]]},
            ],
            "outputs": [{"name": "sum", "parameters": {"binary_data": True}}, {"name": "product"}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    client = Client(url)
    client.connection.request(
        "POST", "/v2/models/sums/infer", head + struct.pack("<2f", 1, 2), {LENGTH: str(len(head))}
    )
    response = client.connection.getresponse()
    data, length = response.read(), int(response.headers[LENGTH])
    client.connection.close()
    told = json.loads(data[:length])
    assert (told["id"], told["model_name"]) == ("7", "sums")
    assert told["outputs"][0] == {
        "name": "sum", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8},
    }  # fmt: skip
    # As Triton's code has it: a listed output that does not ask for it is JSON whatever the request's flag says.
    assert told["outputs"][1]["data"] == [3.0, 8.0]
    assert data[length:] == struct.pack("<2f", 4, 6)


def test_a_large_json_body_is_read_by_the_worker(served: tuple[Engine, str]) -> None:
    _, url = served
    values = np.arange(60_000, dtype=np.float32).reshape(2, 30_000)
    inputs = [{"name": name, "shape": [2, 30_000], "datatype": "FP32", "data": values.tolist()} for name in "ab"]
    status, body, _ = ask(url, "POST", "/v2/models/sums/infer", {"inputs": inputs, "outputs": [{"name": "sum"}]})
    assert status == 200
    assert body["outputs"][0]["data"] == (values * 2).reshape(-1).tolist()


def test_numbers_that_json_has_not_are_null(served: tuple[Engine, str]) -> None:
    _, url = served
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [None, 1.0, -2.5]}
    _, body, _ = ask(url, "POST", "/v2/models/kind-float32/infer", {"inputs": [tensor]})
    assert body["outputs"][0]["data"] == [None, 1.0, -2.5]
    large = {"name": "x", "shape": [1, 2], "datatype": "INT64", "data": [2**62 + 1, -(2**62) - 1]}
    _, body, _ = ask(url, "POST", "/v2/models/kind-int64/infer", {"inputs": [large]})
    assert body["outputs"][0]["data"] == [2**62 + 1, -(2**62) - 1]


def test_a_timeout_in_microseconds_is_honoured(served: tuple[Engine, str]) -> None:
    _, url = served
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}
    body = {"inputs": [tensor], "parameters": {"timeout": 1, "priority": 1}}
    status, answer, _ = ask(url, "POST", "/v2/models/kind-float32/infer", body)
    assert (status, answer) == (503, {"error": "Request timeout expired"})
