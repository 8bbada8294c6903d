"""BioImage.IO packages: what is read of a description, and what each fault says."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelCorrupt, ModelFormatUnknown, ModelRefused
from engine.formats import bioimage_yaml, describe_model
from engine.identity import model_location
from engine.model_spec import ModelSpec, TensorSpec

AXES = [
    {"type": "batch"},
    {"type": "channel", "channel_names": ["dapi", "gfp"]},
    {"type": "space", "id": "y", "size": {"min": 8, "step": 4}},
    {"type": "space", "id": "x", "size": 16},
]


def tensor_5(name: str, axes: list[Any], key: str, steps: list[Any] | None = None) -> dict[str, Any]:
    return {"id": name, "axes": axes, "data": {"type": "float32"}, key: steps or []}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "Cells"
    folder.mkdir()
    graph = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 2, "h", 16])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 2, "h", 16])],
        [numpy_helper.from_array(np.zeros(1, np.float32), "unused")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "weights.onnx").write_bytes(made.SerializeToString())
    return folder


def described(folder: Path, **changes: Any) -> ModelSpec:
    """The spec of the package after its description was written, with keys changed or, where None, left out."""
    stated: dict[str, Any] = {
        "type": "model",
        "format_version": "0.5.3",
        "inputs": [tensor_5("raw", AXES, "preprocessing")],
        "outputs": [tensor_5("mask", AXES, "postprocessing")],
        "weights": {"onnx": {"source": "weights.onnx"}},
    }
    stated = {key: value for key, value in (stated | changes).items() if value is not None}
    (folder / "rdf.yaml").write_text(yaml.safe_dump(stated, sort_keys=False))
    return describe_model(folder)


def test_axes_of_both_versions(package: Path) -> None:
    spec = described(package)
    assert (spec.format, spec.runtime, spec.model_file) == ("bioimage_io", "onnxruntime", package / "weights.onnx")
    assert spec.inputs == (TensorSpec("raw", "float32", (-1, 2, -1, 16)),)
    assert spec.files == (package / "rdf.yaml", package / "weights.onnx")
    four = {"axes": "byxc", "data_type": "uint16", "shape": {"min": [1, 8, 8, 3], "step": [0, 8, 0, 0]}}
    implied = {"reference_tensor": "raw", "scale": [1, 1, 2, 0], "offset": [0, 0, -1, 2.5]}
    spec = described(
        package,
        format_version="0.4.10",
        inputs=[{"name": "raw", **four}],
        outputs=[{"name": "mask", "axes": "byxc", "data_type": "float32", "shape": implied}],
    )
    assert spec.inputs == (TensorSpec("raw", "uint16", (-1, -1, 8, 3)),)
    assert spec.outputs == (TensorSpec("mask", "float32", (-1, -1, 14, 5)),)


def test_folder_description_and_id_are_one_model(package: Path) -> None:
    spec = described(package)
    assert describe_model(package / "rdf.yaml") == spec
    assert model_location(package) == model_location(package / "rdf.yaml") == package
    assert describe_model(package / "weights.onnx").format == "onnx"
    assert describe_model(package / "weights.onnx").path == package / "weights.onnx"


def test_test_tensors_are_found(package: Path) -> None:
    assert "golden" not in described(package, test_inputs=["in.npy"], test_outputs=["out.npy"]).evidence
    for name in ("in.npy", "out.npy"):
        np.save(package / name, np.zeros(1))
    spec = described(package, test_inputs=["in.npy"], test_outputs=["out.npy"])
    assert spec.evidence["golden"] == "rdf.yaml: test tensors in.npy -> out.npy"


def test_named_channels_of_scores_are_labels(package: Path) -> None:
    scores = [{"type": "batch"}, {"type": "channel", "channel_names": ["round", "long"]}]
    spec = described(package, outputs=[tensor_5("scores", scores, "postprocessing")])
    assert spec.labels == ("round", "long")
    assert spec.evidence["labels"] == "rdf.yaml: outputs[0].axes channel_names"


def test_a_step_that_is_not_known_is_named(package: Path) -> None:
    with pytest.raises(ModelFormatUnknown, match=r"rdf.yaml in Cells cannot be followed: the step 'stardist_postproc"):
        described(package, outputs=[tensor_5("m", AXES, "postprocessing", [{"id": "stardist_postprocessing"}])])
    far = [{"id": "scale_mean_variance", "kwargs": {"reference_tensor": "nothing"}}]
    with pytest.raises(ModelFormatUnknown, match="refers to 'nothing', which is no input"):
        described(package, outputs=[tensor_5("m", AXES, "postprocessing", far)])


def test_weights_are_those_of_the_description(package: Path) -> None:
    digest = hashlib.sha256((package / "weights.onnx").read_bytes()).hexdigest()
    spec = described(package, weights={"onnx": {"source": "weights.onnx", "sha256": digest}})
    assert spec.evidence["runtime"] == "rdf.yaml: weights.onnx weights.onnx, sha256 agrees"
    with pytest.raises(ModelCorrupt, match=r"weights.onnx in Cells is not the file .* \(sha256 differs\)"):
        described(package, weights={"onnx": {"source": "weights.onnx", "sha256": "0" * 64}})


def test_missing_and_damaged_weights_are_named(package: Path) -> None:
    with pytest.raises(ModelCorrupt, match=r"Cells lacks other.onnx, which its description names"):
        described(package, weights={"onnx": {"source": "other.onnx"}})
    (package / "weights.onnx").write_bytes(b"garbage")
    with pytest.raises(ModelCorrupt, match=r"weights.onnx cannot be opened"):
        described(package)
    with pytest.raises(ModelFormatUnknown, match=r"has weights as pytorch_state_dict, tensorflow_js only"):
        described(package, weights={"pytorch_state_dict": {"source": "a"}, "tensorflow_js": {"source": "b"}})
    with pytest.raises(ModelCorrupt, match=r"names https://example.org/w.onnx by its address"):
        described(package, weights={"onnx": {"source": "https://example.org/w.onnx"}})


@pytest.mark.parametrize("source", ["../w.onnx", "/etc/passwd", "a\\..\\w.onnx", "C:w.onnx", "./../w.onnx"])
def test_weights_outside_the_package_are_refused(package: Path, source: str) -> None:
    (package.parent / "w.onnx").write_bytes(b"x")
    with pytest.raises(ModelRefused, match="it names a file outside of it"):
        described(package, weights={"onnx": {"source": source}})


@pytest.mark.skipif(os.name != "posix", reason="makes links and FIFOs")
def test_links_outside_and_special_files_are_not_opened(package: Path) -> None:
    (package.parent / "w.onnx").write_bytes(b"x")
    (package / "link.onnx").symlink_to(package.parent / "w.onnx")
    with pytest.raises(ModelRefused, match=r"link.onnx leads outside of it"):
        described(package, weights={"onnx": {"source": "link.onnx"}})
    os.mkfifo(package / "pipe.onnx")
    with pytest.raises(Exception, match=r"pipe.onnx is not a regular file"):
        described(package, weights={"onnx": {"source": "pipe.onnx"}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": "0.3.6"}, "of version '0.3.6'"),
        ({"type": "dataset"}, "it describes 'dataset'"),
        ({"weights": None}, "it names no weights"),
        ({"inputs": []}, "it has no inputs"),
        ({"inputs": ["raw"]}, "its inputs are no descriptions"),
        ({"inputs": [tensor_5("mask", AXES, "preprocessing")]}, "two of its tensors have one name"),
        ({"inputs": [tensor_5("raw", AXES[::-1], "preprocessing")]}, "the batch of 'raw' is not its first axis"),
        ({"inputs": [tensor_5("raw", [{"type": "space", "id": "x", "size": 1 << 40}], "p")]}, "impossible shape"),
        ({"inputs": [tensor_5("raw", [{"type": "space", "id": "x", "size": "big"}], "p")]}, "no size"),
        ({"inputs": [tensor_5("raw", [3], "p")]}, "one of its axes has no name"),
        ({"inputs": [tensor_5("raw", AXES * 3, "p")]}, "the axes of 'raw' are not readable"),
        ({"inputs": [{"name": "raw", "axes": "bx", "shape": [1]}]}, "differ in length"),
        ({"inputs": [{"name": "raw", "axes": "bx", "shape": {"min": 3}}]}, "not readable"),
        ({"inputs": [{"name": "raw", "axes": "bx"}]}, "has no shape"),
        ({"inputs": [{"name": "raw", "axes": "bx", "shape": [1, 2], "data_type": "object"}]}, "has the dtype 'object'"),
    ],
)
def test_a_description_that_cannot_be_used_says_why(package: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelCorrupt, match=r"^rdf.yaml in Cells cannot be used, ") as caught:
        described(package, **changes)
    assert said in caught.value.message


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}]}}\n" for i in range(40))


@pytest.mark.parametrize(
    "text",
    [
        BOMB, MERGES, "[" * 2000, "a: [b, c", "just text", "", "!!python/object/apply:os.system ['true']", "\x00",
        "a: &a [*a]", "a: 2026-99-99", "? {a: b}\n: c", "x: [" + "y," * 30_000 + "]",
    ],
)  # fmt: skip
def test_yaml_that_is_too_much_or_none_is_one_sentence(package: Path, text: str) -> None:
    (package / "rdf.yaml").write_text(text)
    with pytest.raises(ModelCorrupt, match=r"rdf.yaml"):
        describe_model(package)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MERGES, "merge keys"),
        ("[" * 100, "nested too deeply"),
        ("x: [" + "y," * 30_000 + "]", "too many values"),
    ],
)
def test_what_yaml_would_grow_into_is_bounded(text: str, said: str) -> None:
    with pytest.raises(bioimage_yaml.YamlProblem, match=said):
        bioimage_yaml.read_mapping(text.encode())


def test_a_description_is_bounded(package: Path) -> None:
    (package / "rdf.yaml").write_bytes(b"# " + b"x" * bioimage_yaml.MAX_BYTES)
    with pytest.raises(ModelCorrupt, match=r"rdf.yaml is larger than"):
        describe_model(package)


def test_a_packed_package_asks_to_be_unpacked(package: Path, tmp_path: Path) -> None:
    described(package)
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        for file in package.iterdir():
            archive.write(file, file.name)
    with pytest.raises(ModelFormatUnknown, match=r"cells.zip is a packed BioImage.IO model: unpack it"):
        describe_model(tmp_path / "cells.zip")
