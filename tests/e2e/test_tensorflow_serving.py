"""TensorFlow Serving's REST API: requests of its public documentation and tests, replayed; each names its source.

DOC: https://github.com/tensorflow/serving/blob/master/tensorflow_serving/g3doc/api_rest.md
JSON: https://github.com/tensorflow/serving/blob/master/tensorflow_serving/util/json_tensor_test.cc
HTTP: https://github.com/tensorflow/serving/blob/master/tensorflow_serving/model_servers/http_rest_api_handler_test.cc
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from embedded_server.controller import ServeOptions, ServerController
from engine.engine import Engine
from engine.prediction import PredictRequest
from engine.settings import Settings
from tests.e2e.program import DIGITS_KERAS, PATIENCE_S, WINE, Client

pytestmark = pytest.mark.real
FLOAT, INT, TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def write(folder: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], **numbers: Any) -> None:
    folder.mkdir(parents=True)
    ends = [
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in side.items()]
        for side in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(np.array(value), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "g", *ends, weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), folder / "model.onnx")


def half_plus_three(folder: Path, shape: list[Any]) -> None:
    nodes = [helper.make_node("Mul", ["x", "half"], ["h"]), helper.make_node("Add", ["h", "three"], ["y"])]
    numbers = {"half": np.float32(0.5), "three": np.float32(3)}
    write(folder, nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, shape)}, **numbers)


def models(folder: Path) -> list[Path]:
    half_plus_three(folder / "half_plus_three" / "123", ["n"])
    half_plus_three(folder / "rent", ["n", 1])
    (folder / "rent" / "deskside.toml").write_text('task = "tabular-regression"\ncolumns = ["x"]\n')
    nodes = [
        helper.make_node("StringConcat", ["tag", "tag"], ["tags"]),
        helper.make_node("ReduceSum", ["signal", "axes"], ["total"], keepdims=0),
        helper.make_node("Identity", ["sensor"], ["seen"]),
        helper.make_node("Identity", ["tag"], ["tag_bytes"]),
    ]
    inputs = {"tag": (TEXT, ["n"]), "signal": (INT, ["n", 5]), "sensor": (FLOAT, ["n", 2, 2])}
    outputs = {
        "tags": (TEXT, ["n"]), "total": (INT, ["n"]), "seen": (FLOAT, ["n", 2, 2]), "tag_bytes": (TEXT, ["n"]),
    }  # fmt: skip
    write(folder / "sensors", nodes, inputs, outputs, axes=np.array([1], np.int64))
    return [folder / "half_plus_three", folder / "rent", folder / "sensors", WINE, DIGITS_KERAS]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, str]]:
    folder = tmp_path_factory.mktemp("served")
    settings = Settings()
    with Engine(settings, folder=folder / "engine") as engine:
        for load in [engine.load(path) for path in models(folder / "models")]:
            load.future.result(PATIENCE_S)
        server = ServerController(engine, settings.server, folder)
        try:
            yield engine, f"http://127.0.0.1:{server.start_at(ServeOptions(port=0)).port}"
        finally:
            server.stop()


@pytest.fixture
def client(served: tuple[Engine, str]) -> Iterator[Client]:
    made = Client(served[1])
    yield made
    made.connection.close()


def post(client: Client, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    """A body as ``curl -d`` sends it: called a form, and JSON all the same."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    status, answer, _ = client.ask("POST", f"/v1/models/{path}", data, kind | headers)
    return status, answer


