"""One engine for every worker process of the site: the first that needs it starts it, the others find it."""

from __future__ import annotations

import os
from pathlib import Path

from rest_framework.exceptions import APIException, NotFound
from rest_framework.parsers import FileUploadParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from engine import Engine, EngineError, PredictRequest

EXAMPLES = Path(__file__).resolve().parents[2]

engine = Engine.shared(os.environ.get("ENGINE_FOLDER", Path.home() / ".drf-site-engine"))
engine.offer(EXAMPLES / "digits-keras")


class Predict(APIView):
    parser_classes = (FileUploadParser,)

    def post(self, request: Request, model: str) -> Response:
        question = PredictRequest(model, request.body, request.content_type, timeout_s=60)
        try:
            answer = engine.predict(question).result()
        except EngineError as error:
            raise (NotFound if error.code == "model_not_found" else APIException)(error.message) from error
        return Response({"pid": os.getpid(), **answer.to_json()})
