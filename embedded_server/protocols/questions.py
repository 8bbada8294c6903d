"""A question to a model without the host that received it: what the engine is asked, and what its answer becomes.

Flask's view and the hot lane ask the same functions, so that their answers are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Response
from flask import request as asked
from werkzeug.wrappers import Request

from embedded_server.data_plane import DataPlane
from embedded_server.protocols.bodies import client_gone
from engine.prediction import Prediction, PredictRequest

ASK = "deskside_ask"
"""The attribute of a view that is a question: the function that makes it of a request and the parts of its path."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer over HTTP: its body in bytes, and the headers that are its own."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()

    def as_response(self) -> Response:
        response = Response(self.body, status=self.status, content_type=self.content_type)
        for name, value in self.headers:
            response.headers[name] = value
        return response


@dataclass(frozen=True, slots=True)
class Question:
    """``request`` is what the engine is asked; ``reply`` makes the answer of what it says, or raises an EngineError."""

    request: PredictRequest
    reply: Callable[[Prediction], Reply]


Ask = Callable[..., Question]
"""Called with the request and the parts of its path by name. Raises EngineError where nothing can be asked."""


def question_view(plane: DataPlane, ask: Ask) -> Callable[..., Response]:
    """Flask's view of a question: it waits on its own thread. Carries ``ask`` for who does not."""

    def view(**parts: Any) -> Response:
        request: Request = asked._get_current_object()  # type: ignore[attr-defined]  # Flask's documented way
        question = ask(request, **parts)
        prediction = plane.ask(question.request, lambda: client_gone(request))
        return question.reply(prediction).as_response()

    setattr(view, ASK, ask)
    return view


def json_reply(value: Any) -> Reply:
    return Reply(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
