"""The same engine awaited from an asyncio server; the loop never waits.

uvicorn asyncio_app:app
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from engine import Engine, EngineError, PredictRequest

EXAMPLES = Path(__file__).resolve().parents[1]

engine = Engine.shared(os.environ.get("ENGINE_FOLDER", Path.home() / ".asyncio-app-engine"))
engine.offer(EXAMPLES / "digits-keras")


async def live(_: Request) -> JSONResponse:
    return JSONResponse({"live": True})


async def predict(request: Request) -> JSONResponse:
    question = PredictRequest(
        request.path_params["model"], await request.body(), request.headers.get("content-type"), timeout_s=60
    )
    try:
        answer = await asyncio.wrap_future(engine.predict(question))
    except EngineError as error:
        return JSONResponse({"error": error.message}, 404 if error.code == "model_not_found" else 503)
    return JSONResponse(answer.to_json())


app = Starlette(routes=[Route("/health/live", live), Route("/predict/{model}", predict, methods=["POST"])])
