"""ONNX files: written by torch's exporter and by onnx itself, answered by ONNX Runtime in a bare script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.e2e.format_case import Ask, Written, case
from tests.e2e.format_writers.keras_files import photo, ranked


def answers(file: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """ONNX Runtime's own outputs by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def softmax(logits: Any) -> Any:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


@case("onnx-torch", writer="onnx", source="ONNX through ONNX Runtime, with external data")
def exported_by_torch(folder: Path) -> Written:
    """Two files, as torch's exporter writes them: the graph, and its weights as external data."""
    import torch

    torch.manual_seed(5)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 4),
    ).eval()
    torch.nn.init.normal_(model[4].weight, std=3.0)
    torch.onnx.export(
        model, (torch.zeros(2, 3, 24, 24),), folder / "birds.onnx", input_names=["photo"], output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), external_data=True, verbose=False,
    )  # fmt: skip
    assert (folder / "birds.onnx.data").exists()
    image = photo(folder).resize((24, 24), Image.Resampling.BILINEAR)
    batch = (np.asarray(image, np.float32) / np.float32(255)).transpose(2, 0, 1)[np.newaxis]
    scores = softmax(answers(folder / "birds.onnx", {"photo": batch})["scores"][0])
    return Written(
        "birds.onnx",
        [Ask("photo.png", "image/png", predictions=ranked(scores, [f"LABEL_{i}" for i in range(4)]))],
        spec={
            "format": "onnx", "runtime": "onnxruntime", "trust_class": "data", "task": "image-classification",
            "inputs": [{"name": "photo", "dtype": "float32", "shape": [-1, 3, 24, 24]}], "preprocessing.layout": "nchw",
            "postprocessing.activation": "softmax",
        },
        evidence={
            "inputs": "birds.onnx: graph.input", "format": "producer pytorch",
            "postprocessing.activation": "graph.node Gemm", "preprocessing.scaling": "assumed",
        },
    )  # fmt: skip


@case("onnx-ultralytics", writer="onnx", source="ONNX through ONNX Runtime, with Ultralytics' metadata")
def ultralytics_metadata(folder: Path) -> Written:
    """The metadata_props of ultralytics/engine/exporter.py (8.x): Python literals as text. Its package is not licensed
    for us; the bytes are onnx's. The graph is exported for one picture at a time, as Ultralytics does by default."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(7)
    weights = random.normal(scale=3.0, size=(3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["output0"], axis=1),
        ],
        "main_graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    metadata = {
        "description": "Ultralytics YOLO11n-cls model", "author": "Ultralytics", "version": "8.3.0", "stride": 1,
        "task": "classify", "batch": 1, "imgsz": [32, 32], "names": {0: "cat", 1: "it's a dog", 2: "neither"},
        "args": {"batch": 1, "half": False, "dynamic": False, "simplify": True, "opset": None},
    }  # fmt: skip
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.save(model, folder / "best.onnx")
    image = photo(folder, size=(96, 64))
    # Shorter side to 32, middle cut out, 0..1: classify_transforms.
    image = image.resize((48, 32), Image.Resampling.BILINEAR).crop((8, 0, 40, 32))
    batch = (np.asarray(image, np.float32) / np.float32(255)).transpose(2, 0, 1)[np.newaxis]
    scores = answers(folder / "best.onnx", {"images": batch})["output0"][0]
    return Written(
        "best.onnx",
        [Ask("photo.png", "image/png", predictions=ranked(scores, ["cat", "it's a dog", "neither"]))],
        spec={
            "task": "image-classification", "labels": ["cat", "it's a dog", "neither"], "preprocessing.size": [32, 32],
            "preprocessing.resize": "shortest", "preprocessing.crop": "center", "preprocessing.scaling": "0..1",
            "postprocessing.activation": "none",
        },
        evidence={"labels": "metadata_props names", "preprocessing.size": "metadata_props imgsz"},
    )  # fmt: skip


@case("onnx-tensors", writer="onnx", source="ONNX through ONNX Runtime, several inputs and text")
def several_inputs_and_text(folder: Path) -> Written:
    import json

    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("StringConcat", ["first", "second"], ["joined"]),
        ],
        "tensors",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("first", TensorProto.STRING, ["n"]),
            helper.make_tensor_value_info("second", TensorProto.STRING, ["n"]),
        ],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("joined", TensorProto.STRING, ["n"]),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), folder / "tensors.onnx"
    )
    inputs: dict[str, Any] = {
        "a": [[1.5, 2, 3], [4, 5, 6]], "b": [[10, 20, 30], [0.25, 0, 0]],
        "first": ["Käse", ""], "second": ["brot", "x"],
    }  # fmt: skip
    (folder / "ask.json").write_text(json.dumps({"inputs": inputs}))
    given = {k: np.array(v, dtype=np.float32 if k in "ab" else object) for k, v in inputs.items()}
    theirs = answers(folder / "tensors.onnx", given)
    return Written(
        "tensors.onnx",
        [Ask("ask.json", "application/json", outputs={name: array.tolist() for name, array in theirs.items()})],
        spec={"task": "raw-tensors", "trust_class": "data"},
        evidence={"inputs": "graph.input"},
    )


@case(
    "onnx-scikit-learn", writer="onnx", source="ONNX through ONNX Runtime, scores as maps (scikit-learn's converters)"
)
def scores_as_maps(folder: Path) -> Written:
    """The layout of skl2onnx: a label, and a sequence of one map of scores per row, which becomes a matrix."""
    import onnx
    from onnx import TensorProto, helper

    labels = ["b", "a", "c"]
    scores = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    graph = helper.make_graph(
        [
            helper.make_node("Softmax", ["x"], ["p"], axis=1),
            helper.make_node("ArgMax", ["p"], ["output_label"], axis=1, keepdims=0),
            helper.make_node("ZipMap", ["p"], ["output_probability"], domain="ai.onnx.ml", classlabels_strings=labels),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [
            helper.make_tensor_value_info("output_label", TensorProto.INT64, [None]),
            helper.make_value_info("output_probability", scores),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "rows.onnx")
    x = np.array([[0.5, 2, 1], [3, 0, 0.25]], np.float32)
    np.save(folder / "ask.npy", x)
    theirs = answers(folder / "rows.onnx", {"x": x})
    matrix = [[row[label] for label in sorted(labels)] for row in theirs["output_probability"]]
    outputs = {"output_label": theirs["output_label"].tolist(), "output_probability": matrix}
    return Written(
        "rows.onnx",
        [Ask("ask.npy", "application/x-npy", outputs=outputs)],
        spec={"outputs": [{"name": "output_label", "dtype": "int64", "shape": [-1]}], "trust_class": "data"},
    )
