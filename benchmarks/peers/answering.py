"""What the peers' programs share: the model, and the three kinds of input."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from benchmarks.models import from_jpeg, shape
from benchmarks.networks import network, prepared

MODEL = os.environ["BENCH_MODEL"]
PORT = int(os.environ["BENCH_PORT"])
WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))
THREADS = int(os.environ.get("BENCH_THREADS", "1"))
BATCH = int(os.environ.get("BENCH_BATCH", "1"))
PREPARED = os.environ.get("BENCH_PREPARED") == "1"


class Model:
    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self._answers = prepared(MODEL) if PREPARED else network(MODEL)

    def batch(self, values: np.ndarray[Any, Any]) -> list[list[float]]:
        with torch.inference_mode():
            scores: list[list[float]] = self._answers(torch.from_numpy(values)).tolist()
        return scores

    def rows(self, rows: list[list[float]]) -> list[float]:
        return self.batch(np.asarray(rows, np.float32))[0]

    def raw(self, data: bytes) -> list[float]:
        return self.batch(from_raw(data)[np.newaxis])[0]

    def jpeg(self, data: bytes) -> list[float]:
        return self.batch(from_jpeg(data)[np.newaxis])[0]


def from_raw(data: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(bytearray(data), np.float32).reshape(shape(MODEL))
