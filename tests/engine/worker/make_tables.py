"""Models of tables with an input a column, and what their own libraries answer.

``python -m tests.engine.worker.make_tables FOLDER`` leaves ``shop.keras`` (numbers and words, preprocessing inside the
model), ``visits.onnx`` (as scikit-learn's pipelines are exported: a label, and a map of probabilities a row),
``table.csv`` and ``answers.json``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

COLOURS = ["red", "green", "blue"]
ROWS: list[dict[str, Any]] = [
    {"age": 31.5, "colour": "red", "visits": 3},
    {"age": 64.0, "colour": "blue", "visits": 12},
    {"age": 18.0, "colour": "green", "visits": 0},
]


def keras_model(folder: Path) -> list[list[float]]:
    import keras

    keras.utils.set_random_seed(3)
    age = keras.Input((1,), name="age")
    colour = keras.Input((1,), name="colour", dtype="string")
    visits = keras.Input((1,), name="visits")
    words = keras.layers.StringLookup(vocabulary=COLOURS, output_mode="one_hot")(colour)
    joined = keras.layers.Concatenate()([age, words, visits])
    scores = keras.layers.Dense(2, activation="softmax")(keras.layers.Dense(4, activation="tanh")(joined))
    model = keras.Model([age, colour, visits], scores)
    model.save(folder / "shop.keras")
    import tensorflow as tf

    given = {
        "age": tf.constant([[row["age"]] for row in ROWS], tf.float32),
        "colour": tf.constant([[row["colour"]] for row in ROWS]),
        "visits": tf.constant([[float(row["visits"])] for row in ROWS], tf.float32),
    }
    answer: list[list[float]] = np.asarray(model(given)).tolist()
    return answer


def onnx_model(folder: Path) -> list[list[float]]:
    """Nodes and shapes as skl2onnx writes a ColumnTransformer with a LogisticRegression."""
    import onnx
    from onnx import TensorProto, helper

    weights = np.array([[0.02, 0.5, -0.4, 0.1, -0.05], [-0.02, -0.5, 0.4, -0.1, 0.05]], np.float32)
    nodes = [
        helper.make_node("OneHotEncoder", ["colour"], ["spread"], domain="ai.onnx.ml", cats_strings=COLOURS, zeros=1),
        helper.make_node("Reshape", ["spread", "flat"], ["colours"]),
        helper.make_node("Cast", ["visits"], ["visits_f"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["age", "colours", "visits_f"], ["x"], axis=1),
        helper.make_node(
            "LinearClassifier", ["x"], ["output_label", "scores"], domain="ai.onnx.ml",
            coefficients=weights.ravel().tolist(), intercepts=[0.1, -0.1], classlabels_strings=["stays", "leaves"],
            multi_class=1, post_transform="SOFTMAX",
        ),
        helper.make_node(
            "ZipMap", ["scores"], ["output_probability"], domain="ai.onnx.ml",
            classlabels_strings=["stays", "leaves"],
        ),
    ]  # fmt: skip
    kinds = {"age": TensorProto.FLOAT, "colour": TensorProto.STRING, "visits": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "pipeline",
        [helper.make_tensor_value_info(name, kind, [None, 1]) for name, kind in kinds.items()],
        [
            helper.make_tensor_value_info("output_label", TensorProto.STRING, [None]),
            helper.make_value_info(
                "output_probability",
                helper.make_sequence_type_proto(
                    helper.make_map_type_proto(
                        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
                    )
                ),
            ),
        ],
        [helper.make_tensor("flat", TensorProto.INT64, [2], [-1, 3])],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 2)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "visits.onnx")
    x = np.array([[r["age"], *(float(r["colour"] == c) for c in COLOURS), r["visits"]] for r in ROWS], np.float64)
    logits = x @ weights.T.astype(np.float64) + [0.1, -0.1]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    # A map is read in the order of its keys: leaves, stays.
    answer: list[list[float]] = shares[:, ::-1].tolist()
    return answer


def main(folder: Path) -> None:
    answers = {"shop.keras": keras_model(folder), "visits.onnx": onnx_model(folder)}
    lines = ["age;colour;visits", *(f"{str(r['age']).replace('.', ',')};{r['colour']};{r['visits']}" for r in ROWS)]
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, labels in (("shop", '["low", "high"]'), ("visits", '["leaves", "stays"]')):
        text = f'task = "tabular-classification"\nlabels = {labels}\n'
        (folder / f"{name}.deskside.toml").write_text(text, encoding="utf-8")
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
