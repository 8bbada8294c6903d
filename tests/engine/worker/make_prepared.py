"""Models on which faster ways hold, or must not: their code, their weights, and their framework's own answers.

``python -m tests.engine.worker.make_prepared torch|tensorflow FOLDER``: the test process itself never imports a
framework.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

CODE = """
import torch
from torch import nn


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16),
        )
        self.last = nn.Linear(16, 5)

    def forward(self, x):
        return self.last(self.layers(x).mean((2, 3)))


class Named(Convolutions):
    def forward(self, x):
        features = self.layers(x)
        return {"scores": self.last(features.mean((2, 3))), "features": (features, features.amax((2, 3)))}


class Branching(Convolutions):
    # Only numbers that nobody would make up go the other way: a comparison alone would not find it.
    def forward(self, x):
        if x.max() > 12345.0:
            return super().forward(x) * 0 + 7
        return super().forward(x)


class Reading(Convolutions):
    def forward(self, x):
        return super().forward(x) + x.mean().item()


class Dropping(Convolutions):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)


class OneSize(Convolutions):
    # A trace keeps the number of rows it was made with.
    def forward(self, x):
        rows = int(x.shape[0])
        return self.last(self.layers(x).mean((2, 3)).reshape(rows, 16))


class Counting(Convolutions):
    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, x):
        self.asked += 1
        return super().forward(x) + self.asked


class Scratch(Convolutions):
    # It answers as it should, as long as one thread runs it at a time.
    def __init__(self):
        super().__init__()
        self.register_buffer("scratch", torch.zeros(2, 3, 32, 32), persistent=False)

    def forward(self, x):
        self.scratch.copy_(x)
        return super().forward(self.scratch)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(6, 6) for _ in range(8)))

    def forward(self, a, b):
        return self.layers(a) - 2 * b


class Plain(Convolutions):
    # What it answers is no tensor alone.
    def forward(self, x):
        return {"scores": super().forward(x), "rows": 3.0}
"""


def images(rows: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, *shape)).astype(np.float32)


def make_torch(folder: Path) -> None:
    import torch

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    (folder / "net.py").write_text(CODE)
    sys.path.insert(0, str(folder))  # scripting reads the source of its file
    torch.manual_seed(3)
    model = import_module("net").Convolutions()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 32, 32))
    model.eval()
    torch.save(model.state_dict(), folder / "net.pth")
    torch.jit.script(model).save(folder / "scripted.pt")
    torch.save(import_module("net").Two().state_dict(), folder / "two.pth")

    class Scripted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if bool(x.max() > 12345.0):
                return x * 0 + 7
            return torch.tanh(x) * 2 + x

    torch.jit.script(Scripted()).save(folder / "branching.pt")


def make_tensorflow(folder: Path) -> None:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    given = keras.Input((16, 16, 3), name="x")
    hidden = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, use_bias=False)(given))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(hidden))
    outputs = {"b": keras.layers.Dense(4, name="four")(pooled), "a": keras.layers.Dense(2, name="two")(pooled)}
    keras.Model(given, outputs).save(folder / "net.keras")

    class Two(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable(tf.random.stateless_normal([3, 4], (1, 2)))

        @tf.function(
            input_signature=[tf.TensorSpec([None, 3], tf.float32, name="b"), tf.TensorSpec([None, 4], tf.float32, "a")]
        )
        def serve(self, b: Any, a: Any) -> dict[str, Any]:
            product = b @ self.weight
            steered = tf.cond(tf.reduce_max(a) > 12345.0, lambda: product * 0.0, lambda: product + a)
            return {"z": steered, "y": a * 2.0}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def noise(self, x: Any) -> dict[str, Any]:
            return {"y": x + tf.random.normal(tf.shape(x))}

    module = Two()
    tf.saved_model.save(module, str(folder / "two"), signatures={"serving_default": module.serve})
    tf.saved_model.save(module, str(folder / "noise"), signatures={"serving_default": module.noise})


if __name__ == "__main__":
    {"torch": make_torch, "tensorflow": make_tensorflow}[sys.argv[1]](Path(sys.argv[2]))
