"""What is asked: four models with fixed weights, 256 inputs each, and the answer each input must get.

``python -m benchmarks.models`` makes what is missing under ``.bench/models``. S is an MLP 8-32-3, M MobileNetV2 at half
width, L ResNet-50, both for 224x224 pixels and ten classes of one's own; Keras M is the MobileNetV2 that Keras ships.
The networks themselves are in ``networks.py``, so that a process that only asks has no PyTorch in memory.

Random weights make poor benchmarks where the answer hardly depends on the input: then a wrong answer looks right. So
the statistics of the normalisations are taken from the pictures, and any two references must differ by far more than
what counts as equal (``check_distinct``).
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / ".bench"
MODELS = BENCH / "models"
INPUTS = 256
CLASSES = 10
SIDE = 224
PICTURE = (500, 375)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOLERANCE = 1e-3
"""Largest difference to the reference: far above what another order of additions changes, far below another input's."""
BATCH_CAP = 4
"""The batch above which M and L get no faster on a CPU; what peers get as "our" cap."""
BOUNDARY = b"deskside-benchmark-boundary"


# -- inputs -----------------------------------------------------------------------------------------------------------
def shape(name: str) -> tuple[int, ...]:
    return (8,) if name == "s" else (3, SIDE, SIDE)


def picture(data: bytes) -> Image.Image:
    """As M and L take it, decoded and resized."""
    return Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def from_jpeg(data: bytes) -> np.ndarray[Any, Any]:
    """A picture as M and L take it: the steps every server here does with Pillow."""
    pixels = np.asarray(picture(data), np.float32) / 255
    return np.ascontiguousarray(((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1))


def draw_jpeg(number: int) -> bytes:
    """A picture with large and small structures, about as large as a photograph of its size."""
    random = np.random.default_rng(number)
    large = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize(PICTURE, Image.Resampling.BICUBIC)
    small = Image.fromarray(random.integers(0, 256, (PICTURE[1], PICTURE[0], 3), np.uint8))
    mixed = Image.blend(large, small.filter(ImageFilter.GaussianBlur(1.2)), 0.35)
    file = io.BytesIO()
    mixed.save(file, "JPEG", quality=88)
    return file.getvalue()


def jpegs() -> list[bytes]:
    return Bodies(MODELS / "pictures").all()


def arrays(name: str) -> np.ndarray[Any, Any]:
    """All inputs of a model as one array."""
    path = MODELS / ("rows.npy" if name == "s" else "pixels.npy")
    return np.load(path, mmap_mode="r")


class Bodies:
    """Many byte strings in one file, so that a generator maps them instead of holding them."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_suffix(".bin")
        self._ends = path.with_suffix(".ends.json")

    def exists(self) -> bool:
        return self._ends.exists()

    def write(self, bodies: Iterable[bytes]) -> None:
        ends = []
        with self.path.open("wb") as file:
            for body in bodies:
                file.write(body)
                ends.append(file.tell())
        self._ends.write_text(json.dumps(ends))

    def spans(self) -> list[tuple[int, int]]:
        ends = json.loads(self._ends.read_text())
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def all(self) -> list[bytes]:
        data = self.path.read_bytes()
        return [data[start:end] for start, end in self.spans()]


def _rows_json(row: np.ndarray[Any, Any]) -> bytes:
    return json.dumps({"inputs": {"x": [row.tolist()]}}).encode()


def _v2_json(row: np.ndarray[Any, Any]) -> bytes:
    tensor = {"name": "x", "shape": [1, *row.shape], "datatype": "FP32", "data": row.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def _v2_base64(data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    return json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [text]}]}).encode()


def v2_binary_head(shape: tuple[int, ...]) -> bytes:
    tensor = {"name": "x", "shape": [1, *shape], "datatype": "FP32"}
    size = 4 * int(np.prod(shape))
    tensor["parameters"] = {"binary_data_size": size}  # type: ignore[assignment]
    return json.dumps({"inputs": [tensor], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()


def multipart(data: bytes, file_name: str) -> bytes:
    head = (
        f'Content-Disposition: form-data; name="file"; filename="{file_name}"\r\nContent-Type: application/octet-stream'
    )
    return b"--" + BOUNDARY + b"\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n--" + BOUNDARY + b"--\r\n"


def bodies(name: str, wire: str) -> Bodies:
    """The requests' bodies of a model in one wire form, made where missing."""
    found = Bodies(MODELS / f"{'s' if name == 's' else 'picture'}-{wire}")
    if not found.exists():
        values = arrays(name)
        raw: Callable[[Any], bytes] = lambda value: np.ascontiguousarray(value, "<f4").tobytes()  # noqa: E731
        forms: dict[str, Callable[[], Iterable[bytes]]] = {
            "json": lambda: map(_rows_json, values),
            "rows-json": lambda: (json.dumps({"inputs": [row.tolist()]}).encode() for row in values),
            "v2-json": lambda: map(_v2_json, values),
            "v2-binary": lambda: (v2_binary_head(shape(name)) + raw(value) for value in values),
            "raw": lambda: map(raw, values),
            "raw-multipart": lambda: (multipart(raw(value), "x.f32") for value in values),
            "raw-base64": lambda: (_v2_base64(raw(value)) for value in values),
            "jpeg": jpegs,
            "jpeg-multipart": lambda: (multipart(data, "x.jpg") for data in jpegs()),
            "jpeg-base64": lambda: map(_v2_base64, jpegs()),
        }
        found.write(forms[wire]())
    return found


def references(name: str) -> list[list[float]]:
    """The scores of every input, in class order: logits, of Keras M probabilities."""
    return json.loads((MODELS / name / "references.json").read_text())  # type: ignore[no-any-return]


def softmax(scores: list[float]) -> list[float]:
    shifted = np.exp(np.asarray(scores) - max(scores))
    return (shifted / shifted.sum()).tolist()  # type: ignore[no-any-return]


def check_distinct(values: list[list[float]]) -> None:
    """Raise where an answer could pass for another input's."""
    table = np.asarray(values)
    for number, row in enumerate(table[:-1]):
        nearest = np.abs(table[number + 1 :] - row).max(axis=1).min()
        if nearest < 3 * TOLERANCE:
            raise ValueError(f"the answer of input {number} is within {nearest:.2g} of another one's")


# -- making -----------------------------------------------------------------------------------------------------------
SIDECAR = """task = "{task}"
[[inputs]]
name = "x"
dtype = "float32"
shape = {shape}
[[outputs]]
name = "y"
dtype = "float32"
shape = [-1, {classes}]
"""
PICTURE_STEPS = f"""[preprocessing]
size = [{SIDE}, {SIDE}]
resize = "stretch"
resample = "bilinear"
crop = "none"
channel_order = "rgb"
layout = "nchw"
scaling = "0..1"
mean = {list(MEAN)}
std = {list(STD)}
[postprocessing]
activation = "softmax"
"""


def make_inputs() -> None:
    MODELS.mkdir(parents=True, exist_ok=True)
    if not (MODELS / "rows.npy").exists():
        rows = np.random.default_rng(1).normal(size=(INPUTS, 8)).astype(np.float32)
        np.save(MODELS / "rows.npy", rows)
    pictures = Bodies(MODELS / "pictures")
    if not pictures.exists():
        pictures.write(map(draw_jpeg, range(INPUTS)))
    if not (MODELS / "pixels.npy").exists():
        np.save(MODELS / "pixels.npy", np.stack([from_jpeg(data) for data in jpegs()]))


MAKE_KERAS = """
import json, sys
import numpy as np, keras
folder, opened, pixels = sys.argv[1:]
keras.utils.set_random_seed(7)
net = keras.applications.MobileNetV2(input_shape=(224, 224, 3), alpha=0.5, weights=None, classes=10)
values = np.load(pixels, mmap_mode="r").transpose(0, 2, 3, 1)
for layer in net.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = 0.5
for _ in range(8):
    net(values[:16], training=True)
# Scores that differ from input to input: log-probabilities of about one around nought.
logs = np.log(np.asarray(net(values[:32], training=False)))
logs -= logs.mean(axis=1, keepdims=True)
kernel, bias = net.layers[-1].get_weights()
scale = logs.std(axis=0).mean()
net.layers[-1].set_weights([kernel / scale, bias - logs.mean(axis=0) / scale])
net.save(opened + "/model.keras")
scores = [row for n in range(0, len(values), 16) for row in np.asarray(net(values[n:n + 16], training=False)).tolist()]
json.dump(scores, open(folder + "/unchecked.json", "w"))
"""


def make_keras() -> None:
    """Keras M. In a process of its own: TensorFlow and PyTorch share no process here."""
    folder = MODELS / "keras"
    if (folder / "references.json").exists():
        return
    opened = MODELS / "open" / "bench-keras"
    for path in (folder, opened):
        path.mkdir(parents=True, exist_ok=True)
    arguments = [str(folder), str(opened), str(MODELS / "pixels.npy")]
    subprocess.run([sys.executable, "-c", MAKE_KERAS, *arguments], check=True)
    steps = PICTURE_STEPS.replace('"nchw"', '"nhwc"').replace('"softmax"', '"none"')
    labels = json.dumps([f"LABEL_{number}" for number in range(CLASSES)])
    text = f'task = "image-classification"\nlabels = {labels}\n{steps}'
    (opened / "deskside.toml").write_text(text)
    unchecked = folder / "unchecked.json"
    check_distinct(json.loads(unchecked.read_text()))
    unchecked.rename(folder / "references.json")


def opened(name: str) -> Path:
    """What Deskside opens."""
    return MODELS / "open" / f"bench-{name}"


def make(names: Iterable[str]) -> None:
    make_inputs()
    for name in names:
        if name == "keras":
            make_keras()
        elif not (MODELS / name / "references.json").exists():
            subprocess.run([sys.executable, "-W", "ignore", "-m", "benchmarks.networks", name], check=True, cwd=ROOT)


if __name__ == "__main__":
    make(sys.argv[1:] or ["s", "m", "l", "keras"])
