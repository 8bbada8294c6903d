"""SavedModels as TensorFlow writes them, harmless and hostile, into the folder given as argument.

Run in a process of its own. The hostile ones are written by TensorFlow itself: what a person would be sent.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf


def harmless(folder: Path) -> None:
    import keras
    from keras import layers

    texts = keras.Input((1,), dtype="string", name="text")
    words = layers.TextVectorization(vocabulary=["good", "bad"], output_sequence_length=4)(texts)
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(6, 3)(words))
    keras.Model(texts, layers.Dense(2, activation="softmax")(pooled)).export(folder / "text", verbose=False)
    steps = keras.Input((5, 3))
    recurrent = layers.Bidirectional(layers.LSTM(4))(steps)
    keras.Model(steps, layers.Dense(1)(recurrent)).export(folder / "recurrent", verbose=False)

    words_file = folder / "words.txt"
    words_file.write_text("good\nbad\n")

    class Vocabulary(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            numbered = (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
            self.table = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(words_file), *numbered), -1)
            self.counts = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)
            self.weight = tf.Variable([1.0, 2.0])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])  # type: ignore[untyped-decorator]
        def number(self, word: Any) -> dict[str, Any]:
            tf.print("asked for", tf.size(word))
            return {"number": self.table.lookup(word) + self.counts.lookup(word), "first": self.weight[0]}

    vocabulary = Vocabulary()
    tf.saved_model.save(vocabulary, str(folder / "vocabulary"), signatures=vocabulary.number)

    class Pictures(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpeg")])  # type: ignore[untyped-decorator]
        def mean(self, jpeg: Any) -> dict[str, Any]:
            decode = lambda data: tf.image.resize(tf.io.decode_image(data, 3, expand_animations=False), (8, 8))  # noqa: E731
            return {"mean": tf.reduce_mean(tf.map_fn(decode, jpeg, fn_output_signature=tf.float32), (1, 2))}

    pictures = Pictures()
    tf.saved_model.save(pictures, str(folder / "pictures"), signatures=pictures.mean)


def first_version(folder: Path, name: str, *, has_asset: bool) -> None:
    """As TensorFlow 1 wrote them: a session's graph with a saver of its own, a table and an initialiser."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        weight = v1.get_variable("weight", [2, 1], use_resource=False)
        file = str(folder / "words.txt")
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                file, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
            ),
            -1,
        )
        y = x @ weight + tf.cast(table.lookup(tf.constant("good")), tf.float32)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = v1.saved_model.Builder(str(folder / name))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=v1.tables_initializer(),
            assets_collection=[session.graph.get_tensor_by_name("asset_path:0")] if has_asset else None,
        )  # fmt: skip
        builder.save()


def hostile(folder: Path, canary: str) -> None:
    def module(act: Any) -> Any:
        class Hostile(tf.Module):  # type: ignore[misc]
            @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])  # type: ignore[untyped-decorator]
            def serve(self, x: Any) -> dict[str, Any]:
                return {"y": act(x)}

        return Hostile()

    def writes(x: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file(canary, "ran")]):
            return x + 1.0

    def prints(x: Any) -> Any:
        with tf.control_dependencies([tf.print("ran", output_stream=f"file://{canary}")]):
            return x + 1.0

    def saves(x: Any) -> Any:
        with tf.control_dependencies([tf.raw_ops.SaveV2(
            prefix=canary, tensor_names=["x"], shape_and_slices=[""], tensors=[tf.zeros(1)]
        )]):  # fmt: skip
            return x + 1.0

    acts = {
        "reads": lambda x: x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32),
        "writes": writes,
        "prints": prints,
        "saves": saves,
        "lists": lambda x: x + tf.cast(tf.size(tf.io.matching_files("/etc/*")), tf.float32),
        "nested": lambda x: tf.while_loop(lambda i, _: i < 1, lambda i, y: (i + 1, writes(y)), (0, x))[1],
        "python": lambda x: tf.numpy_function(lambda y: y, [x], tf.float32),
        "proto": lambda x: x + tf.cast(tf.size(tf.io.decode_proto(b"", "M", ["f"], [tf.int32])[0]), tf.float32),
    }
    for name, act in acts.items():
        hostile_module = module(act)
        tf.saved_model.save(hostile_module, str(folder / name), signatures=hostile_module.serve)


def second_version(folder: Path) -> None:
    """As Keras 2 wrote them, with its training functions inside."""
    import numpy as np
    import tf_keras as keras

    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.LSTM(4)(inputs)))
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 5, 3)), np.zeros((2, 1)), verbose=0)
    model.save(folder / "second", save_format="tf")


def vocabulary_from_anywhere(folder: Path) -> None:
    """The name of the vocabulary is a constant of the graph, not an asset."""

    class Constant(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable([1.0])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])  # type: ignore[untyped-decorator]
        def number(self, word: Any) -> dict[str, Any]:
            table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
            with tf.control_dependencies([tf.raw_ops.InitializeTableFromTextFileV2(
                table_handle=table, filename=tf.constant("/etc/passwd"), key_index=-2, value_index=-1
            )]):  # fmt: skip
                found = tf.raw_ops.LookupTableFindV2(
                    table_handle=table, keys=word, default_value=tf.constant(-1, tf.int64)
                )
            return {"number": found}

    constant = Constant()
    tf.saved_model.save(constant, str(folder / "constant_vocabulary"), signatures=constant.number)


def initialisers(folder: Path, canary: str) -> None:
    """TensorFlow 1: a saver in the initialiser, and one that writes elsewhere when the variables are restored."""
    v1 = tf.compat.v1
    for name in ("init_saves", "restore_saves"):
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None, 2], name="x")
            weight = v1.get_variable("weight", [2, 1], use_resource=True)
            y = x @ weight
            session.run(v1.global_variables_initializer())
            evil = tf.raw_ops.SaveV2(
                prefix=canary, tensor_names=["x"], shape_and_slices=[""], tensors=[tf.constant([1.0])]
            )
            saver = v1.train.Saver()
            if name == "restore_saves":
                restore = session.graph.get_operation_by_name(saver.saver_def.restore_op_name)
                restore._add_control_input(evil)
            signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
            builder = v1.saved_model.Builder(str(folder / name))
            builder.add_meta_graph_and_variables(
                session, ["serve"], {"serving_default": signature}, saver=saver,
                main_op=evil if name == "init_saves" else None,
            )  # fmt: skip
            builder.save()


def operations(folder: Path) -> None:
    """Every operation this TensorFlow knows, and the numbers of the kinds of saved objects."""
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.core.protobuf import saved_object_graph_pb2
    from tensorflow.python.client import pywrap_tf_session

    registry = op_def_pb2.OpList()
    registry.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    kinds = saved_object_graph_pb2.SavedObject.DESCRIPTOR.oneofs_by_name["kind"].fields
    facts = {"operations": sorted(o.name for o in registry.op), "kinds": sorted(f.name for f in kinds)}
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    target, where = Path(sys.argv[1]), sys.argv[2]
    harmless(target)
    first_version(target, "first", has_asset=True)
    first_version(target, "first_without_asset", has_asset=False)
    second_version(target)
    hostile(target, where)
    vocabulary_from_anywhere(target)
    initialisers(target, where)
    operations(target)
