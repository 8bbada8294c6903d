"""Real files of each format give a full ModelSpec with a source for every field, and no framework is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import ModelCorrupt, ModelFormatUnknown, ModelUnreadable, SidecarInvalid
from engine.formats import describe_model, keras_objects, saved_model_proto
from engine.formats.describe import parse_labels
from engine.formats.disk import EXPECTED
from engine.model_spec import ModelSpec, TensorSpec, TrustClass

Copied = Callable[..., Path]


def complete(spec: ModelSpec) -> ModelSpec:
    """Every field has a source, and the spec survives the way to the parent."""
    assert {name for name, _, _ in spec.evidence_rows()} <= set(spec.evidence)
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    return spec


def test_sequential_keras(copied: Copied) -> None:
    file = copied("sequential.keras")
    spec = complete(describe_model(file))
    assert (spec.format, spec.runtime, spec.trust_class) == ("keras", "keras", TrustClass.DATA)
    assert spec.task == "image-classification"
    assert spec.inputs == (TensorSpec("image", "float32", (-1, 8, 8, 1)),)
    assert spec.outputs[0].shape == (-1, 10)
    assert spec.preprocessing.size == (8, 8)
    assert spec.preprocessing.layout == "nhwc"
    assert spec.preprocessing.channel_order == "grayscale"
    assert spec.preprocessing.scaling == "0..16"
    assert spec.evidence["preprocessing.scaling"] == "config.json: layers[1] Rescaling"
    assert spec.postprocessing.activation == "none"
    assert spec.evidence["postprocessing.activation"] == "config.json: layers[6] Softmax softmax"
    assert spec.evidence["task"] == "tensor signature"
    assert spec.evidence["labels"] == "assumed"
    assert (spec.path, spec.model_file, spec.files) == (file.parent, file, (file,))


def test_functional_keras_with_nested_model_operations_and_raw_scores(copied: Copied) -> None:
    spec = complete(describe_model(copied("functional.keras")))
    assert spec.task == "image-classification"
    assert spec.inputs == (TensorSpec("photo", "float32", (-1, 32, 32, 3)),)
    assert spec.outputs == (TensorSpec("scores", "float32", (-1, 5)),)
    assert spec.preprocessing.scaling == "0..255"
    assert spec.evidence["preprocessing.scaling"] == "config.json: layers[1].layers[2] Rescaling"
    assert spec.postprocessing.activation == "softmax"
    assert spec.evidence["postprocessing.activation"].endswith("Dense linear")
    assert spec.evidence["preprocessing.channel_order"] == "assumed"


def test_keras_ending_in_an_activation(copied: Copied) -> None:
    spec = complete(describe_model(copied("without_dense.keras")))
    assert spec.task == "image-classification"
    assert spec.outputs == (TensorSpec("last", "float32", (-1, 7)),)
    assert spec.postprocessing.activation == "none"
    assert spec.evidence["preprocessing.scaling"] == "assumed"


def test_keras_with_two_inputs_is_raw_tensors(copied: Copied) -> None:
    spec = complete(describe_model(copied("two_inputs.keras")))
    assert spec.task == "raw-tensors"
    assert [t.name for t in spec.inputs] == ["left", "right"]
    assert spec.evidence["task"] == "assumed"


def test_keras_table_is_tabular_when_columns_are_stated(copied: Copied) -> None:
    file = copied("table.keras")
    assert describe_model(file).task == "raw-tensors"
    file.with_name("deskside.toml").write_text('columns = ["a", "b", "c"]\nlabels = ["no", "yes"]\n')
    spec = complete(describe_model(file))
    assert spec.task == "tabular-classification"
    assert (spec.evidence["task"], spec.evidence["columns"]) == ("sidecar", "sidecar")
    file.with_name("deskside.toml").write_text('columns = ["a", "b"]\n')
    with pytest.raises(SidecarInvalid, match="columns: expected 3 column names"):
        describe_model(file)


def test_lookup_with_words_inside_is_data(copied: Copied) -> None:
    assert describe_model(copied("lookup.keras")).trust_class is TrustClass.DATA


def test_saved_model_exported_by_keras(copied: Copied) -> None:
    folder = copied("exported")
    spec = complete(describe_model(folder))
    assert (spec.format, spec.runtime, spec.trust_class) == ("saved_model", "saved_model", TrustClass.PROGRAM)
    assert spec.task == "image-classification"
    assert spec.signatures == ("serving_default", "serve")
    assert spec.inputs == (TensorSpec("photo", "float32", (-1, 32, 32, 3)),)
    assert spec.outputs == (TensorSpec("output_0", "float32", (-1, 5)),)
    assert spec.evidence["inputs"] == "tensor signature"
    assert (spec.path, spec.model_file) == (folder, folder)
    assert {f.name for f in spec.files} == {
        "saved_model.pb", "fingerprint.pb", "variables.index", "variables.data-00000-of-00001",
    }  # fmt: skip
    assert describe_model(folder / "saved_model.pb") == spec
    assert describe_model(folder.parent) == spec


def test_saved_model_without_variables_of_its_own_and_the_signature_a_sidecar_chooses(copied: Copied) -> None:
    folder = copied("signatures")
    spec = complete(describe_model(folder))
    assert spec.task == "raw-tensors"
    assert spec.inputs == (TensorSpec("numbers", "int64", (-1, 2)),)
    (folder / "deskside.toml").write_text('signatures = ["echo"]\n')
    chosen = complete(describe_model(folder))
    assert chosen.inputs == (TensorSpec("text", "str", (-1,)),)
    assert chosen.signatures == ("echo",)
    assert folder / "deskside.toml" not in chosen.files
    (folder / "deskside.toml").write_text('signatures = ["nothing"]\n')
    with pytest.raises(SidecarInvalid, match="'nothing' is not in the model; there are: serving_default, echo"):
        describe_model(folder)


def test_torchscript(copied: Copied) -> None:
    file = copied("script.pt", "model.pt")
    spec = complete(describe_model(file))
    assert (spec.format, spec.runtime, spec.trust_class) == ("torchscript", "torchscript", TrustClass.PROGRAM)
    assert (spec.inputs, spec.task) == ((), "raw-tensors")
    assert spec.evidence["inputs"] == "assumed (a TorchScript graph carries no input shape)"
    assert spec.evidence["extra_files"] == "model.pt: notes.txt"
    assert spec.files == (file,)


def test_torchscript_with_sidecar(copied: Copied) -> None:
    file = copied("script.pt", "model.pt")
    file.with_name("model.deskside.toml").write_text(
        'task = "image-classification"\nversion = 2\n'
        '[[inputs]]\nname = "x"\ndtype = "float32"\nshape = [-1, 1, 28, 28]\n'
        '[[outputs]]\nname = "y"\ndtype = "float32"\nshape = [-1, 2]\n'
        '[preprocessing]\nscaling = "-1..1"\nmean = [0.5]\nstd = [0.25]\n[postprocessing]\nactivation = "softmax"\n'
    )
    spec = complete(describe_model(file))
    assert spec.task == "image-classification"
    assert spec.version == "2"
    assert spec.preprocessing.layout == "nchw"
    assert spec.evidence["preprocessing.layout"] == "tensor signature"
    assert spec.preprocessing.size == (28, 28)
    assert (spec.preprocessing.scaling, spec.preprocessing.mean, spec.preprocessing.std) == ("-1..1", (0.5,), (0.25,))
    assert spec.evidence["preprocessing.scaling"] == "sidecar"
    assert spec.evidence["postprocessing.activation"] == "sidecar"


def test_a_folder_and_its_single_model_file_are_the_same_model(copied: Copied, tmp_path: Path) -> None:
    file = copied("script.pt", "model.pt")
    (file.parent / "samples").mkdir()
    (file.parent / "README.md").write_text("hello")
    by_file, by_folder = describe_model(file), describe_model(file.parent)
    assert by_file == by_folder
    assert (by_file.path, by_file.model_file) == (file.parent, file)
    link = tmp_path / "link.pt"
    link.symlink_to(file)
    assert describe_model(link) == by_file
    copied("table.keras")
    assert describe_model(file).path == file
    with pytest.raises(ModelFormatUnknown, match="several models") as caught:
        describe_model(file.parent)
    assert "model.pt" in caught.value.message


def test_sidecar_in_the_data_folder(copied: Copied, tmp_path: Path) -> None:
    from engine.sidecar_file import sidecar_in_data_folder

    file = copied("script.pt")
    stored = sidecar_in_data_folder(file.parent, tmp_path / "data")
    stored.parent.mkdir(parents=True)
    stored.write_text('version = "7"\n')
    assert describe_model(file, tmp_path / "data").version == "7"
    assert describe_model(file, tmp_path / "other").version == "1"


def test_labels_file_is_read_and_must_fit(copied: Copied) -> None:
    file = copied("sequential.keras")
    labels = file.with_name("labels.txt")
    labels.write_text("".join(f"{i} digit {i}\n" for i in range(10)))
    spec = complete(describe_model(file))
    assert spec.labels[3] == "digit 3"
    assert spec.evidence["labels"] == "labels.txt: line order"
    labels.write_text("only\ntwo\n")
    spec = complete(describe_model(file))
    assert spec.labels == ()
    assert spec.evidence["labels"] == "assumed (labels.txt has 2 lines, the model 10 classes)"
    file.with_name("deskside.toml").write_text('labels = ["a", "b"]\n')
    with pytest.raises(SidecarInvalid, match="labels: expected 10 class names"):
        describe_model(file)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\r\ndog\r\n\r\n", ("cat", "dog")),
        (b"0 cat\n1 dog\n", ("cat", "dog")),
        (b"0 cat\n2 dog\n", ("0 cat", "2 dog")),
        (b"1 cat\n2 dog\n", ("1 cat", "2 dog")),
        (b"0\n1\n2\n", ("0", "1", "2")),
        ("Käse\n".encode("cp1252"), ("Käse",)),
        (b"\n", ()),
    ],
)
def test_labels_text(text: bytes, labels: tuple[str, ...]) -> None:
    assert parse_labels(text) == labels


def test_a_sidecar_cannot_change_format_or_runtime(copied: Copied) -> None:
    file = copied("script.pt")
    for key, value in (("format", "keras"), ("runtime", "fake")):
        file.with_name("deskside.toml").write_text(f'{key} = "{value}"\n')
        with pytest.raises(SidecarInvalid, match=f'{key}: expected "torchscript"'):
            describe_model(file)


def test_field_numbers_are_tensorflows(models: Path) -> None:
    theirs = json.loads((models / "saved_model_fields.json").read_text())
    for message, fields in saved_model_proto._MESSAGES.items():
        if message.endswith("Entry"):
            assert {name: number for name, number, *_ in fields} == {"key": 1, "value": 2}
            continue
        for name, number, *_ in fields:
            assert theirs["fields"][message][name] == number, (message, name)
    names = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "str": "DT_STRING", "float16": "DT_HALF"}
    for number, name in saved_model_proto.DTYPES.items():
        assert theirs["dtypes"][str(number)] == names.get(name, "DT_" + name.upper())


def test_every_allowed_name_is_one_of_keras(models: Path) -> None:
    exported = set(json.loads((models / "keras_names.json").read_text()))
    operations = json.loads((models / "keras_operations.json").read_text())
    for module, names in keras_objects.ALLOWED.items():
        if module in operations:
            assert names <= set(operations[module])
        elif not module.startswith("keras.src") and module not in ("keras", "keras.models"):
            missing = {n for n in names if f"{module}.{n}" not in exported and f"keras.{n}" not in exported}
            assert not missing


def test_describing_imports_no_framework(models: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engine.formats import describe_model\n"
        f"for name in ('functional.keras', 'exported', 'script.pt'): describe_model(Path({str(models)!r}) / name)\n"
        "print(sorted({'torch', 'tensorflow', 'keras', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"just text", "notes.txt", "is not a model that can be opened"),
        (b"\x89PNG\r\n\x1a\n", "photo.png", "is not a model that can be opened"),
    ],
)
def test_other_files_are_named_with_what_was_expected(tmp_path: Path, content: bytes, name: str, words: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ModelFormatUnknown) as caught:
        describe_model(file)
    assert words in caught.value.message
    assert caught.value.message.startswith(name)
    assert f"expected {EXPECTED}." in caught.value.message


def test_missing_empty_and_folders_without_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=r"nothing.pt does not exist: expected a .keras file"):
        describe_model(tmp_path / "nothing.pt")
    (tmp_path / "empty.keras").write_bytes(b"")
    with pytest.raises(ModelCorrupt, match=r"empty.keras is empty \(0 bytes\)"):
        describe_model(tmp_path / "empty.keras")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    with pytest.raises(ModelFormatUnknown, match="The folder pictures holds no model"):
        describe_model(tmp_path / "pictures")