SENSORS = [
    {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
    {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
]


def test_the_status_of_the_documentation(client: Client) -> None:
    """DOC, "Make REST API calls to ModelServer"."""
    known = {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("", "/versions/123", "/labels/stable"):
        assert client.get(f"/v1/models/half_plus_three{path}") == (200, {"model_version_status": [known]})


def test_predict_of_the_documentation(client: Client) -> None:
    """DOC, "Make REST API calls to ModelServer"."""
    for path in ("", "/versions/123", "/labels/stable"):
        answer = post(client, f"half_plus_three{path}:predict", {"instances": [1.0, 2.0, 5.0]})
        assert answer == (200, {"predictions": [3.5, 4.0, 5.5]})
    assert post(client, "half_plus_three:predict", {"inputs": [1.0, 2.0]}) == (200, {"outputs": [3.5, 4.0]})
    assert post(client, "half_plus_three:predict", {"inputs": {"x": [1, 2]}}) == (200, {"outputs": [3.5, 4.0]})
    named = {"signature_name": "serving_default", "instances": [{"x": 1.0}, {"x": 2.0}]}
    assert post(client, "half_plus_three:predict", named) == (200, {"predictions": [3.5, 4.0]})


def test_regress_of_the_documentation(client: Client) -> None:
    """DOC, "Make REST API calls to ModelServer": the answer's key is ``results``."""
    body = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": [2.0]}]}
    assert post(client, "rent:regress", body) == (200, {"results": [3.5, 4.0]})
    shared = {"context": {"x": 5.0}, "examples": [{}, {}]}
    assert post(client, "rent:regress", shared) == (200, {"results": [5.5, 5.5]})


def test_rows_and_columns_of_several_inputs(client: Client) -> None:
    """DOC, "Specifying input tensors in row format" and "in column format", "Output of binary values"."""
    rows = post(client, "sensors:predict", {"instances": SENSORS})
    foo, bar = ({"b64": base64.b64encode(tag).decode()} for tag in (b"foo", b"bar"))
    assert rows == (
        200,
        {
            "predictions": [
                {"tags": "foofoo", "total": 15, "seen": [[1.0, 2.0], [3.0, 4.0]], "tag_bytes": foo},
                {"tags": "barbar", "total": 15, "seen": [[4.0, 5.0], [6.0, 8.0]], "tag_bytes": bar},
            ]
        },
    )
    columns = {name: [row[name] for row in SENSORS] for name in SENSORS[0]}
    assert post(client, "sensors:predict", {"inputs": columns}) == (
        200,
        {
            "outputs": {
                "tags": ["foofoo", "barbar"], "total": [15, 15], "tag_bytes": [foo, bar],
                "seen": [[[1.0, 2.0], [3.0, 4.0]], [[4.0, 5.0], [6.0, 8.0]]],
            }
        },
    )  # fmt: skip


def test_bytes_in_base64(client: Client) -> None:
    """DOC, "Encoding binary values"."""
    row = SENSORS[0] | {"tag": {"b64": "aW1hZ2UgYnl0ZXM="}}
    status, answer = post(client, "sensors:predict", {"instances": [row]})
    assert (status, answer["predictions"][0]["tags"]) == (200, "image bytesimage bytes")


def test_words_that_json_has_not(client: Client) -> None:
    """DOC, "JSON conformance": the bare words NaN and Infinity go in and come out."""
    data = b'{"instances": [1.0, NaN, Infinity, -Infinity]}'
    client.connection.request("POST", "/v1/models/half_plus_three:predict", data)
    response = client.connection.getresponse()
    assert response.read().replace(b" ", b"") == b'{"predictions":[3.5,NaN,Infinity,-Infinity]}'


def test_metadata_nests_twice(client: Client) -> None:
    """HTTP, GetModelMetadata; apis/get_model_metadata.proto in its JSON form."""
    status, body = client.get("/v1/models/half_plus_three/metadata")
    assert (status, body["model_spec"]) == (200, {"name": "half_plus_three", "signature_name": "", "version": "123"})
    signature = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "x:0",
    }
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_a_packed_body_is_unpacked(client: Client) -> None:
    """HTTP: gzip bodies are decompressed."""
    body = gzip.compress(b'{"instances": [1.0]}')
    answer = post(client, "half_plus_three:predict", body, **{"Content-Encoding": "gzip"})
    assert answer == (200, {"predictions": [3.5]})


def test_a_large_body_is_read_by_the_worker(client: Client) -> None:
    values = np.arange(100_000, dtype=np.float64).tolist()
    status, answer = post(client, "half_plus_three:predict", {"instances": values})
    assert (status, answer["predictions"][-1]) == (200, 99_999 / 2 + 3)


def test_one_picture_has_the_windows_answer(client: Client, served: tuple[Engine, str]) -> None:
    picture = (DIGITS_KERAS / "samples" / "digit-7.png").read_bytes()
    request = PredictRequest("digits-keras", picture, "image/png", params={"top_k": 10})
    window = {e["label"]: e["score"] for e in served[0].predict(request).result(PATIENCE_S).predictions}
    scores = [window[str(number)] for number in range(10)]
    text = {"b64": base64.b64encode(picture).decode()}
    for body in ({"instances": [text, text]}, {"instances": [{"image": text}, {"image": text}]}):
        status, answer = post(client, "digits-keras:predict", body)
        assert status == 200
        assert answer["predictions"] == [pytest.approx(scores, abs=1e-6)] * 2
    status, answer = post(client, "digits-keras:classify", {"examples": [{"image": text}]})
    assert status == 200
    ((best, *others),) = answer["results"]
    assert (best[0], best[1], len(others)) == ("7", pytest.approx(scores[7], abs=1e-6), 9)


def test_classify_takes_named_features(client: Client) -> None:
    lines = (WINE / "samples" / "cellar.csv").read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines[1:3]]
    status, answer = post(client, "wine:classify", {"examples": rows})
    assert (status, len(answer["results"])) == (200, 2)
    assert sum(score for _, score in answer["results"][0]) == pytest.approx(1.0, abs=1e-5)


ERRORS = [
    ("half:predict", {"instances": [1.0, 5.0]}, 404, "Servable not found for request: Latest(half)"),  # DOC
    ("half_plus_three/versions/3:predict", {"instances": [1]}, 404,
     "Servable not found for request: Specific(half_plus_three, 3)"),  # HTTP
    ("half_plus_three/labels/no:predict", {"instances": [1]}, 404,
     "Servable not found for request: Specific(half_plus_three, no)"),  # HTTP
    ("half_plus_three:predict", b"", 400, "The request has no body."),
    ("half_plus_three:predict", b"{", 400, "JSON Parse error: "),  # JSON, DeserializeErrors
    ("half_plus_three:predict", [1], 400, "Failed to process json as it is not an object"),
    ("half_plus_three:predict", {"x": 1}, 400, "Missing 'inputs' or 'instances' key"),  # JSON
    ("half_plus_three:predict", {"instances": [], "inputs": []}, 400, "Not formatted correctly"),  # JSON
    ("half_plus_three:predict", {"instances": []}, 400, "No values in 'instances' array"),  # JSON
    ("half_plus_three:predict", {"instances": 1}, 400, "Expecting 'instances' to be an list/array"),  # JSON
    ("half_plus_three:predict", {"instances": [[1], [1, 2]]}, 400, "Encountered list at unexpected size"),  # JSON
    ("half_plus_three:predict", {"instances": [[1.0]]}, 400, "input 'x' must have shape [?], but has [1,1]"),
    ("half_plus_three:predict", {"instances": ["a"]}, 400, "JSON Value: a Type: string is not of expected type"),
    ("half_plus_three:predict", {"instances": [1], "signature_name": "no"}, 400,
     'Serving signature key "no" not found.'),
    ("sensors:predict", {"instances": [{"tag": "a"}]}, 400, "Missing named input: sensor"),  # JSON
    ("sensors:predict", {"instances": [{**SENSORS[0], "more": 1}]}, 400, "Failed to process element"),  # JSON
    ("sensors:predict", {"instances": [SENSORS[0], {"tag": "a"}]}, 400, "Failed to process element"),  # JSON
    ("sensors:predict", {"instances": [{**SENSORS[0], "signal": [1.0, 2, 3, 4, 5]}]}, 400,
     "JSON Value of 'signal' is not of expected type: int64"),  # JSON: no 1.0 for a whole number
    ("sensors:predict", {"instances": [{**SENSORS[0], "tag": {"b64": "!"}}]}, 400, "input 'tag' is not valid base64"),
    ("half_plus_three:divide", {"instances": [1]}, 400, "Malformed request: POST /v1/models/half_plus_three:divide"),
    ("half_plus_three:classify", {"examples": [{"x": 1}]}, 400, "Expected classification signature"),
    ("rent:regress", {"examples": []}, 400, "'examples' must not be empty"),  # JSON
    ("rent:regress", {"example": [{}]}, 400, "Expecting 'examples' value to be an array"),  # JSON
    ("rent:regress", {"context": {"x": 1}, "examples": [{"x": 1}]}, 400,
     "Context and example have feature name x in common"),
    ("rent:regress", {"examples": [{"y": 1}]}, 400, "The table has no column 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "words"), ERRORS)
def test_errors_have_their_shape_and_words(client: Client, path: str, body: Any, status: int, words: str) -> None:
    found, answer = post(client, path, body)
    assert (found, list(answer)) == (status, ["error"])
    assert answer["error"].startswith(words)


def test_paths_that_are_none(client: Client) -> None:
    """HTTP: what no pattern matches is a malformed request."""
    assert client.get("/v1/models") == (400, {"error": "Missing model name in request."})
    assert client.get("/v1/models/half_plus_three/versions/x")[0] == 400
    status, body = client.get("/v1/models/half_plus_three:predict")
    assert (status, body["error"].partition(":")[0]) == (400, "Malformed request")
