"""A PyTorch model behind Flask in a script that goes on until it is stopped.

    python pytorch_flask.py 8000

``waitress.serve`` keeps the main thread; the model's own process may crash without taking the server along.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from waitress import serve

from embedded_server import create_app
from engine import Engine
from engine.settings import ServerSettings

EXAMPLES = Path(__file__).resolve().parents[1]


def run(engine: Engine, port: int) -> None:
    """Answer Deskside's routes over ``engine`` until SIGINT or SIGTERM."""
    app = create_app(engine, ServerSettings(port=port))
    serve(app, host="127.0.0.1", port=port, threads=32, channel_request_lookahead=1)


if __name__ == "__main__":
    with Engine(folder=Path(os.environ.get("ENGINE_FOLDER", Path.home() / ".pytorch-flask-engine"))) as engine:
        engine.offer(EXAMPLES / "digits-torch")
        engine.offer(EXAMPLES / "shapes-detector")
        run(engine, int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
