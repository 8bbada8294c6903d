"""BentoML with adaptive batching: the first dimension of what an endpoint takes and gives is the batch."""

from __future__ import annotations

from pathlib import Path

import bentoml
import numpy as np

from benchmarks.models import from_jpeg
from benchmarks.peers.answering import BATCH, WORKERS, Model, from_raw

batched = bentoml.api(batchable=True, max_batch_size=BATCH)


@bentoml.service(workers=WORKERS, traffic={"timeout": 60, "max_concurrency": 256})
class Service:
    def __init__(self) -> None:
        self.answers = Model()

    @batched
    def json(self, inputs: np.ndarray) -> list[list[float]]:
        return self.answers.batch(np.asarray(inputs, np.float32))

    @batched
    def raw(self, file: list[Path]) -> list[list[float]]:
        return self.answers.batch(np.stack([from_raw(path.read_bytes()) for path in file]))

    @batched
    def jpeg(self, file: list[Path]) -> list[list[float]]:
        return self.answers.batch(np.stack([from_jpeg(path.read_bytes()) for path in file]))
