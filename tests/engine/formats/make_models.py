"""Writes real model files with the frameworks themselves. Run as a child process: the test process imports none.

``python make_models.py FOLDER`` fills FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def keras_models(folder: Path) -> None:
    import keras
    import tensorflow as tf
    from keras import layers

    sequential = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Rescaling(1 / 16),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10),
            layers.Softmax(),
        ],
        name="digits",
    )

    def own_loss(y_true, y_pred):  # type: ignore[no-untyped-def]
        return keras.ops.mean(y_true - y_pred)

    sequential.compile("adam", own_loss)
    sequential.save(folder / "sequential.keras")
    inner = keras.Sequential([keras.Input((32, 32, 3)), layers.RandomFlip(), layers.Rescaling(1 / 127.5, offset=-1)])
    picture = keras.Input((32, 32, 3), name="photo")
    x = layers.GlobalAveragePooling2D()(inner(picture))
    x = keras.ops.relu(x + 1.0)
    functional = keras.Model(picture, layers.Dense(5, kernel_regularizer="l2", name="scores")(x))
    functional.save(folder / "functional.keras")
    functional.export(folder / "exported", verbose=False)
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    keras.Model([left, right], layers.Dense(1, activation="sigmoid")(layers.Concatenate()([left, right]))).save(
        folder / "two_inputs.keras"
    )
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(7, 3)(small := keras.Input((16, 16, 3))))
    keras.Model(small, layers.Activation("softmax", name="last")(pooled)).save(folder / "without_dense.keras")
    table = keras.Input((3,), name="features")
    keras.Model(table, layers.Dense(2, activation="softmax", name="classes")(layers.Normalization()(table))).save(
        folder / "table.keras"
    )
    keras.Sequential([keras.Input((4,)), layers.Lambda(lambda t: t * 2, output_shape=(4,), name="twice")]).save(
        folder / "lambda.keras"
    )

    @keras.saving.register_keras_serializable(package="mine")
    class Own(layers.Layer):  # type: ignore[misc]
        def call(self, t):  # type: ignore[no-untyped-def]
            return t

    keras.Sequential([keras.Input((4,)), Own(name="special")]).save(folder / "custom.keras")
    words = layers.StringLookup(vocabulary=["a", "b"], name="words")
    keras.Sequential([keras.Input((1,), dtype="string"), words]).save(folder / "lookup.keras")

    class Doubler(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int64, name="numbers")])  # type: ignore[untyped-decorator]
        def twice(self, numbers):  # type: ignore[no-untyped-def]
            return {"doubled": numbers * 2}

        @tf.function(input_signature=[tf.TensorSpec(None, tf.string, name="text")])  # type: ignore[untyped-decorator]
        def echo(self, text):  # type: ignore[no-untyped-def]
            return {"text": text}

    doubler = Doubler()
    tf.saved_model.save(
        doubler, str(folder / "signatures"), signatures={"serving_default": doubler.twice, "echo": doubler.echo}
    )
    from keras.src.api_export import REGISTERED_NAMES_TO_OBJS  # the names a config may use

    (folder / "keras_names.json").write_text(json.dumps(sorted(REGISTERED_NAMES_TO_OBJS)))
    operations = {}
    for module in ("ops.numpy", "ops.nn", "ops.math", "ops.image", "ops.linalg", "ops.core", "applications.convnext"):
        loaded = __import__(f"keras.src.{module}", fromlist=["Layer"])
        operations[f"keras.src.{module}"] = [n for n, v in vars(loaded).items() if isinstance(v, type)]
    (folder / "keras_operations.json").write_text(json.dumps(operations))


def saved_model_fields(folder: Path) -> None:
    from google.protobuf import any_pb2
    from tensorflow.core.framework import (
        attr_value_pb2,
        function_pb2,
        graph_pb2,
        node_def_pb2,
        op_def_pb2,
        tensor_shape_pb2,
        types_pb2,
    )
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2, saved_object_graph_pb2, saver_pb2

    graph, collection, attribute = meta_graph_pb2.MetaGraphDef, meta_graph_pb2.CollectionDef, attr_value_pb2.AttrValue
    objects = saved_object_graph_pb2
    messages = {
        "SavedModel": saved_model_pb2.SavedModel,
        "MetaGraph": graph,
        "MetaInfo": graph.MetaInfoDef,
        "Signature": meta_graph_pb2.SignatureDef,
        "TensorInfo": meta_graph_pb2.TensorInfo,
        "TensorShape": tensor_shape_pb2.TensorShapeProto,
        "Dim": tensor_shape_pb2.TensorShapeProto.Dim,
        "Collection": collection,
        "NodeList": collection.NodeList,
        "AnyList": collection.AnyList,
        "Any": any_pb2.Any,
        "AssetFile": meta_graph_pb2.AssetFileDef,
        "Saver": saver_pb2.SaverDef,
        "Graph": graph_pb2.GraphDef,
        "Library": function_pb2.FunctionDefLibrary,
        "FunctionDef": function_pb2.FunctionDef,
        "Operation": op_def_pb2.OpDef,
        "Argument": op_def_pb2.OpDef.ArgDef,
        "Node": node_def_pb2.NodeDef,
        "Attribute": attribute,
        "AttributeList": attribute.ListValue,
        "Function": attr_value_pb2.NameAttrList,
        "ObjectGraph": objects.SavedObjectGraph,
        "ConcreteFunction": objects.SavedConcreteFunction,
        "Asset": objects.SavedAsset,
        "Object": objects.SavedObject,
    }
    fields = {name: {f.name: f.number for f in m.DESCRIPTOR.fields} for name, m in messages.items()}
    numbers = {number: name for name, number in types_pb2.DataType.items()}
    (folder / "saved_model_fields.json").write_text(json.dumps({"fields": fields, "dtypes": numbers}))


def torch_models(folder: Path) -> None:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x)

    net = Net()
    script = torch.jit.trace(net, torch.zeros(1, 4))
    torch.jit.save(script, str(folder / "script.pt"), _extra_files={"notes.txt": "x"})
    free = {0: torch.export.Dim("rows", min=1, max=64)}
    torch.export.save(torch.export.export(net, (torch.zeros(2, 4),), dynamic_shapes=(free,)), folder / "program.pt2")
    torch.save(net.state_dict(), folder / "weights.pt")
    torch.save({"epoch": 3, "model": net.state_dict(), "best": 0.5}, folder / "checkpoint.pth")
    torch.save(torch.nn.Sequential(torch.nn.Linear(4, 2)), folder / "whole.pt")
    torch.save(net.state_dict(), folder / "legacy.pt", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    keras_models(target)
    saved_model_fields(target)
    torch_models(target)
