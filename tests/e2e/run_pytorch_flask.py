"""``examples/embedding/pytorch_flask.py`` with a model more: one that takes as long as it is told, and one that raises.

``python -m tests.e2e.run_pytorch_flask FOLDER PORT SECONDS``
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine import Engine
from tests.engine.engine_harness import fake
from tests.sources import load_script

if __name__ == "__main__":
    path = Path(__file__).resolve().parents[2] / "examples" / "embedding" / "pytorch_flask.py"
    example = load_script(path)
    folder, port, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with Engine(folder=folder) as engine:
        engine.load(fake("slow", delay_s=seconds))
        engine.load(fake("quick"))
        engine.offer(example.EXAMPLES / "digits-torch")
        example.run(engine, port)
