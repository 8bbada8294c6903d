"""The sidecar's keys are checked one by one, and a wrong one is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.detection_heads import HEADS
from engine.errors import ModelUnreadable, SidecarInvalid
from engine.formats.sidecar import Sidecar, read_sidecar
from engine.keypoint_heads import HEADS as KEYPOINT_HEADS
from engine.model_spec import TensorSpec
from engine.segmentation_heads import HEADS as SEGMENTATION_HEADS
from engine.sidecar_file import find_sidecar

DOCUMENT = Path(__file__).parents[3] / "docs" / "sidecar.md"


def read(tmp_path: Path, text: str | bytes) -> Sidecar:
    file = tmp_path / "deskside.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_sidecar(file)


def test_every_key_is_read(tmp_path: Path) -> None:
    file = tmp_path / "deskside.toml"
    file.write_text(
        'format = "keras"\nruntime = "keras"\ntask = "image-classification"\nversion = "3"\n'
        'signatures = ["serve"]\nlabels = ["a", "b"]\ncolumns = ["x"]\n'
        '[[inputs]]\nname = "i"\ndtype = "uint8"\nshape = [-1, 4]\n[[outputs]]\nname = "o"\ndtype = "str"\nshape = []\n'
        '[preprocessing]\nsize = [10, 20]\nresize = "shortest"\nresize_size = [12, 24]\n'
        'resample = "lanczos"\ncrop = "center"\nchannel_order = "bgr"\n'
        'layout = "nchw"\nscaling = "0..16"\nmean = [0.1, 0.2, 0.3]\nstd = [1, 2, 3]\njpeg_scaled_decode = true\n'
        '[postprocessing]\nactivation = "sigmoid"\nthreshold = 0.5\niou = 0.4\n'
    )
    sidecar = read_sidecar(file)
    assert sidecar.fields["inputs"] == (TensorSpec("i", "uint8", (-1, 4)),)
    assert sidecar.fields["outputs"] == (TensorSpec("o", "str", ()),)
    assert sidecar.preprocessing["size"] == (10, 20)
    assert sidecar.preprocessing["resize_size"] == (12, 24)
    assert sidecar.preprocessing["resample"] == "lanczos"
    assert sidecar.preprocessing["std"] == (1.0, 2.0, 3.0)
    assert sidecar.preprocessing["jpeg_scaled_decode"] is True
    assert sidecar.postprocessing == {"activation": "sigmoid", "threshold": 0.5, "iou": 0.4}
    assert "preprocessing" not in sidecar.fields


def test_keys_of_points_and_tables_are_read(tmp_path: Path) -> None:
    file = tmp_path / "deskside.toml"
    file.write_text(
        'task = "keypoint-detection"\nkeypoints = ["head", "hand"]\nskeleton = [["head", "hand"]]\n'
        'columns = ["size", "sort"]\none_hot = ["sort"]\n[categories]\nsort = ["a", "b"]\n'
        '[missing]\nsize = 2\nsort = "a"\n"*" = nan\n'
        '[preprocessing]\nmultiple = 8\n[postprocessing]\nhead = "heat-maps"\nscaling = "-1..1"\n'
    )
    sidecar = read_sidecar(file)
    assert sidecar.fields["keypoints"] == ("head", "hand")
    assert sidecar.fields["skeleton"] == (("head", "hand"),)
    assert sidecar.fields["one_hot"] == ("sort",)
    assert sidecar.fields["categories"] == {"sort": ("a", "b")}
    assert sidecar.fields["missing"] == {"size": 2.0, "sort": "a", "*": "nan"}
    assert sidecar.preprocessing == {"multiple": 8}
    assert sidecar.postprocessing == {"head": "heat-maps", "scaling": "-1..1"}


@pytest.mark.parametrize("head", [*HEADS, *SEGMENTATION_HEADS, *KEYPOINT_HEADS])
def test_every_head_can_be_stated(tmp_path: Path, head: str) -> None:
    assert read(tmp_path, f'[postprocessing]\nhead = "{head}"').postprocessing == {"head": head}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[preprocessing]\nsize = [1.5, 2]",
            "deskside.toml: preprocessing.size: expected two whole numbers, height and",
        ),
        ("[preprocessing]\nsize = 32", "preprocessing.size: expected two whole numbers"),
        ("[preprocessing]\nsize = [true, 2]", "preprocessing.size"),
        ("[preprocessing]\nsize = [0, 2]", "preprocessing.size"),
        ("[preprocessing]\nmultiple = 0", "preprocessing.multiple: expected a whole number of pixels from 1"),
        ("[preprocessing]\nmultiple = true", "preprocessing.multiple: expected a whole number of pixels from 1"),
        ('[preprocessing]\nscaling = "bright"', 'preprocessing.scaling: expected a range such as "0..1"'),
        ('[preprocessing]\nscaling = "1..0"', "preprocessing.scaling"),
        ('[preprocessing]\nresample = "cubic"', 'preprocessing.resample: expected one of "bilinear", "bicubic"'),
        ('[preprocessing]\nlayout = "hwc"', 'preprocessing.layout: expected one of "nhwc", "nchw", "nhw"'),
        ("[preprocessing]\nstd = [0.0]", "preprocessing.std: expected one number above 0 per channel"),
        ("[preprocessing]\nmean = [nan]", "preprocessing.mean"),
        ("[preprocessing]\njpeg_scaled_decode = 1", "preprocessing.jpeg_scaled_decode: expected true or false"),
        ("[preprocessing]\nmeen = [1.0]", "preprocessing.meen: unknown key; known here are size, resize"),
        ("[postprocessing]\nthreshold = 2", "postprocessing.threshold: expected a number from 0 to 1"),
        ("postprocessing = 3", "postprocessing: expected a section"),
        ('tusk = "x"', "deskside.toml: tusk: unknown key; known here are format, runtime, task"),
        ('task = "mind-reading"', 'task: expected one of "image-classification"'),
        ("task = 3", "task: expected one of"),
        ("version = true", "version: expected"),
        ('precision = "int8"', 'precision: expected one of "float32", "float16", "bfloat16"'),
        ("architecture = 3", "architecture: expected a short text"),
        ("architecture_kwargs = 3", "architecture_kwargs: expected a table of numbers, texts, true, false and lists"),
        ("[architecture_kwargs]\nwhen = 2024-01-01", "architecture_kwargs: expected a table of numbers"),
        ("[architecture_kwargs]\ninner = {a = 1}", "architecture_kwargs: expected a table of numbers"),
        ('[architecture_kwargs]\n"a b" = 1', "architecture_kwargs: expected names of the class's arguments"),
        ('keypoints = "nose"', "keypoints: expected a list of names of key points"),
        ('keypoints = ["nose", "nose"]', "keypoints: expected a list of names of key points, each once"),
        ('skeleton = [["nose"]]', "skeleton: expected"),
        ('skeleton = [["nose", 3]]', "skeleton: expected"),
        ('skeleton = "nose"', "skeleton: expected"),
        ("categories = {}", "categories: expected a table from column to its categories"),
        ('categories = ["a"]', "categories: expected a table from column to its categories"),
        ('[categories]\nsort = ["a", "a"]', "categories: expected a list of categories, each once"),
        ("one_hot = [1]", "one_hot: expected a list of column names"),
        ("missing = 3", 'missing: expected a table from column (or "*") to a number, "nan" or a text'),
        ("[missing]\nsize = true", "missing: expected a number"),
        ("[missing]\nsize = inf", "missing: expected a number"),
        ('[postprocessing]\nscaling = "3..1"', "postprocessing.scaling: expected a range"),
        ('[postprocessing]\nhead = "yolov9"', "postprocessing.head: expected one of"),
        ('labels = "a"', "labels: expected a list of class names"),
        ("labels = []", "labels: expected a list of class names"),
        ('columns = ["a", "a"]', "columns: expected a list of column names, each once"),
        ('inputs = ["a"]', "inputs: expected tables with name, dtype and shape"),
        ('[[inputs]]\nname = "a"', "inputs: expected name, dtype and shape in every table"),
        ('[[inputs]]\nname = "a"\ndtype = "object"\nshape = [1]', 'inputs: expected a NumPy dtype such as "float32"'),
        ('[[inputs]]\nname = "a"\ndtype = "int8"\nshape = [0]', "inputs: expected shape"),
        ('[[inputs]]\nname = "a"\ndtype = "int8"\nshape = [-2]', "inputs: expected shape"),
        ("labels = [", "deskside.toml is not TOML"),
        (b"\xff\xfe\x00", "deskside.toml is not TOML"),
        (b"#" * ((1 << 20) + 1), "larger than 1 MiB"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(SidecarInvalid) as caught:
        read(tmp_path, text)
    assert sentence in caught.value.message


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SidecarInvalid):
        read(tmp_path, "labels = " + "[" * 5000)


def test_order_of_places(tmp_path: Path) -> None:
    model = tmp_path / "net.pt"
    for name in ("deskside.toml", "net.deskside.toml", "net.pt.deskside.toml"):
        (tmp_path / name).write_text("")
        found = find_sidecar(tmp_path, model, tmp_path / "data")
        assert found is not None
        assert found.name == name
    assert find_sidecar(model, model, tmp_path / "data") == tmp_path / "net.pt.deskside.toml"
    (tmp_path / "net.pt.deskside.toml").unlink()
    (tmp_path / "net.deskside.toml").unlink()
    assert find_sidecar(model, model, tmp_path / "data") is None  # the folder's belongs to the folder's one model


def test_a_folder_in_its_place_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "deskside.toml").mkdir()
    with pytest.raises(ModelUnreadable, match=r"deskside.toml is not a regular file\."):
        read_sidecar(tmp_path / "deskside.toml")


def test_the_examples_in_the_documentation_are_valid(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(examples) >= 3
    tasks = set()
    for example in examples:
        (tmp_path / "deskside.toml").write_text(example)
        tasks.add(read_sidecar(tmp_path / "deskside.toml").fields["task"])
    assert tasks == {
        "image-classification", "keypoint-detection", "tabular-classification", "tabular-regression", "raw-tensors",
    }  # fmt: skip
