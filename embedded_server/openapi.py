"""The description of every route in OpenAPI 3.1, made of the types that requests are checked with.

Answers are described by the types below; the test suite holds real answers to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import models_json_schema

from embedded_server.protocols.bodies import LONGEST_TIMEOUT_MS, TIMEOUT_HEADER
from embedded_server.protocols.native import MOST_TOP_K, MOST_VERSION, SHARES, WORDS
from embedded_server.protocols.open_inference import HEADER_LENGTH
from engine.codecs.json_inputs import FORMS
from engine.codecs.media_types import CSV, JSON, NPY, NPZ, OCTET_STREAM, PARQUET, TEXT
from engine.codecs.open_inference import InferRequest
from engine.codecs.tensorflow_serving import ExamplesBody, PredictBody

PICTURES = "image/*"
RECORDINGS = "audio/*"
Schema: TypeAlias = dict[str, Any]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorFacts(_Answer):
    code: str
    message: str
    request_id: str


class NativeError(_Answer):
    error: ErrorFacts


class ProtocolError(_Answer):
    error: str


class Live(_Answer):
    live: bool


class Ready(_Answer):
    ready: bool


class Counter(_Answer):
    window: int
    network: int


class ModelEntry(BaseModel):
    """One open model. Fields may be added."""

    id: str
    task: str | None
    format: str | None
    runtime: str | None
    device: str
    state: str
    loads: int
    requests: Counter
    version: str | None
    versions: list[str]


class Models(_Answer):
    models: list[ModelEntry]


class Timing(_Answer):
    """Milliseconds."""

    decode: float
    wait: float
    infer: float
    post: float
    total: float


class Tensor(_Answer):
    dtype: str
    shape: list[int]
    data: Any


class PredictAnswer(_Answer):
    """Exactly one of ``predictions``, ``results`` and ``outputs``."""

    model: str
    version: str
    task: str
    predictions: list[Any] | dict[str, Any] | None = None
    results: list[dict[str, Any]] | None = None
    outputs: dict[str, Tensor] | None = None
    timing_ms: Timing


class ServerMetadata(_Answer):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(_Answer):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Answer):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(_Answer):
    name: str
    ready: bool


class ModelConfig(BaseModel):
    """Triton's ModelConfig, as far as it says something here."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]


class ModelStatistics(_Answer):
    """Triton's statistics extension."""

    model_stats: list[dict[str, Any]]


class ResponseOutput(_Answer):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] = Field(default_factory=list)


class InferResponse(_Answer):
    id: str | None = None
    model_name: str
    model_version: str
    outputs: list[ResponseOutput]


class IndexEntry(_Answer):
    name: str
    version: str
    state: str
    reason: str


class VersionStatus(_Answer):
    version: str
    state: str
    status: dict[str, str]


class StatusAnswer(_Answer):
    model_version_status: list[VersionStatus]


class MetadataAnswer(_Answer):
    model_spec: dict[str, str]
    metadata: dict[str, Any]


class PredictionsAnswer(_Answer):
    """``predictions`` for rows, ``outputs`` for columns."""

    predictions: list[Any] | None = None
    outputs: Any = None


class ResultsAnswer(_Answer):
    results: list[Any]


class RepositoryRequest(BaseModel):
    """``ready``: only the models that answer. Files and configurations are not taken."""

    ready: bool = False
    parameters: dict[str, Any] = Field(default_factory=dict)


