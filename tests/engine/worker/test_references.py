"""A picture becomes, to the last bit, what the library that trained the model made of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.formats.image_processors import KNOWN, processor_class, read_image_processor
from engine.model_spec import Preprocessing, TensorSpec
from engine.worker.images import decode_image
from engine.worker.tasks.image_tensors import ImageTensors, pixel_values
from tests.engine.worker.make_references import pictures
from tests.engine.worker.process import PATIENCE_S, make_spec

pytestmark = pytest.mark.real

CASES = [
    "vit", "vit-lanczos", "vit-nearest", "vit-cropped-only", "vit-factor", "vit-raw", "deit", "deit-odd", "clip",
    "clip-odd", "bit-shortest", "convnext-small", "convnext-pct", "convnext-large", "levit", "mobilenet", "mobilevit",
    "beit", "pvt", "siglip", "detr", "yolos", "rt-detr", "segformer", "maskformer", "mask2former", "mask2former-plain",
    "dpt", "dpt-kept", "glpn", "old-vit", "old-clip", "old-convnext", "old-deit", "old-segformer",
]  # fmt: skip


def make(library: str, folder: Path) -> Path:
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", HF_HUB_OFFLINE="1", OMP_WAIT_POLICY="PASSIVE")
    command = [sys.executable, "-m", "tests.engine.worker.make_references", library, str(folder)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], env=environment, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.fixture(scope="module")
def transformers_references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("transformers", tmp_path_factory.mktemp("transformers"))


@pytest.fixture(scope="module")
def keras_references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("keras", tmp_path_factory.mktemp("keras"))


def converted(how: Preprocessing, tensor: TensorSpec | None = None) -> dict[str, NDArray[Any]]:
    """Each picture as PNG bytes through our decoder and preprocessing, without the first dimension."""
    convert = ImageTensors(make_spec("image-classification", preprocessing=how), tensor)
    made = {}
    for name, image in pictures().items():
        data = io.BytesIO()
        image.save(data, "PNG")
        made[name] = convert.convert(decode_image(data.getvalue()))[0]
    return made


def assert_equal(ours: dict[str, NDArray[Any]], file: Path) -> None:
    """To the last bit: Pillow resizes in both, and every operation is done in the same order and precision."""
    with np.load(file) as theirs:
        assert set(theirs) == set(ours)
        for name, array in ours.items():
            assert array.dtype == np.float32
            assert array.shape == theirs[name].shape, name
            np.testing.assert_array_equal(array, theirs[name].astype(np.float32), err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_a_picture_is_what_transformers_makes_of_it(transformers_references: Path, name: str) -> None:
    table = json.loads((transformers_references / name / "preprocessor_config.json").read_text())
    reading = read_image_processor(table, 3)
    assert not [source for source in reading.evidence.values() if source.startswith("assumed")]
    assert_equal(converted(reading.preprocessing), transformers_references / f"{name}.npz")


def test_every_known_processor_is_tested(transformers_references: Path) -> None:
    tables = [json.loads(f.read_text()) for f in transformers_references.glob("*/preprocessor_config.json")]
    # Blip's is ViT's with other numbers, Chinese CLIP's is CLIP's, MobileNet V1's is V2's, two are DETR's; ZoeDepth
    # resizes in floats, not in Pillow: test_dense_references.py;
    # Swin2SR's fills up: test_image_to_image_references.py.
    alike = {"Blip", "ChineseCLIP", "MobileNetV1", "ConditionalDetr", "DeformableDetr", "ZoeDepth", "Swin2SR"}
    assert {processor_class(table) for table in tables} == set(KNOWN) - alike


SMALL = Preprocessing(size=(24, 32))
KERAS = {
    "tf": Preprocessing(size=(24, 32), scaling="-1..1"),
    "torch": Preprocessing(size=(24, 32), scaling="0..1", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "caffe": Preprocessing(size=(24, 32), scaling="0..255", channel_order="bgr", mean=(103.939, 116.779, 123.68)),
    "teachable-machine": Preprocessing(size=(224, 224), resize="fit", resample="lanczos", scaling="-1..1"),
    "lobe": Preprocessing(size=(224, 224), crop="square", resample="bicubic", scaling="0..1"),
}


@pytest.mark.parametrize("name", KERAS)
def test_a_picture_is_what_keras_and_the_exporters_make_of_it(keras_references: Path, name: str) -> None:
    assert_equal(converted(KERAS[name]), keras_references / f"{name}.npz")


@pytest.mark.parametrize(
    ("scaling", "low", "high"), [("0..1", 0, 1), ("-1..1", -1, 1), ("0..255", 0, 255), ("0..16", 0, 16)]
)
def test_black_and_white_become_the_ends_of_the_range(scaling: str, low: float, high: float) -> None:
    values = pixel_values(scaling)
    assert (values[0], values[255], values.dtype) == (low, high, np.float32)
    assert (np.diff(values) > 0).all()
