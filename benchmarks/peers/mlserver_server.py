"""MLServer: a runtime of one's own, as its documentation writes it; ``python -m`` writes its settings and starts it."""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.models import from_jpeg, shape
from benchmarks.peers.answering import BATCH, MODEL, PORT, WORKERS, Model, from_raw


def decoded(text: str | bytes) -> np.ndarray:
    data = base64.b64decode(text)
    return from_jpeg(data) if data.startswith(b"\xff\xd8") else from_raw(data)


class Runtime(MLModel):
    async def load(self) -> bool:
        self.answers = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        if str(given.datatype) in ("BYTES", "Datatype.BYTES"):
            values = np.stack([decoded(text) for text in given.data])
        else:
            values = NumpyCodec.decode_input(given).astype(np.float32).reshape(-1, *shape(MODEL))
        scores = np.asarray(self.answers.batch(values), np.float32)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", scores)])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp(prefix="deskside-bench-"))
    settings = {
        "host": "127.0.0.1", "http_port": PORT, "grpc_port": free_port(), "metrics_port": free_port(),
        "parallel_workers": WORKERS, "debug": False,
    }  # fmt: skip
    model = {"name": "bench", "implementation": "benchmarks.peers.mlserver_server.Runtime"}
    if BATCH > 1:
        model |= {"max_batch_size": BATCH, "max_batch_time": 0.005}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    os.execv(str(Path(sys.executable).parent / "mlserver"), ["mlserver", "start", str(folder)])