_NATIVE_BODY = {
    form: create_model(f"{form.capitalize()}Body", __config__=ConfigDict(extra="forbid"), **{form: (kind, ...)})  # type: ignore[call-overload]
    for form, kind in FORMS.items()
}
_BINARY = {"type": "string", "format": "binary"}
_REFS = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. ``bodies`` and ``answers``: media type, or status, -> a type or a schema."""

    method: str
    path: str
    summary: str
    answers: dict[int, Any]
    bodies: dict[str, Any] = field(default_factory=dict)
    parameters: tuple[Schema, ...] = ()
    keyless: bool = False
    errors: tuple[int, ...] = ()
    protocol: str = "native"
    answers_in: str = JSON
    drawn: bool = False
    """Whether a caller that accepts PNG gets the answer drawn over its picture."""


def parameter(name: str, where: str, schema: Schema, what: str) -> Schema:
    return {"name": name, "in": where, "required": where == "path", "schema": schema, "description": what}


_TIMEOUT = parameter(
    TIMEOUT_HEADER, "header", {"type": "integer", "minimum": 1, "maximum": LONGEST_TIMEOUT_MS},
    "How long to wait for the answer, in milliseconds.",
)  # fmt: skip
_PREDICT_PARAMETERS = (
    parameter("top_k", "query", {"type": "integer", "minimum": 1, "maximum": MOST_TOP_K}, "How many at most."),
    *(parameter(name, "query", {"type": "number", "minimum": 0, "maximum": 1}, "See the task.") for name in SHARES),
    *(parameter(name, "query", {"type": "string", "pattern": "^[a-z0-9_-]{1,32}$"}, "See the task.") for name in WORDS),
    parameter(
        "version", "query", {"type": "string", "minLength": 1, "maxLength": MOST_VERSION}, "Which version answers."
    ),
    _TIMEOUT,
)
_HEADER_LENGTH = parameter(
    HEADER_LENGTH, "header", {"type": "integer", "minimum": 0},
    "Bytes of JSON before the binary tensors; 0: the whole body is one tensor.",
)  # fmt: skip
_ASKING = (400, 404, 413, 503)


def operations() -> Iterator[Operation]:
    """Every operation that a program may call."""
    yield Operation("GET", "/health/live", "The server answers.", {200: Live}, keyless=True)
    yield Operation("GET", "/health/ready", "Every model can answer.", {200: Ready}, keyless=True, errors=(503,))
    yield Operation("GET", "/models", "The models that can be asked.", {200: Models})
    yield Operation("GET", "/metrics", "Numbers for Prometheus.", {200: {"type": "string"}}, answers_in="text/plain")
    bodies: dict[str, Any] = dict.fromkeys(
        (PICTURES, RECORDINGS, CSV, TEXT, PARQUET, NPY, NPZ, OCTET_STREAM, "multipart/form-data"), _BINARY
    )
    bodies["multipart/form-data"] = {
        "type": "object", "properties": {"file": _BINARY}, "additionalProperties": _BINARY, "required": ["file"],
    }  # fmt: skip
    yield Operation(
        "POST", "/predict/{model}", "Ask a model.", {200: PredictAnswer},
        bodies | {JSON: {"anyOf": [{"$ref": _REFS.format(model=t.__name__)} for t in _NATIVE_BODY.values()]}},
        _PREDICT_PARAMETERS, errors=(*_ASKING, 415, 422, 504, 507), drawn=True,
    )  # fmt: skip
    yield from _open_inference()
    yield from _tensorflow_serving()


def _open_inference() -> Iterator[Operation]:
    def operation(method: str, path: str, summary: str, answers: dict[int, Any], **more: Any) -> Operation:
        return Operation(method, f"/v2{path}", summary, answers, protocol="open-inference", **more)

    yield operation("GET", "", "What this server is.", {200: ServerMetadata})
    yield operation("GET", "/health/live", "The server answers.", {200: Live}, keyless=True)
    yield operation("GET", "/health/ready", "Every model can answer.", {200: Ready, 400: Ready}, keyless=True)
    yield operation("GET", "/models/stats", "What all models have done.", {200: ModelStatistics})
    for version in ("", "/versions/{version}"):
        path = f"/models/{{model}}{version}"
        yield operation("GET", path, "A model's inputs and outputs.", {200: ModelMetadata}, errors=(404, 503))
        yield operation("GET", f"{path}/ready", "Whether a model can answer.", {200: ModelReady, 400: ModelReady},
                        errors=(404,))  # fmt: skip
        yield operation("GET", f"{path}/config", "A model's configuration.", {200: ModelConfig}, errors=(404, 503))
        yield operation("GET", f"{path}/stats", "What a model has done.", {200: ModelStatistics}, errors=(404,))
        yield operation(
            "POST", f"{path}/infer", "Ask a model with its own tensors, or with encoded pictures.",
            {200: InferResponse}, bodies={JSON: InferRequest, OCTET_STREAM: _BINARY},
            parameters=(_HEADER_LENGTH, _TIMEOUT), errors=(*_ASKING, 500, 501),
        )  # fmt: skip
    off = {"errors": (400, 403, 404, 413, 503), "bodies": {JSON: RepositoryRequest}}
    index = {"type": "array", "items": {"$ref": _REFS.format(model=IndexEntry.__name__)}}
    yield operation("POST", "/repository/index", "The models this server has had open.", {200: index}, **off)
    for verb in ("load", "unload"):
        yield operation(
            "POST", f"/repository/models/{{model}}/{verb}", f"{verb.capitalize()} a model.", {200: None}, **off
        )


def _tensorflow_serving() -> Iterator[Operation]:
    def operation(method: str, path: str, summary: str, answer: Any, **more: Any) -> Operation:
        return Operation(method, f"/v1/models{path}", summary, {200: answer}, protocol="tensorflow-serving", **more)

    yield Operation(
        "GET", "/v1/models", "Nothing: a model's name is needed.", {}, errors=(400,), protocol="tensorflow-serving"
    )
    for which in ("", "/versions/{version}", "/labels/{label}"):
        path = f"/{{model}}{which}"
        yield operation("GET", path, "A model's versions and their state.", StatusAnswer, errors=(400, 404))
        yield operation("GET", f"{path}/metadata", "A model's signature.", MetadataAnswer, errors=(400, 404, 503))
        for verb, body, answer in (
            ("predict", PredictBody, PredictionsAnswer),
            ("classify", ExamplesBody, ResultsAnswer),
            ("regress", ExamplesBody, ResultsAnswer),
        ):
            yield operation(
                "POST", f"{path}:{verb}", f"{verb.capitalize()}, as TensorFlow Serving does.", answer,
                bodies={JSON: body}, parameters=(_TIMEOUT,), errors=(*_ASKING, 500, 501, 504),
            )  # fmt: skip


# -- the document ------------------------------------------------------------------------------------------------------
def openapi(version: str) -> Schema:
    """The whole document; ``version`` is this program's."""
    found = list(operations())
    types = [t for op in found for t in (*op.bodies.values(), *op.answers.values()) if isinstance(t, type)]
    types += [NativeError, ProtocolError, IndexEntry, *_NATIVE_BODY.values()]
    unique = list(dict.fromkeys(types))
    _, schemas = models_json_schema([(t, "validation") for t in unique], ref_template=_REFS)
    paths: dict[str, Schema] = {}
    for op in found:
        paths.setdefault(op.path, {})[op.method.lower()] = _operation(op)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Deskside",
            "version": version,
            "description": "One loaded model, three ways to ask it: native routes, the Open Inference Protocol and "
            "TensorFlow Serving's REST API.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key that the owner gave."},
                "basic": {"type": "http", "scheme": "basic", "description": "The key as the password."},
            },
        },
        "security": [{"bearer": []}, {"basic": []}],
    }


