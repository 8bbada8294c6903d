"""LiteRT files, converted by TensorFlow; the metadata are written as the TensorFlow Lite metadata writer lays them out,
with the flatbuffers library itself."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.e2e.format_case import Ask, Written, case
from tests.e2e.format_writers.keras_files import photo, ranked

LABELS = ["heron", "stork", "crane"]


def converted(folder: Path, name: str, *, quantised: bool) -> None:
    """A small classifier of 24 x 24 pictures of 0..1, ``folder/name``; quantised to uint8 at both ends where asked."""
    import keras
    import tensorflow as tf
    from keras import layers

    keras.utils.set_random_seed(11)
    model = keras.Sequential(
        [
            keras.Input((24, 24, 3), name="photo"),
            layers.Conv2D(6, 3, strides=2, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=2.0)),
        ]
    )
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantised:
        rng = np.random.default_rng(2)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([rng.random((1, 24, 24, 3), np.float32)] for _ in range(20))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    (folder / name).write_bytes(converter.convert())


def metadata_buffer(mean: float, std: float, labels_file: str) -> bytes:
    """A ``ModelMetadata`` (metadata_schema.fbs, identifier M001): one RGB input with its normalisation, one output with
    a file of labels."""
    import flatbuffers

    b = flatbuffers.Builder(0)

    def table(count: int, **fields: Any) -> int:
        b.StartObject(count)
        for key, (kind, value, default) in fields.items():
            getattr(b, f"Prepend{kind}Slot")(int(key[1:]), value, default)
        return int(b.EndObject())

    def floats(value: float) -> int:
        b.StartVector(4, 1, 4)
        b.PrependFloat32(value)
        return int(b.EndVector())

    def tables(*offsets: int) -> int:
        b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return int(b.EndVector())

    name = b.CreateString(labels_file)
    file = table(5, f0=("UOffsetTRelative", name, 0), f2=("Int8", 2, 0))
    options = table(2, f0=("UOffsetTRelative", floats(mean), 0), f1=("UOffsetTRelative", floats(std), 0))
    unit = table(2, f0=("Uint8", 1, 0), f1=("UOffsetTRelative", options, 0))
    image = table(2, f0=("Int8", 1, 0))
    content = table(3, f0=("Uint8", 2, 0), f1=("UOffsetTRelative", image, 0))
    units, files = tables(unit), tables(file)
    given = table(7, f3=("UOffsetTRelative", content, 0), f4=("UOffsetTRelative", units, 0))
    answer = table(7, f6=("UOffsetTRelative", files, 0))
    inputs, outputs = tables(given), tables(answer)
    graph = table(7, f2=("UOffsetTRelative", inputs, 0), f3=("UOffsetTRelative", outputs, 0))
    graphs = tables(graph)
    b.Finish(table(8, f3=("UOffsetTRelative", graphs, 0)), file_identifier=b"M001")
    return bytes(b.Output())


def with_metadata(file: Path, buffer: bytes, labels: list[str]) -> None:
    """Put ``buffer`` into the model under TFLITE_METADATA, and the labels into a zip behind it."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(file.read_bytes(), 0))
    holder, entry = schema.BufferT(), schema.MetadataT()
    holder.data = np.frombuffer(buffer, np.uint8)
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
    model.buffers.append(holder)
    model.metadata = [*(model.metadata or []), entry]
    b = flatbuffers.Builder(0)
    b.Finish(model.Pack(b), file_identifier=b"TFL3")
    packed = io.BytesIO(bytes(b.Output()))
    with zipfile.ZipFile(packed, "a") as appended:
        appended.writestr("labels.txt", "\n".join(labels) + "\n")
    file.write_bytes(packed.getvalue())


def bare_answer(file: Path, data: Any) -> Any:
    """The only output of one run, as the interpreter gives it, and its scale and zero point."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file))
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], data.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], data)
    interpreter.invoke()
    return interpreter.get_tensor(answer["index"]), answer["quantization"], given["quantization"]


@case("tflite-float", writer="tensorflow", source="LiteRT `.tflite`", slow=True)
def tflite_float(folder: Path) -> Written:
    """Float, free rows, and metadata: normalisation, colours and labels inside the file."""
    converted(folder, "birds.tflite", quantised=False)
    with_metadata(folder / "birds.tflite", metadata_buffer(0.0, 255.0, "labels.txt"), LABELS)
    image = np.asarray(photo(folder).resize((24, 24), Image.Resampling.BILINEAR), np.float32)
    scores, _, _ = bare_answer(folder / "birds.tflite", (image / 255.0)[np.newaxis])
    rows = np.random.default_rng(1).random((3, 24, 24, 3), np.float32)
    (folder / "rows.json").write_text(json.dumps({"inputs": {"photo": rows.tolist()}}))
    raw, _, _ = bare_answer(folder / "birds.tflite", rows)
    return Written(
        "birds.tflite",
        [
            Ask("photo.png", "image/png", predictions=ranked(scores[0], LABELS)),
            Ask("rows.json", "application/json", outputs={"output_0": raw.tolist()}),
        ],
        spec={
            "format": "tflite",
            "runtime": "litert",
            "trust_class": "data",
            "task": "image-classification",
            "labels": LABELS,
            "signatures": ["serving_default"],
            "preprocessing.scaling": "0..1",
            "preprocessing.channel_order": "rgb",
            "preprocessing.size": [24, 24],
        },
        evidence={
            "labels": "birds.tflite: TFLITE_METADATA labels.txt",
            "preprocessing.scaling": "TFLITE_METADATA NormalizationOptions",
            "preprocessing.channel_order": "TFLITE_METADATA color_space",
            "inputs": "tensor signature",
        },
    )


@case("tflite-quantised", writer="tensorflow", source="LiteRT `.tflite` (quantised)")
def tflite_quantised(folder: Path) -> Written:
    """uint8 at both ends; a file of labels beside it. The picture goes in as its own bytes, the scores come out as the
    numbers they stand for."""
    converted(folder, "quantised.tflite", quantised=True)
    (folder / "labels.txt").write_text("\n".join(LABELS))
    image = np.asarray(photo(folder).resize((24, 24), Image.Resampling.BILINEAR), np.uint8)
    raw, (scale, zero), (given_scale, given_zero) = bare_answer(folder / "quantised.tflite", image[np.newaxis])
    # The range the input was quantised for is that of the pictures, 0..1: a pixel is the number that stands for it.
    assert abs(given_scale - 1 / 255) < 1e-4, (given_scale, given_zero)
    scores = scale * (raw[0].astype(np.float64) - zero)
    return Written(
        "quantised.tflite",
        [Ask("photo.png", "image/png", predictions=ranked(scores, LABELS))],
        spec={
            "format": "tflite",
            "trust_class": "data",
            "task": "image-classification",
            "labels": LABELS,
            "preprocessing.scaling": "0..255",
        },
        evidence={
            "preprocessing.scaling": "tensor signature: scale",
            "outputs": "zero point",
            "labels": "labels.txt: line order",
        },
    )
