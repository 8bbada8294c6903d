"""Deskside's own routes (``contract.md``, "HTTP, native routes"): health, models, predict.

Bodies are handed on as they came: nothing is decoded in the application's process.
"""

from __future__ import annotations

import math
import re
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.wrappers import Request

from embedded_server.data_plane import DataPlane
from embedded_server.metrics import CONTENT_TYPE, metrics_text
from embedded_server.protocols.bodies import (
    MODEL_ID,
    TIMEOUT,
    caller,
    header,
    json_response,
    read_body,
    timeout_ms,
)
from embedded_server.protocols.model_facts import CANNOT_ANSWER
from embedded_server.protocols.questions import Question, Reply, json_reply, question_view
from engine.errors import Loading, Malformed, ModelFailed, ModelNotFound
from engine.events import ModelState
from engine.prediction import Lane, Prediction, PredictRequest

MOST_TOP_K = 100_000

PNG = "image/png"
SHARES = ("threshold", "iou")
WORDS = ("masks", "depth", "subtask", "aggregation_strategy")
"""Parameters of tasks that choose one of a few forms."""
MOST_VERSION = 64

_PUBLIC_FIELDS = (
    "id", "task", "format", "runtime", "device", "state", "loads", "requests", "version", "versions", "golden",
)  # fmt: skip


def native_routes(plane: DataPlane, body_bytes: int) -> Blueprint:
    """The blueprint of the native routes over ``plane``; bodies of at most ``body_bytes`` bytes."""
    routes = Blueprint("native", __name__)

    @routes.get("/health/live")
    def live() -> Response:
        return json_response({"live": True})

    @routes.get("/health/ready")
    def ready() -> Response:
        check_ready(plane.engine.stats()["models"])
        return json_response({"ready": True})

    @routes.get("/models")
    def models() -> Response:
        entries = plane.visible_stats(caller(request))["models"]
        return json_response({"models": [public_entry(entry, caller(request).lane) for entry in entries]})

    @routes.get("/metrics")
    def metrics() -> Response:
        return Response(
            metrics_text(plane.visible_stats(caller(request)), plane.http_counts), content_type=CONTENT_TYPE
        )

    def predict(request: Request, model: str) -> Question:
        if MODEL_ID.fullmatch(model) is None:
            raise ModelNotFound("No such model is open.")
        asker = caller(request)
        question = PredictRequest(
            model=model,
            data=read_body(request, body_bytes),
            content_type=header(request, "CONTENT_TYPE") or None,
            params=query_params(request),
            lane=asker.lane,
            client=asker.client,
            key=asker.key_name,
            timeout_s=timeout_ms(header(request, TIMEOUT)) / 1000,
            version=query_version(request),
            draw=wants_picture(request),
        )
        return Question(question, _drawn if question.draw else _told)

    routes.add_url_rule("/predict/<model>", "predict", question_view(plane, predict), methods=["POST"])

    return routes


def _told(prediction: Prediction) -> Reply:
    return json_reply(prediction.to_json())


def _drawn(prediction: Prediction) -> Reply:
    if isinstance(prediction.predictions, dict):
        return Reply(prediction.predictions["image"], PNG)
    return _told(prediction)


def wants_picture(request: Request) -> bool:
    """Whether the caller would rather see the answer drawn than read it."""
    if PNG not in (header(request, "HTTP_ACCEPT") or "").lower():
        return False  # before it is taken to pieces, which costs more than the question
    accepted = request.accept_mimetypes
    return PNG in accepted.values() and accepted[PNG] > accepted["application/json"]


def public_entry(entry: dict[str, Any], lane: Lane) -> dict[str, Any]:
    """A model as ``GET /models`` shows it: no path, no error text; the worker's process id on this computer only."""
    shown = {name: entry[name] for name in _PUBLIC_FIELDS}
    if lane is Lane.LOOPBACK:
        shown["worker_pid"] = entry["worker_pid"]
    return shown


def check_ready(entries: list[dict[str, Any]]) -> None:
    """Raise Loading or ModelFailed where an offered model cannot answer. One that is not loaded yet can."""
    waiting = [entry for entry in entries if entry["offered"] and entry["state"] in CANNOT_ANSWER]
    if any(entry["state"] == ModelState.FAILED for entry in waiting):
        raise ModelFailed("A model could not be started.")
    if waiting:
        raise Loading("A model is still loading.")


def query_params(request: Request) -> dict[str, Any]:
    """``top_k`` (int), ``threshold`` and ``iou`` (0..1), and the words of :data:`WORDS`, where the query has them; the
    model's task checks the words. Raises Malformed."""
    params: dict[str, Any] = {}
    if not request.query_string:
        return params
    if (text := request.args.get("top_k")) is not None:
        if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= MOST_TOP_K:
            raise Malformed(f"top_k must be a whole number from 1 to {MOST_TOP_K}.")
        params["top_k"] = int(text)
    for name in SHARES:
        if (text := request.args.get(name)) is not None:
            try:
                share = float(text)
            except ValueError:
                share = math.nan
            if not 0.0 <= share <= 1.0:
                raise Malformed(f"{name} must be a number from 0 to 1.")
            params[name] = share
    for name in WORDS:
        if (text := request.args.get(name)) is not None:
            if re.fullmatch(r"[a-z0-9_-]{1,32}", text) is None:
                raise Malformed(f"{name} must be a word.")
            params[name] = text
    return params


def query_version(request: Request) -> str | None:
    """The version named in the query; None is the one that serves. Raises Malformed for a name that is none."""
    if not request.query_string:
        return None
    version = request.args.get("version")
    if version is not None and not 0 < len(version) <= MOST_VERSION:
        raise Malformed(f"version must be the name of a version, of at most {MOST_VERSION} characters.")
    return version