def _operation(op: Operation) -> Schema:
    names = [part.partition("}")[0] for part in op.path.split("{")[1:]]
    made: Schema = {
        "summary": op.summary,
        "tags": [op.protocol],
        "operationId": f"{op.method.lower()}{op.path}".replace("/", "_").replace("{", "").replace("}", ""),
        "parameters": [*(parameter(n, "path", {"type": "string", "minLength": 1}, "") for n in names), *op.parameters],
        "responses": {},
    }
    if op.keyless:
        made["security"] = []
    if op.bodies:
        content = {kind: {"schema": _schema(t)} for kind, t in op.bodies.items()}
        made["requestBody"] = {"required": op.protocol != "open-inference" or "infer" in op.path, "content": content}
    error = NativeError if op.protocol == "native" else ProtocolError
    for status, answer in op.answers.items():
        content = {} if answer is None else {op.answers_in: {"schema": _schema(answer)}}
        made["responses"][str(status)] = {
            "description": "Answered." if status == 200 else "Not ready.",
            "content": content,
        }
    if op.drawn:
        made["responses"]["200"]["content"]["image/png"] = {"schema": _BINARY}
    # What the door says before a route is asked; 405 and 404 are those of paths and names that are none.
    for status in (*op.errors, 400, 401, 403, 404, 429, 503):
        answers = made["responses"].setdefault(
            str(status), {"description": "Not answered.", "content": {JSON: {"schema": _schema(error)}}}
        )
        if status in op.answers and status != 200 and "anyOf" not in answers["content"][JSON]["schema"]:
            both = [answers["content"][JSON]["schema"], _schema(error)]
            answers["content"][JSON]["schema"] = {"anyOf": both}
    return made


def _schema(kind: Any) -> Schema:
    return {"$ref": _REFS.format(model=kind.__name__)} if isinstance(kind, type) else kind
