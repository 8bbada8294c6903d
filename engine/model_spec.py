"""ModelSpec: what is known of a model, and for every field where it was read.

The keys are those of the TOML sidecar and of ``deskside inspect`` (``../shared/contract.md``, "Files").
Plain data: no parsing here, that is done by :mod:`engine.formats` inside the inspector.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

ASSUMED = "assumed"
"""Evidence of a field that nothing stated."""
SIDECAR = "sidecar"
TENSOR_SIGNATURE = "tensor signature"


_DECODES_SMALLER = frozenset(
    {"image-classification", "object-detection", "image-segmentation", "keypoint-detection", "depth-estimation"}
)
FAKE_RUNTIME = "fake"
"""The runtime with faults on demand, for tests: named in code only, refused when a file names it."""


class TrustClass(StrEnum):
    """How much a model file can do to the machine that opens it (design.md §6)."""

    DATA = "data"
    PROGRAM = "program"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. ``shape`` has -1 for a free dimension; ``dtype`` is NumPy's name (``float32``, ``str``)."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TensorSpec:
        return cls(str(value["name"]), str(value["dtype"]), tuple(int(n) for n in value["shape"]))


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the model's input tensor.

    ``size`` is (height, width) in pixels, as the model takes them. ``resize`` is ``stretch`` | ``shortest`` |
    ``longest`` | ``letterbox`` | ``edges`` | ``edges-of-16`` | ``edges-up`` | ``least-change`` | ``multiples`` |
    ``mirrored`` | ``fit`` | ``none``, done with Pillow's filter ``resample`` (``bilinear``, ``bicubic``, ``lanczos``,
    ``box``, ``hamming``, ``nearest``) or as OpenCV's ``inter_linear``, to ``resize_size`` where that is not ``size``,
    sides being whole multiples of ``multiple``; ``crop`` is ``none`` | ``center`` (to ``size``, after resizing) |
    ``square`` (before it); ``channel_order`` is ``rgb`` | ``bgr`` | ``grayscale``; ``layout`` is ``nhwc`` | ``nchw`` |
    ``nhw``; ``scaling`` names the value range fed to the model (``0..255``, ``0..1``, ``-1..1``, ``0..16``); ``mean``
    and ``std`` are per channel and apply after scaling. ``jpeg_scaled_decode``: a JPEG that is to become half as large
    or smaller is decoded at 1/2, 1/4 or 1/8 of its size at once; faster, and its pixels differ slightly.
    """

    size: tuple[int, int] | None = None
    resize: str = "stretch"
    resize_size: tuple[int, int] | None = None
    multiple: int = 1
    resample: str = "bilinear"
    crop: str = "none"
    channel_order: str = "rgb"
    layout: str = "nhwc"
    scaling: str = "0..1"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    jpeg_scaled_decode: bool = False

    @property
    def smooths(self) -> bool:
        """Whether a picture is made smaller by a filter that looks at every pixel under a new one. The others take a
        few of them, and what they took of a picture decoded smaller would be another picture."""
        return self.resample not in ("nearest", "inter_linear") and self.resize not in ("mirrored", "none")


