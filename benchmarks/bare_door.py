"""The server as it ships with nothing behind it: what no engine could exceed that is asked through this door.

``python -m benchmarks.bare_door PORT`` serves the small model's questions. Every check, the hot lane, the log of
requests and the counters are the product's; the engine is a table of the right answers, given at once, on the caller's
thread. Beside the whole product's rate in the same round it says what the door bounds and what the engine costs.
"""

from __future__ import annotations

import signal
import sys
import threading
from concurrent.futures import Future

import numpy as np

from benchmarks.models import bodies, opened, references
from embedded_server.controller import ServeOptions, ServerController
from engine.model_spec import fake_spec
from engine.prediction import Prediction, PredictRequest
from engine.settings import ServerSettings, data_dir
from tests.fakes import FakeEngine

MODEL = "bench-s"
TIMING = {"decode": 0.02, "wait": 0.2, "infer": 0.1, "post": 0.02, "total": 0.34}


class Answers(FakeEngine):
    """Knows every body of the benchmark. Raises KeyError for another one."""

    def __init__(self) -> None:
        super().__init__((fake_spec(opened("s"), MODEL),))
        self._known = {
            body: Prediction(
                "p", MODEL, "raw-tensors", TIMING, outputs={"y": np.asarray([scores], np.float32)}, version="1"
            )
            for body, scores in zip(bodies("s", "json").all(), references("s"), strict=True)
        }

    def predict(self, request: PredictRequest) -> Future[Prediction]:
        future: Future[Prediction] = Future()
        assert isinstance(request.data, bytes)
        future.set_result(self._known[request.data])
        return future


def main(port: int) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    server = ServerController(Answers(), ServerSettings(), data_dir())
    server.start_at(ServeOptions(port=port))
    ended.wait()
    server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
