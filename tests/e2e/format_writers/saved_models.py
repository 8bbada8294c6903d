"""SavedModels: as Keras 2 wrote them, with several signatures, and in the layout that Lobe exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.e2e.format_case import Ask, Written, case
from tests.e2e.format_writers.keras_files import photo, ranked


@case("saved-model-keras-2", writer="tensorflow", source="TensorFlow SavedModel", slow=True)
def saved_model_of_keras_2(folder: Path) -> Written:
    """What ``model.save(folder)`` of Keras 2 wrote, ``keras_metadata.pb`` among it; one signature, two inputs."""
    import tf_keras
    from tf_keras import layers

    tf_keras.utils.set_random_seed(9)
    left, right = tf_keras.Input((3,), name="left"), tf_keras.Input((2,), name="right")
    scores = layers.Dense(4, activation="softmax", name="scores")(layers.Concatenate()([left, right]))
    model = tf_keras.Model([left, right], scores)
    model.save(folder / "pairs")
    assert (folder / "pairs" / "keras_metadata.pb").is_file()
    rows = {"left": np.arange(6, dtype=np.float32).reshape(2, 3), "right": np.ones((2, 2), np.float32)}
    (folder / "rows.json").write_text(json.dumps({"inputs": {name: row.tolist() for name, row in rows.items()}}))
    outputs = {"scores": model([rows["left"], rows["right"]], training=False).numpy().tolist()}
    return Written(
        "pairs",
        [Ask("rows.json", "application/json", outputs=outputs)],
        spec={"format": "saved_model", "runtime": "saved_model", "trust_class": "program", "task": "raw-tensors"},
        evidence={"inputs": "tensor signature", "signatures": "saved_model.pb: signature_def"},
    )


@case("saved-model-signatures", writer="tensorflow", source="TensorFlow SavedModel (several signatures)", slow=True)
def saved_model_with_signatures(folder: Path) -> Written:
    """Three signatures, none of them ``serving_default``: all are named, the first answers."""
    import tensorflow as tf

    class Sums(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable([[1.0], [2.0], [3.0]])

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def add(self, x: Any) -> Any:
            return {"sum": x @ self.weight}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def negate(self, x: Any) -> Any:
            return {"negative": -x}

    sums = Sums()
    tf.saved_model.save(sums, str(folder / "sums"), signatures={"negate": sums.negate, "add": sums.add})
    rows = [[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]
    (folder / "rows.json").write_text(json.dumps({"inputs": {"x": rows}}))
    loaded = tf.saved_model.load(str(folder / "sums"))
    outputs = {"sum": loaded.signatures["add"](x=tf.constant(rows))["sum"].numpy().tolist()}
    return Written(
        "sums",
        [Ask("rows.json", "application/json", outputs=outputs)],
        spec={"signatures": ["add", "negate"], "task": "raw-tensors"},
        evidence={"signatures": "saved_model.pb: signature_def"},
    )


@case("saved-model-lobe", writer="tensorflow", source="TensorFlow SavedModel (Lobe)")
def lobe(folder: Path) -> Written:
    """The layout of Lobe's TensorFlow export: ``saved_model.pb`` and ``variables`` with ``signature.json`` beside them,
    which names the tensors ``Image``, ``Confidences`` and ``Prediction``, the classes and the shape. The answer is
    computed as the ``tf_example.py`` it publishes with them does."""
    import tensorflow as tf

    tf.random.set_seed(13)
    labels = ["Mug", "Plant", "Nothing"]

    class Classifier(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.filters = tf.Variable(tf.random.normal([5, 5, 3, 8], stddev=0.3))
            self.weights = tf.Variable(tf.random.normal([8, 3]))
            self.names = tf.constant(labels)

        @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.float32, name="Image")])  # type: ignore[untyped-decorator]
        def serve(self, Image: Any) -> Any:
            features = tf.reduce_max(tf.nn.relu(tf.nn.conv2d(Image, self.filters, 4, "SAME")), axis=[1, 2])
            confidences = tf.nn.softmax(features @ self.weights)
            return {"Confidences": confidences, "Prediction": tf.gather(self.names, tf.argmax(confidences, axis=1))}

    model, target = Classifier(), folder / "Desk Things TensorFlow"
    tf.saved_model.save(model, str(target), signatures={"serving_default": model.serve})
    signature = {
        "doc_id": "3c4d9f0e-0000-4000-8000-000000000000",
        "doc_name": "Desk Things",
        "doc_version": "5d1a",
        "format": "tf",
        "version": 1,
        "inputs": {"Image": {"dtype": "float32", "shape": [None, 224, 224, 3], "name": "serving_default_Image:0"}},
        "outputs": {
            "Confidences": {"dtype": "float32", "shape": [None, 3], "name": "StatefulPartitionedCall:0"},
            "Prediction": {"dtype": "string", "shape": [None], "name": "StatefulPartitionedCall:1"},
        },
        "tags": ["serve"],
        "classes": {"Label": labels},
        "filename": "saved_model.pb",
        "export_model_version": 1,
    }
    (target / "signature.json").write_text(json.dumps(signature))

    image = photo(folder, size=(301, 260))
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    image = image.crop((left, top, left + side, top + side)).resize((224, 224))  # type: ignore[arg-type]  # as published
    data = np.asarray(image) / 255.0
    answer = tf.saved_model.load(str(target)).signatures["serving_default"]
    scores = answer(Image=tf.constant(data[np.newaxis].astype(np.float32)))["Confidences"].numpy()[0]
    return Written(
        "Desk Things TensorFlow",
        [Ask("photo.png", "image/png", predictions=ranked(scores, labels))],
        spec={
            "task": "image-classification",
            "labels": labels,
            "preprocessing.size": [224, 224],
            "preprocessing.scaling": "0..1",
            "preprocessing.crop": "square",
            "preprocessing.resample": "bicubic",
        },
        evidence={
            "labels": "signature.json: classes.Label",
            "preprocessing.size": "signature.json: inputs.Image.shape",
            "preprocessing.crop": "signature.json: Lobe export",
            "inputs": "tensor signature",
            "task": "signature.json: outputs",
        },
    )