@dataclass(frozen=True, slots=True)
class Postprocessing:
    """How raw output becomes an answer. ``activation`` is ``none`` | ``softmax`` | ``sigmoid`` (applied by us).

    ``head`` is a detector's, one of :data:`engine.detection_heads.HEADS` (or of :mod:`engine.segmentation_heads`,
    :mod:`engine.keypoint_heads`), "" where its outputs tell. ``iou`` is the overlap above which two boxes of a class
    are one. ``scaling`` is the range of values of a picture that the model makes, "" for that of its input.
    """

    activation: str = "none"
    threshold: float | None = None
    iou: float | None = None
    head: str = ""
    scaling: str = ""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: its files, how to run it, and ``evidence``: field name (dotted for sections) -> where it was read.

    ``path`` is the resolved folder or file the person opened; ``model_file`` the file or folder the runtime opens;
    ``files`` every file the load may read (what consent is bound to). ``columns`` are a table's columns in the order
    the model takes them; ``labels`` are in class order.
    """

    path: Path
    model_file: Path
    format: str
    runtime: str
    task: str
    trust_class: TrustClass
    id: str = ""
    version: str = "1"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    signatures: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()
    """Names of key points, in the model's order."""
    skeleton: tuple[tuple[str, str], ...] = ()
    """Which key points are connected, by their names."""
    columns: tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Of a table's columns that hold words: the words, in the order of the numbers that stand for them."""
    one_hot: tuple[str, ...] = ()
    """Those of them that are fed as a 1 among zeros."""
    missing: dict[str, float | str] = field(default_factory=dict)
    """What stands for a missing value by column, ``*`` for every other: a number, ``nan``, or a text."""
    architecture: str = ""
    """The class that weights belong to: transformers' (``ViTForImageClassification``), or ``file.py:Class``."""
    architecture_kwargs: dict[str, Any] = field(default_factory=dict)
    precision: str = ""
    """``float32``, ``float16`` or ``bfloat16`` to compute in; "" is what the model itself has (PyTorch: float32)."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    steps: tuple[dict[str, Any], ...] = ()
    """Processing that a package states for its tensors (``engine/formats/bioimage_steps.py``)."""
    files: tuple[Path, ...] = ()
    evidence: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """Options of a runtime given in code (the fake runtime's faults). Never read from a file."""

    @property
    def may_decode_smaller(self) -> bool:
        """Whether ``preprocessing.jpeg_scaled_decode`` has a part in its answers."""
        return self.task in _DECODES_SMALLER and self.preprocessing.smooths

    def with_id(self, model_id: str) -> ModelSpec:
        return replace(self, id=model_id)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form, as sent between the app and its children."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in ("inputs", "outputs"):
                out[f.name] = [t.to_json() for t in value]
            elif f.name in ("preprocessing", "postprocessing"):
                out[f.name] = {
                    g.name: list(v) if isinstance(v := getattr(value, g.name), tuple) else v for g in fields(value)
                }
            elif f.name == "files":
                out[f.name] = [str(p) for p in value]
            elif isinstance(value, Path):
                out[f.name] = str(value)
            elif isinstance(value, tuple):
                out[f.name] = list(value)
            elif isinstance(value, dict):
                out[f.name] = dict(value)
            else:
                out[f.name] = value
        return out

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ModelSpec:
        """Inverse of :meth:`to_json`. Raises KeyError, TypeError or ValueError on anything else."""
        pre, post = dict(value["preprocessing"]), dict(value["postprocessing"])
        size, resize_size = pre["size"], pre["resize_size"]
        return cls(
            path=Path(value["path"]),
            model_file=Path(value["model_file"]),
            format=str(value["format"]),
            runtime=str(value["runtime"]),
            task=str(value["task"]),
            trust_class=TrustClass(value["trust_class"]),
            id=str(value["id"]),
            version=str(value["version"]),
            inputs=tuple(TensorSpec.from_json(t) for t in value["inputs"]),
            outputs=tuple(TensorSpec.from_json(t) for t in value["outputs"]),
            signatures=tuple(str(s) for s in value["signatures"]),
            labels=tuple(str(s) for s in value["labels"]),
            keypoints=tuple(str(s) for s in value["keypoints"]),
            skeleton=tuple((str(a), str(b)) for a, b in value["skeleton"]),
            columns=tuple(str(s) for s in value["columns"]),
            categories={str(k): tuple(str(word) for word in v) for k, v in value["categories"].items()},
            one_hot=tuple(str(s) for s in value["one_hot"]),
            missing={str(k): v if isinstance(v, str) else float(v) for k, v in value["missing"].items()},
            architecture=str(value["architecture"]),
            precision=str(value["precision"]),
            architecture_kwargs=dict(value["architecture_kwargs"]),
            preprocessing=Preprocessing(
                size=None if size is None else (int(size[0]), int(size[1])),
                resize=str(pre["resize"]),
                resize_size=None if resize_size is None else (int(resize_size[0]), int(resize_size[1])),
                multiple=int(pre["multiple"]),
                resample=str(pre["resample"]),
                crop=str(pre["crop"]),
                channel_order=str(pre["channel_order"]),
                layout=str(pre["layout"]),
                scaling=str(pre["scaling"]),
                mean=tuple(float(x) for x in pre["mean"]),
                std=tuple(float(x) for x in pre["std"]),
                jpeg_scaled_decode=bool(pre["jpeg_scaled_decode"]),
            ),
            postprocessing=Postprocessing(
                activation=str(post["activation"]),
                threshold=post["threshold"],
                iou=post["iou"],
                head=str(post["head"]),
                scaling=str(post["scaling"]),
            ),
            steps=tuple(dict(step) for step in value["steps"]),
            files=tuple(Path(p) for p in value["files"]),
            evidence={str(k): str(v) for k, v in value["evidence"].items()},
            options=dict(value["options"]),
        )

    def evidence_rows(self) -> list[tuple[str, Any, str]]:
        """(field, value, source) for everything a person may ask about, in the order of the sidecar's keys."""
        rows: list[tuple[str, Any, str]] = []
        for name in ("format", "runtime", "task", "version"):
            rows.append((name, getattr(self, name), self.evidence.get(name, ASSUMED)))
        for name in ("inputs", "outputs"):
            rows.append((name, [t.to_json() for t in getattr(self, name)], self.evidence.get(name, ASSUMED)))
        for name in ("signatures", "labels", "columns"):
            rows.append((name, list(getattr(self, name)), self.evidence.get(name, ASSUMED)))
        for name in ("keypoints", "skeleton", "one_hot"):
            if getattr(self, name):
                rows.append((name, list(getattr(self, name)), self.evidence.get(name, ASSUMED)))
        for name in ("categories", "missing"):
            if value := getattr(self, name):
                plain = {key: list(v) if isinstance(v, tuple) else v for key, v in value.items()}
                rows.append((name, plain, self.evidence.get(name, ASSUMED)))
        if self.architecture:
            rows.append(("architecture", self.architecture, self.evidence.get("architecture", ASSUMED)))
        if self.precision:
            rows.append(("precision", self.precision, self.evidence.get("precision", ASSUMED)))
        if self.steps:
            rows.append(("steps", list(self.steps), self.evidence.get("steps", ASSUMED)))
        for section in ("preprocessing", "postprocessing"):
            value = getattr(self, section)
            for f in fields(value):
                v = getattr(value, f.name)
                key = f"{section}.{f.name}"
                rows.append((key, list(v) if isinstance(v, tuple) else v, self.evidence.get(key, ASSUMED)))
        return rows


def fake_spec(path: Path, model_id: str = "", **options: Any) -> ModelSpec:
    """A model without a file, run by the fake runtime; ``options`` are its faults (``worker/runtimes/fake.py``)."""
    return ModelSpec(
        path=path,
        model_file=path,
        format=FAKE_RUNTIME,
        runtime=FAKE_RUNTIME,
        task="raw-tensors",
        trust_class=TrustClass.DATA,
        id=model_id,
        inputs=(TensorSpec("x", "float32", (-1, 4)),),
        outputs=(TensorSpec("y", "float32", (-1, 4)), TensorSpec("checksum", "float64", (-1,))),
        options=options,
    )
