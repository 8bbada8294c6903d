"""Keras in HDF5, and what Keras 2 wrote: read without a framework, by the config alone."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from engine.errors import ModelCorrupt, ModelFormatUnknown, ModelRefused
from engine.formats import describe_model, hdf5
from engine.formats.keras_graph import read_graph
from engine.formats.keras_objects import first_refusal
from engine.model_spec import TensorSpec, TrustClass

pytestmark = pytest.mark.real


def config_of(file: Path) -> dict[str, Any]:
    with h5py.File(file) as opened:
        config: dict[str, Any] = json.loads(opened.attrs["model_config"])
    return config


def written(path: Path, **attributes: Any) -> Path:
    """An HDF5 file with these attributes and an empty group of weights."""
    with h5py.File(path, "w") as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        file.create_group("model_weights")
    return path


def test_a_model_of_keras_2_is_opened_by_keras_2(tensorflow_files: Path) -> None:
    spec = describe_model(tensorflow_files / "functional.h5")
    assert (spec.format, spec.runtime, spec.trust_class) == ("keras_h5", "keras_legacy", TrustClass.PROGRAM)
    assert spec.evidence["runtime"] == "functional.h5: keras_version 2.21.0, opened with tf_keras, which is Keras 2"
    assert spec.task == "image-classification"
    assert spec.inputs == (TensorSpec("photo", "float32", (-1, 24, 24, 3)),)
    # The shape of the last layer is nowhere in the file: it follows from the pooling, the number and the Dense layer.
    assert spec.outputs[0].shape == (-1, 5)
    assert spec.preprocessing.scaling == "0..255"
    assert spec.evidence["preprocessing.scaling"] == "functional.h5: model_config layers[1] TFOpLambda"
    assert spec.postprocessing.activation == "none"
    assert spec.evidence["postprocessing.activation"].endswith("TFOpLambda softmax")
    assert spec.evidence["trust_class"] == "functional.h5: model_config may name any layer"


def test_a_model_of_keras_3_is_opened_by_keras_3(tensorflow_files: Path) -> None:
    spec = describe_model(tensorflow_files / "digits.h5")
    assert (spec.runtime, spec.trust_class) == ("keras", TrustClass.PROGRAM)
    assert spec.outputs[0].shape == (-1, 10)
    assert spec.postprocessing.activation == "softmax"
    assert spec.preprocessing.channel_order == "grayscale"


def test_a_version_that_is_not_stated_is_old(tmp_path: Path, tensorflow_files: Path) -> None:
    config = json.dumps(config_of(tensorflow_files / "nested.h5"))
    spec = describe_model(written(tmp_path / "old.h5", model_config=config))
    assert spec.runtime == "keras_legacy"
    assert "keras_version not stated" in spec.evidence["runtime"]
    assert describe_model(written(tmp_path / "new.h5", model_config=config, keras_version="3.1.0")).runtime == "keras"


def test_code_inside_is_told(tensorflow_files: Path) -> None:
    spec = describe_model(tensorflow_files / "lambda.h5")
    assert spec.trust_class is TrustClass.PROGRAM
    assert spec.evidence["trust_class"] == "lambda.h5: model_config twice (Lambda) holds Python code"


def test_a_sequential_model_inside_another_and_one_that_is_a_bare_list(tensorflow_files: Path) -> None:
    config = config_of(tensorflow_files / "nested.h5")
    facts = read_graph(config, "m.h5: model_config")
    assert facts.inputs[0].shape == (-1, 224, 224, 3)
    assert facts.outputs[0].shape == (-1, 3)
    assert facts.output_key == "m.h5: model_config layers[2] layers[1] Dense softmax"
    # Before Keras 2.2.3 a Sequential model was its layers, and the first of them had the shape.
    old = {"class_name": "Sequential", "config": config["config"]["layers"][1:]}
    old["config"][0]["config"] = old["config"][0]["config"]["layers"][1:]
    old["config"][0]["config"][0]["config"]["batch_input_shape"] = [None, 64, 64, 3]
    facts = read_graph(old)
    assert facts.inputs[0].shape == (-1, 64, 64, 3)
    assert facts.outputs[0].shape == (-1, 3)


@pytest.mark.parametrize("name", ["alone.weights.h5", "alone_old.h5", "alone_3.weights.h5"])
def test_weights_alone_are_told_from_a_model(tensorflow_files: Path, name: str) -> None:
    with pytest.raises(ModelRefused, match="holds weights, but not the model they belong to"):
        describe_model(tensorflow_files / name)


def test_another_hdf5_file_and_a_model_without_weights(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        file["cells"] = [1, 2, 3]
    with pytest.raises(ModelFormatUnknown, match=r"cells.h5 is an HDF5 file, but no Keras model"):
        describe_model(tmp_path / "cells.h5")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.attrs["model_config"] = "{}"
    with pytest.raises(ModelCorrupt, match="it holds a model without its weights"):
        describe_model(tmp_path / "empty.h5")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", "model_config in it is not JSON"),
        ("[]", "model_config in it is not a JSON object"),
        ('{"a":' * 300 + "1" + "}" * 300, "model_config in it is nested too deeply"),
        (["{}", "{}"], "it is cut off or damaged"),
        (7, "it is cut off or damaged"),
    ],
)
def test_a_config_that_is_none_is_corrupt(tmp_path: Path, config: Any, why: str) -> None:
    with pytest.raises(ModelCorrupt, match=why):
        describe_model(written(tmp_path / "bad.h5", model_config=config))


def test_a_config_of_many_texts_is_never_read() -> None:
    # Each could be the same long text in the file, and a text of its own in memory.
    class Attributes(dict[str, Any]):
        def get_id(self, name: str) -> Any:
            return SimpleNamespace(shape=(1 << 30,), dtype=np.dtype(object))

        def __getitem__(self, name: str) -> Any:
            raise AssertionError("it was read")

    with pytest.raises(ValueError, match="is no single text"):
        hdf5.attribute_text(SimpleNamespace(attrs=Attributes(model_config="")), "model_config", 1 << 20)


@pytest.mark.parametrize("keep", [0.001, 0.1, 0.5, 0.99])
def test_a_cut_off_file_is_corrupt(tensorflow_files: Path, tmp_path: Path, keep: float) -> None:
    data = (tensorflow_files / "functional.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ModelCorrupt, match=r"cut.h5 cannot be opened, it is cut off or damaged: expected a complete"):
        describe_model(tmp_path / "cut.h5")


def test_what_hdf5_declares_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "m.h5", model_config="{}")
    with h5py.File(file, "a") as opened:
        opened.create_dataset("model_weights/w", (2 << 20,), "f4", chunks=(1024,))
    describe_model(file)
    monkeypatch.setattr(hdf5, "SMALL", 1 << 20)
    with pytest.raises(ModelCorrupt, match="'w' in it declares more than 20 times as many bytes as the file has"):
        describe_model(file)


def test_a_group_that_holds_itself_ends(tmp_path: Path) -> None:
    file = written(tmp_path / "m.h5", model_config="{}")
    with h5py.File(file, "a") as opened:
        opened["model_weights/again"] = opened["model_weights"]
    assert describe_model(file).format == "keras_h5"


def test_a_filter_from_outside_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "m.h5", model_config="{}")
    with h5py.File(file, "a") as opened:
        opened.create_dataset("model_weights/w", (64,), "f4", compression="lzf")
    with pytest.raises(ModelRefused, match="'w' in it is packed in an unusual way"):
        describe_model(file)


def test_groups_that_lie_too_deep_are_corrupt(tmp_path: Path) -> None:
    file = written(tmp_path / "m.h5", model_config="{}")
    with h5py.File(file, "a") as opened:
        opened.create_group("/".join(["model_weights"] + ["g"] * 80))
    with pytest.raises(ModelCorrupt, match="its groups lie more than 64 deep"):
        describe_model(file)


# -- .keras files of Keras 2 -------------------------------------------------------------------------------------------
def test_a_zip_of_keras_2_is_data_and_opened_by_keras_2(tensorflow_files: Path) -> None:
    spec = describe_model(tensorflow_files / "functional_2.keras")
    assert (spec.format, spec.runtime, spec.trust_class) == ("keras", "keras_legacy", TrustClass.DATA)
    assert spec.outputs[0].shape == (-1, 5)


def test_the_same_config_in_a_zip_of_keras_3_is_refused(tensorflow_files: Path, tmp_path: Path) -> None:
    target = tmp_path / "newer.keras"
    with zipfile.ZipFile(tensorflow_files / "functional_2.keras") as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            new.writestr(info, b'{"keras_version": "3.9.0"}' if info.filename == "metadata.json" else old.read(info))
    with pytest.raises(ModelRefused, match="is not one of Keras' own"):
        describe_model(target)


def layer(module: str, class_name: str, **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "registered_name": None, "config": {"name": "planted"} | config}


OPERATION = "keras.src.layers.core.tf_op_layer"


@pytest.mark.parametrize(
    ("planted", "refusal"),
    [
        (layer(OPERATION, "TFOpLambda", function="math.multiply"), None),
        (layer(OPERATION, "SlicingOpLambda", function="__operators__.getitem"), None),
        (layer("keras.mixed_precision", "Policy"), None),
        (layer(OPERATION, "TFOpLambda", function="io.write_file"), "calls 'io.write_file'"),
        (layer(OPERATION, "TFOpLambda", function="py_function"), "calls 'py_function'"),
        (layer(OPERATION, "TFOpLambda", function=["math.multiply"]), "calls"),
        (layer(OPERATION, "TFOpLambda"), "calls 'None'"),
        (layer(OPERATION, "TensorFlowOpLayer", node_def="x"), "is not one of Keras' own"),
        (layer(OPERATION, "ClassMethod"), "is not one of Keras' own"),
        (layer("keras.layers", "Lambda"), "holds code of its own"),
        (layer("tf_keras.src.utils.data_utils", "get_file"), "is not one of Keras' own"),
        (layer("keras.layers", "StringLookup", vocabulary="/etc/passwd"), "would read another file"),
    ],
)
def test_what_a_zip_of_keras_2_may_name(planted: dict[str, Any], refusal: str | None) -> None:
    config = {"module": "keras", "class_name": "Functional", "config": {"layers": [planted]}}
    found = first_refusal(config, legacy=True)
    assert found is None if refusal is None else found is not None and refusal in found
    if "tf_op_layer" in planted["module"]:
        assert first_refusal(config) is not None, "Keras 3 has no such layer"


# -- Teachable Machine and Lobe ----------------------------------------------------------------------------------------
def teachable(tensorflow_files: Path, folder: Path, labels: str, name: str = "keras_model.h5") -> Path:
    shutil.copy(tensorflow_files / "nested.h5", folder / name)
    (folder / "labels.txt").write_bytes(labels.encode())
    return folder / name


def test_teachable_machine_is_told_by_its_two_files(tensorflow_files: Path, tmp_path: Path) -> None:
    spec = describe_model(teachable(tensorflow_files, tmp_path, "0 cat\r\n1 dog\r\n2 no pet\r\n"))
    how = spec.preprocessing
    assert spec.labels == ("cat", "dog", "no pet")
    assert (how.size, how.resize, how.resample, how.scaling) == ((224, 224), "fit", "lanczos", "-1..1")
    source = "labels.txt beside keras_model.h5: Teachable Machine export"
    assert spec.evidence["preprocessing.scaling"] == spec.evidence["preprocessing.channel_order"] == source
    assert spec.evidence["labels"] == "labels.txt: line order"


@pytest.mark.parametrize(("labels", "name"), [("cat\ndog\nno pet", "keras_model.h5"), ("0 cat\n1 dog\n2 x", "own.h5")])
def test_what_is_not_teachable_machines_stays_assumed(
    tensorflow_files: Path, tmp_path: Path, labels: str, name: str
) -> None:
    spec = describe_model(teachable(tensorflow_files, tmp_path, labels, name))
    assert spec.evidence["preprocessing.scaling"] == "assumed"
    assert len(spec.labels) == 3


def test_what_the_model_itself_states_wins_over_lobe(tensorflow_files: Path, tmp_path: Path) -> None:
    shutil.copy(tensorflow_files / "functional.h5", tmp_path / "keras.h5")
    (tmp_path / "signature.json").write_text(json.dumps(LOBE))
    spec = describe_model(tmp_path / "keras.h5")
    assert spec.preprocessing.scaling == "0..255"
    assert spec.evidence["preprocessing.scaling"].endswith("TFOpLambda")
    assert spec.evidence["preprocessing.crop"] == "signature.json: Lobe export"


def test_the_sidecar_wins_over_teachable_machine(tensorflow_files: Path, tmp_path: Path) -> None:
    file = teachable(tensorflow_files, tmp_path, "0 cat\n1 dog\n2 no pet\n")
    (tmp_path / "deskside.toml").write_text('[preprocessing]\nscaling = "0..1"\n')
    spec = describe_model(file)
    assert (spec.preprocessing.scaling, spec.evidence["preprocessing.scaling"]) == ("0..1", "sidecar")
    assert spec.preprocessing.resize == "fit"


LOBE = {"filename": "keras.h5", "inputs": {"Image": {"shape": [None, 24, 24, 3]}}, "classes": {"Label": list("abcde")}}


@pytest.mark.parametrize(
    ("changes", "labels", "evidence"),
    [
        ({}, tuple("abcde"), "signature.json: classes.Label"),
        ({"classes": {"Label": ["a"]}}, (), "assumed (signature.json names 1 classes, the model gives other scores)"),
        ({"filename": "saved_model.pb"}, (), "assumed"),
        ({"classes": ["a"]}, (), "assumed"),
        ({"classes": {"Label": [1]}}, (), "assumed"),
        ({"inputs": []}, (), "assumed"),
    ],
)  # fmt: skip
def test_lobes_signature(
    tensorflow_files: Path, tmp_path: Path, changes: dict[str, Any], labels: tuple[str, ...], evidence: str
) -> None:
    shutil.copy(tensorflow_files / "functional.h5", tmp_path / "keras.h5")
    (tmp_path / "signature.json").write_text(json.dumps(LOBE | changes))
    spec = describe_model(tmp_path / "keras.h5")
    assert (spec.labels, spec.evidence["labels"]) == (labels, evidence)
    assert (spec.preprocessing.crop == "square") is (evidence != "assumed")


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{" * 100_000, b'"text"'])
def test_a_signature_of_another_tool_is_left_alone(tensorflow_files: Path, tmp_path: Path, content: bytes) -> None:
    shutil.copy(tensorflow_files / "functional.h5", tmp_path / "keras.h5")
    (tmp_path / "signature.json").write_bytes(content)
    assert describe_model(tmp_path / "keras.h5").evidence["labels"] == "assumed"
