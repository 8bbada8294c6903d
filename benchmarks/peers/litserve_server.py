"""LitServe: JSON as it comes, pictures and tensors as files of a form."""

from __future__ import annotations

import litserve as ls
import numpy as np

from benchmarks.models import from_jpeg
from benchmarks.peers.answering import BATCH, PORT, WORKERS, Model, from_raw


class Api(ls.LitAPI):
    def setup(self, device):
        self.answers = Model()

    def decode_request(self, request):
        if "inputs" in request:
            return np.asarray(request["inputs"]["x"][0], np.float32)
        file = request["file"]
        data = file.file.read()
        return from_jpeg(data) if file.filename.endswith(".jpg") else from_raw(data)

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self.answers.batch(x) if BATCH > 1 else self.answers.batch(x[np.newaxis])[0]

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"scores": output}


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=0.005) if BATCH > 1 else Api()
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=60)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
