"""Small real models, written by their own framework in a process of its own, with the framework's own answers.

``python make_models.py tensorflow|torch FOLDER``: the test process itself never imports a framework.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

A = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)
B = np.linspace(2, 3, 10, dtype=np.float32).reshape(5, 2)


def make_tensorflow(folder: Path) -> None:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    joined = keras.layers.Concatenate()([a, b])
    outputs = {
        "scores": keras.layers.Dense(4, activation="softmax", name="last")(joined),
        "hidden": keras.layers.Dense(2, name="hid")(joined),
    }
    # The order of inputs is not that of their names: a mix-up would show.
    model = keras.Model([b, a], outputs)
    model.save(folder / "two.keras")
    np.savez(folder / "two.npz", **{k: v.numpy() for k, v in model([B, A], training=False).items()})

    lambda_input = keras.Input((3,), name="a")
    keras.Model(lambda_input, keras.layers.Lambda(lambda x: x * 2)(lambda_input)).save(folder / "lambda.keras")

    class Texts(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None, 3], tf.float32, name="a"), tf.TensorSpec([None], tf.string, name="t")]
        )
        def serve(self, a: Any, t: Any) -> dict[str, Any]:
            return {"sum": tf.reduce_sum(a, axis=1), "upper": tf.strings.upper(t)}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="a")])
        def other(self, a: Any) -> dict[str, Any]:
            return {"negative": -a}

    module = Texts()
    tf.saved_model.save(
        module, str(folder / "saved"), signatures={"serving_default": module.serve, "other": module.other}
    )
    (folder / "saved" / "broken").mkdir()
    (folder / "saved" / "broken" / "saved_model.pb").write_bytes(b"\x08\x01\x12\xff\xff\xff")


def make_torch(folder: Path) -> None:
    import torch

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(3, 4)
            self.second = torch.nn.Linear(2, 4)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return torch.softmax(self.first(a) + self.second(b), 1), {"doubled": a * 2}

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.manual_seed(1)
    model = Two().eval()
    torch.jit.script(model).save(folder / "two.pt")
    with torch.inference_mode():
        scores, more = model(torch.from_numpy(A), torch.from_numpy(B))
    np.savez(folder / "two.npz", scores=scores.numpy(), doubled=more["doubled"].numpy())

    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 3).sum(1)

    torch.jit.script(Fixed().eval()).save(folder / "fixed.pt")


if __name__ == "__main__":
    {"tensorflow": make_tensorflow, "torch": make_torch}[sys.argv[1]](Path(sys.argv[2]))
