"""A Flask application with a model that is loaded once, whoever serves the application and however often it starts.

    flask --app flask_app run --debug
    gunicorn --workers 4 --preload flask_app:app

Nothing here imports TensorFlow: the model lives in a process of its own, which all processes of this application share.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flask import Flask, request

from engine import Engine, EngineError, PredictRequest

EXAMPLES = Path(__file__).resolve().parents[1]

engine = Engine.shared(os.environ.get("ENGINE_FOLDER", Path.home() / ".flask-app-engine"))
for name in ("digits-keras", "shapes-detector"):
    engine.offer(EXAMPLES / name)  # known from now on; the first question loads it

app = Flask(__name__)


@app.get("/health/live")
def live() -> dict[str, bool]:
    return {"live": True}


@app.post("/predict/<model>")
def predict(model: str) -> dict[str, Any]:
    question = PredictRequest(model, request.get_data(), request.content_type, timeout_s=60)
    return engine.predict(question).result().to_json()


@app.errorhandler(EngineError)
def failed(error: EngineError) -> tuple[dict[str, str], int]:
    return {"error": error.message}, 404 if error.code == "model_not_found" else 503
