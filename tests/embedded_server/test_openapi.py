"""The OpenAPI document: every route and no other is in it, and a server keeps to it, whatever it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from onnx import TensorProto, helper, save
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from embedded_server.app import PAGES
from embedded_server.controller import ServeOptions, ServerController
from embedded_server.openapi import openapi, operations
from embedded_server.protocols.bodies import TIMEOUT_HEADER
from engine.engine import Engine
from engine.settings import Settings
from tests.embedded_server.wsgi import KEYED, LAN, Door2Client
from tests.engine.engine_harness import PATIENCE_S
from tests.fakes import FakeEngine

DOCUMENT = openapi("1")
EXAMPLES = 20
MANY = 500


def test_every_route_is_described_and_nothing_else(engine: FakeEngine) -> None:
    pages = {path for path, _, _ in PAGES}
    routes = set()
    for rule in Door2Client(engine).app.url_map.iter_rules():
        path = rule.rule.replace("<", "{").replace(">", "}")
        verbs = ("predict", "classify", "regress") if path.endswith(":{verb}") else ("",)
        for method in (rule.methods or set()) - {"HEAD"}:
            routes |= {(method, path.replace("{verb}", verb)) for verb in verbs if path not in pages}
    assert routes == {(op.method, op.path) for op in operations()}


def test_what_needs_no_key_is_said(engine: FakeEngine) -> None:
    http = Door2Client(engine, rules=KEYED)
    for op in operations():
        path = op.path.replace("{model}", "digits-keras").replace("{version}", "1").replace("{label}", "stable")
        response = http.ask(op.method, path, data=b"{}", environ_overrides=LAN)
        assert (response.status_code != 401) is op.keyless, op.path


def test_the_document_and_the_page_are_served(engine: FakeEngine) -> None:
    http = Door2Client(engine)
    document = http.ask("GET", "/openapi.json").get_json()
    assert document["openapi"] == "3.1.0"
    assert document["paths"] == DOCUMENT["paths"]
    page = http.ask("GET", "/docs").get_data(as_text=True)
    assert "<!-- reference -->" not in page
    for op in operations():
        assert f"<code>{op.method} {op.path}</code>" in page
    assert "<script" not in page


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server with a model of numbers, one of words and one of a table, which the document's examples name."""
    folder = tmp_path_factory.mktemp("served")
    kinds = {"numbers": TensorProto.FLOAT, "words": TensorProto.STRING}
    for name, kind in kinds.items():
        ends = [[helper.make_tensor_value_info(end, kind, ["n", 2])] for end in "xy"]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", *ends)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        (folder / name).mkdir()
        save(made, folder / name / "model.onnx")
    (folder / "table").mkdir()
    (folder / "table" / "model.onnx").write_bytes((folder / "numbers" / "model.onnx").read_bytes())
    (folder / "table" / "deskside.toml").write_text('task = "tabular-classification"\ncolumns = ["a", "b"]\n')
    with Engine(Settings(), folder=folder / "engine") as engine:
        for load in [engine.load(folder / name) for name in (*kinds, "table")]:
            load.future.result(PATIENCE_S)
        server = ServerController(engine, Settings().server, folder)
        try:
            yield f"http://127.0.0.1:{server.start_at(ServeOptions(port=0)).port}"
        finally:
            server.stop()


def with_examples(document: dict[str, Any]) -> dict[str, Any]:
    """Half of the names that are tried are names that there are."""
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                if parameter["name"] == TIMEOUT_HEADER:
                    parameter["schema"]["minimum"] = 10_000  # a deadline that ends is a 503 or 504, and right
                if parameter["in"] == "path":
                    known = {"model": ["numbers", "words", "table"], "version": ["1", "2"], "label": ["stable"]}
                    names = {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,20}$"}
                    parameter["schema"] = {"anyOf": [{"enum": known[parameter["name"]]}, names]}
    return document


@schemathesis.serializer("application/vnd.apache.parquet", "application/x-npy", "application/x-npz", "audio/*")
def as_it_is(_context: Any, value: Any) -> Any:
    return value


SCHEMA = schemathesis.openapi.from_dict(with_examples(openapi("1")))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
KEEP = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip


def hold(case: Any, url: str) -> None:
    response = case.call(base_url=url, timeout=PATIENCE_S)
    case.validate_response(response, checks=CHECKS)


@SCHEMA.parametrize()
@KEEP
def test_a_server_keeps_to_its_document(case: Any, url: str) -> None:
    hold(case, url)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@SCHEMA.parametrize()
@settings(KEEP, max_examples=MANY)
def test_a_server_keeps_to_its_document_at_length(case: Any, url: str) -> None:
    hold(case, url)
