"""Small files of Keras 2 and LiteRT, written by their own libraries. Run as a child process: the test process imports
none of them.

``python make_tensorflow_files.py FOLDER`` fills FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def keras_2_files(folder: Path) -> None:
    import tensorflow as tf
    import tf_keras
    from tf_keras import layers

    tf_keras.utils.set_random_seed(2)
    photo = tf_keras.Input((24, 24, 3), name="photo")
    x = tf_keras.applications.mobilenet_v2.preprocess_input(photo)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)) * 2.0
    model = tf_keras.Model(photo, tf.nn.softmax(layers.Dense(5, name="scores")(x)))
    model.save(folder / "functional.h5")
    model.save(folder / "functional_2.keras")
    model.save_weights(folder / "alone.weights.h5")
    model.save_weights(folder / "alone_old.h5", save_format="h5")
    inner = tf_keras.Sequential([layers.Conv2D(2, 3, input_shape=(224, 224, 3)), layers.GlobalAveragePooling2D()])
    head = tf_keras.Sequential([layers.Dense(3, activation="softmax", input_shape=(2,))])
    tf_keras.Sequential([inner, head]).save(folder / "nested.h5")
    twice = layers.Lambda(lambda t: t * 2.0, name="twice")
    last = layers.Dense(2, name="last")
    with_code = tf_keras.Sequential([tf_keras.Input((3,)), twice, last])
    with_code.save(folder / "lambda.h5")
    (folder / "lambda.json").write_text(json.dumps(with_code(ROWS, training=False).numpy().tolist()))


def keras_3_files(folder: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.save(folder / "digits.h5")
    model.save_weights(folder / "alone_3.weights.h5")


def litert_files(folder: Path) -> None:
    import tensorflow as tf

    class Sums(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def add(self, x: Any) -> Any:
            return {"sum": tf.reduce_sum(x, axis=1, keepdims=True)}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="y")])  # type: ignore[untyped-decorator]
        def double(self, y: Any) -> Any:
            return {"doubled": y * 2.0}

        @tf.function(input_signature=[tf.TensorSpec([1, 16, 16, 1], tf.float32, name="photo")])  # type: ignore[untyped-decorator]
        def classify(self, photo: Any) -> Any:
            return {"scores": tf.nn.softmax(tf.reduce_mean(photo, axis=[1, 2]) * tf.constant([[1.0, 2.0, 3.0]]))}

        @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def other(self, x: Any) -> Any:
            return {"beta": tf.raw_ops.Betainc(a=x, b=x, x=x)}

    module = Sums()
    tf.saved_model.save(module, str(folder / "sums"), signatures={"double": module.double, "add": module.add})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "sums"), signature_keys=["double", "add"])
    (folder / "sums.tflite").write_bytes(converter.convert())

    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.classify.get_concrete_function()], module)
    rng = np.random.default_rng(1)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([rng.random((1, 16, 16, 1), np.float32)] for _ in range(10))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())

    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.other.get_concrete_function()], module)
    converter.allow_custom_ops = True
    (folder / "custom.tflite").write_bytes(converter.convert())


def litert_fields(folder: Path) -> None:
    """The numbers of the fields, as the reader that LiteRT ships with itself has them."""
    from ai_edge_litert import schema_py_generated as schema

    class Builder:
        slot = -1

        def __getattr__(self, name: str) -> Any:
            def prepend(slot: int, *_: Any) -> None:
                self.slot = slot

            return prepend

    def slot(table: str, field: str) -> int:
        builder = Builder()
        getattr(schema, f"{table}Add{field}")(builder, 0)
        return builder.slot

    asked = {
        "Model": "Version OperatorCodes Subgraphs Buffers Metadata SignatureDefs",
        "OperatorCode": "DeprecatedBuiltinCode CustomCode BuiltinCode",
        "SubGraph": "Tensors Inputs Outputs Operators",
        "Operator": "OpcodeIndex Inputs Outputs",
        "Tensor": "Shape Type Buffer Name Quantization ShapeSignature",
        "QuantizationParameters": "Scale ZeroPoint",
        "Buffer": "Data",
        "Metadata": "Name Buffer",
        "SignatureDef": "Inputs Outputs SignatureKey SubgraphIndex",
        "TensorMap": "Name TensorIndex",
    }
    fields = {table: {name: slot(table, name) for name in names.split()} for table, names in asked.items()}
    types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    (folder / "litert_schema.json").write_text(
        json.dumps({"fields": fields, "types": types, "custom": schema.BuiltinOperator.CUSTOM})
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    keras_2_files(target)
    keras_3_files(target)
    litert_files(target)
    litert_fields(target)
