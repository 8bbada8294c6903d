"""BioImage.IO packages around TorchScript, ONNX and Keras weights, in versions 0.4 and 0.5 of the description."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.e2e.format_case import Ask, Written, case

HEADER = {
    "name": "Nuclei", "description": "Finds nuclei.", "authors": [{"name": "A. Person"}], "license": "MIT",
    "documentation": "README.md", "cite": [{"text": "None", "doi": "10.0000/0"}], "tags": ["unet"],
}  # fmt: skip


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def cells(rows: int, channels: int, height: int, width: int) -> Any:
    """Integers as a microscope gives them, each row with a brightness of its own."""
    random = np.random.default_rng(3)
    return (
        random.integers(0, 4000, (rows, channels, height, width)) * np.arange(1, rows + 1)[:, None, None, None]
    ).astype(np.float32)


def write_yaml(folder: Path, name: str, description: dict[str, Any]) -> None:
    (folder / name).write_text(yaml.safe_dump(HEADER | description, sort_keys=False))


def ask(folder: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> Ask:
    (folder.parent / "ask.json").write_text(json.dumps({"inputs": {k: v.tolist() for k, v in inputs.items()}}))
    return Ask("ask.json", "application/json", outputs={k: v.tolist() for k, v in outputs.items()})


@case("bioimage-torchscript-0.4", writer="torch", source="BioImage.IO package 0.4 with TorchScript weights")
def torchscript_package(folder: Path) -> Written:
    import torch

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.manual_seed(4)
    package = folder / "nuclei"
    package.mkdir()
    model = torch.nn.Conv2d(2, 1, 3, padding=1).eval()
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, 2, 8, 8)), str(package / "weights.pt"))
    shape = {"min": [1, 2, 8, 8], "step": [0, 0, 8, 8]}
    kwargs = {"mode": "per_sample", "axes": "yx", "eps": 1e-6}
    write_yaml(
        package,
        "rdf.yaml",
        {
            "format_version": "0.4.10",
            "type": "model",
            "inputs": [
                {
                    "name": "raw", "axes": "bcyx", "data_type": "float32", "data_range": [-float("inf"), float("inf")],
                    "shape": shape, "preprocessing": [{"name": "zero_mean_unit_variance", "kwargs": kwargs}],
                }
            ],
            "outputs": [
                {
                    "name": "nuclei", "axes": "bcyx", "data_type": "float32", "halo": [0, 0, 4, 4],
                    "shape": {"reference_tensor": "raw", "scale": [1, 0, 1, 1], "offset": [0, 0.5, 0, 0]},
                    "postprocessing": [{"name": "sigmoid"}, {"name": "binarize", "kwargs": {"threshold": 0.5}}],
                }
            ],
            "test_inputs": ["test_input.npy"],
            "test_outputs": ["test_output.npy"],
            "weights": {
                "pytorch_state_dict": {"source": "state.pt", "architecture": "unet.py:UNet"},
                "torchscript": {"source": "weights.pt", "sha256": sha256(package / "weights.pt")},
            },
        },
    )  # fmt: skip
    raw = cells(2, 2, 8, 16)
    mean, std = raw.mean((2, 3), keepdims=True), raw.std((2, 3), keepdims=True)
    with torch.inference_mode():
        logits = model(torch.from_numpy((raw - mean) / (std + np.float32(1e-6)))).numpy()
    assert np.abs(logits).min() > 2e-5  # no pixel lies where rounding decides
    nuclei = (1 / (1 + np.exp(-logits)) > 0.5).astype(np.float32)
    np.save(package / "test_input.npy", raw[:1])
    np.save(package / "test_output.npy", nuclei[:1])
    return Written(
        "nuclei",
        [ask(package, {"raw": raw}, {"nuclei": nuclei})],
        spec={
            "format": "bioimage_io", "runtime": "torchscript", "trust_class": "program", "task": "raw-tensors",
            "inputs": [{"name": "raw", "dtype": "float32", "shape": [-1, 2, -1, -1]}],
            "outputs": [{"name": "nuclei", "dtype": "float32", "shape": [-1, 1, -1, -1]}],
        },
        evidence={
            "format": "rdf.yaml: format_version 0.4.10", "runtime": "weights.torchscript weights.pt, sha256 agrees",
            "steps": "rdf.yaml: preprocessing",
        },
    )  # fmt: skip


@case("bioimage-onnx-0.5", writer="onnx", source="BioImage.IO package 0.5 with ONNX weights")
def onnx_package(folder: Path) -> Written:
    """The weights call their tensors otherwise, and were saved for one row at a time."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    package = folder / "nuclei"
    package.mkdir()
    kernel = np.random.default_rng(5).normal(size=(3, 1, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input.1", "w"], ["out.7"], pads=[1, 1, 1, 1])],
        "g",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [helper.make_tensor_value_info("out.7", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [numpy_helper.from_array(kernel, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), package / "weights.onnx"
    )
    space = [
        {"type": "space", "id": axis, "size": {"min": 8, "step": 4}, "unit": "micrometer", "scale": 0.5}
        for axis in "yx"
    ]
    same = [{"type": "space", "id": axis, "size": {"tensor_id": "raw", "axis_id": axis, "offset": 0}} for axis in "yx"]
    scale_range = {"axes": ["channel", "y", "x"], "min_percentile": 1, "max_percentile": 99.8}
    write_yaml(
        package,
        "bioimageio.yaml",
        {
            "format_version": "0.5.3",
            "type": "model",
            "inputs": [
                {
                    "id": "raw", "data": {"type": "uint16"},
                    "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["dapi"]}, *space],
                    "test_tensor": {"source": "in.npy"},
                    "preprocessing": [
                        {"id": "scale_range", "kwargs": scale_range}, {"id": "clip", "kwargs": {"min": 0, "max": 1}},
                        {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                    ],
                }
            ],
            "outputs": [
                {
                    "id": "classes", "data": {"type": "float32"},
                    "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["in", "edge", "out"]}, *same],
                    "test_tensor": {"source": "out.npy"},
                    "postprocessing": [{"id": "softmax", "kwargs": {"axis": "channel"}}],
                }
            ],
            "weights": {"onnx": {"source": "weights.onnx", "opset_version": 17}},
        },
    )  # fmt: skip
    raw = cells(1, 1, 12, 8)
    low, high = np.percentile(raw, (1, 99.8))
    prepared = np.clip((raw - low) / (high - low + 1e-6), 0, 1).astype(np.float32)
    session = onnxruntime.InferenceSession(str(package / "weights.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input.1": prepared})
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    classes = exponents / exponents.sum(1, keepdims=True)
    np.save(package / "in.npy", raw.astype(np.uint16))
    np.save(package / "out.npy", classes)
    return Written(
        "nuclei",
        [ask(package, {"raw": raw.astype(np.uint16)}, {"classes": classes})],
        spec={
            "format": "bioimage_io", "runtime": "onnxruntime", "trust_class": "data",
            "inputs": [{"name": "raw", "dtype": "uint16", "shape": [-1, 1, -1, -1]}],
            "outputs": [{"name": "classes", "dtype": "float32", "shape": [-1, 3, -1, -1]}],
        },
        evidence={"inputs": "bioimageio.yaml: inputs"},
    )  # fmt: skip


@case("bioimage-keras-0.4", writer="tensorflow", source="BioImage.IO package 0.4 with Keras weights")
def keras_package(folder: Path) -> Written:
    import keras

    keras.utils.set_random_seed(6)
    package = folder / "nuclei"
    package.mkdir()
    image = keras.Input((16, 16, 3), name="input_1")
    model = keras.Model(image, keras.layers.Conv2D(2, 3, padding="same", name="conv")(image))
    model.save(package / "weights.h5")
    means, spreads = [100.0, 120.0, 140.0], [20.0, 30.0, 40.0]
    fixed = {"mode": "fixed", "axes": "yx", "mean": means, "std": spreads}
    write_yaml(
        package,
        "rdf.yaml",
        {
            "format_version": "0.4.9",
            "inputs": [
                {
                    "name": "raw", "axes": "byxc", "data_type": "float32", "shape": [1, 16, 16, 3],
                    "preprocessing": [{"name": "zero_mean_unit_variance", "kwargs": fixed}],
                }
            ],
            "outputs": [
                {
                    "name": "mask", "axes": "byxc", "data_type": "float32", "shape": [1, 16, 16, 2],
                    "postprocessing": [{"name": "scale_linear", "kwargs": {"gain": 2.0, "offset": -0.5, "axes": "yx"}}],
                }
            ],
            "test_inputs": ["in.npy"],
            "test_outputs": ["out.npy"],
            "weights": {"keras_hdf5": {"source": "./weights.h5", "sha256": sha256(package / "weights.h5")}},
        },
    )  # fmt: skip
    raw = np.random.default_rng(8).integers(0, 256, (1, 16, 16, 3)).astype(np.float32)
    prepared = (raw - np.float32(means)) / (np.float32(spreads) + np.float32(1e-6))
    mask = model(prepared, training=False).numpy() * 2 - 0.5
    np.save(package / "in.npy", raw)
    np.save(package / "out.npy", mask)
    return Written(
        "nuclei",
        [ask(package, {"raw": raw}, {"mask": mask})],
        spec={
            "format": "bioimage_io", "trust_class": "program",
            "inputs": [{"name": "raw", "dtype": "float32", "shape": [-1, 16, 16, 3]}],
        },
        evidence={"runtime": "weights.keras_hdf5"},
    )  # fmt: skip
