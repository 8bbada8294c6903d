"""The metadata that a ``.tflite`` file may carry: how a picture was normalised, and the files of labels packed with it.

A flatbuffer of its own in the model's buffer ``TFLITE_METADATA`` (metadata_schema.fbs, identifier ``M001``); the files
it names lie in a zip appended to the model (the TensorFlow Lite metadata writer, ``zipfile`` in mode ``a``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flatbuffers import number_types  # type: ignore[import-untyped]  # ships no type information

from engine.formats.container import ZipContainer
from engine.formats.flatbuffer import Bytes, Table, reading

NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
# Fields of metadata_schema.fbs.
MODEL_SUBGRAPHS = 3
SUBGRAPH_INPUTS, SUBGRAPH_OUTPUTS = 2, 3
TENSOR_CONTENT, TENSOR_UNITS, TENSOR_FILES = 3, 4, 6
CONTENT_KIND, CONTENT = 0, 1
IMAGE_COLORS = 0
UNIT_KIND, UNIT_OPTIONS = 0, 1
NORMALISATION_MEAN, NORMALISATION_STD = 0, 1
FILE_NAME, FILE_KIND = 0, 2
# Its enumerations and unions.
IMAGE_PROPERTIES = 2
NORMALISATION_OPTIONS = 1
AXIS_LABELS, VALUE_LABELS = 2, 3
COLORS = {1: "rgb", 2: "grayscale"}
_MOST = 1000
_MAX_LABELS = 4 << 20


@dataclass(frozen=True, slots=True)
class Metadata:
    """``mean`` and ``std`` (per channel, or one number) bring pixels of 0..255 to what the model takes. ``colors`` is
    ``rgb``, ``grayscale`` or empty. ``labels_file`` is a name in the appended zip, or empty."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    colors: str = ""
    labels_file: str = ""


def parse_metadata(data: Bytes) -> Metadata:
    """What is said of the first input and of the first output that has labels. Raises ValueError."""
    if bytes(data[4:8]) != IDENTIFIER:
        raise ValueError("the metadata is of an unknown kind")
    with reading():
        subgraphs = Table.root(data).tables(MODEL_SUBGRAPHS, _MOST)
        if not subgraphs:
            return Metadata()
        inputs = subgraphs[0].tables(SUBGRAPH_INPUTS, _MOST)
        outputs = subgraphs[0].tables(SUBGRAPH_OUTPUTS, _MOST)
        mean, std = _normalisation(inputs[0]) if inputs else ((), ())
        colors = _colors(inputs[0]) if inputs else ""
        labels = next((name for output in outputs if (name := _labels_file(output))), "")
    return Metadata(mean, std, colors, labels)


def _normalisation(tensor: Table) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in tensor.tables(TENSOR_UNITS, _MOST):
        options = unit.table(UNIT_OPTIONS)
        if unit.number(UNIT_KIND, number_types.Uint8Flags) == NORMALISATION_OPTIONS and options is not None:
            mean = options.numbers(NORMALISATION_MEAN, number_types.Float32Flags, 4)
            std = options.numbers(NORMALISATION_STD, number_types.Float32Flags, 4)
            if mean and std and 0.0 not in std:
                return tuple(map(float, mean)), tuple(map(float, std))
    return (), ()


def _colors(tensor: Table) -> str:
    content = tensor.table(TENSOR_CONTENT)
    if content is None or content.number(CONTENT_KIND, number_types.Uint8Flags) != IMAGE_PROPERTIES:
        return ""
    image = content.table(CONTENT)
    return "" if image is None else COLORS.get(image.number(IMAGE_COLORS, number_types.Int8Flags), "")


def _labels_file(tensor: Table) -> str:
    for file in tensor.tables(TENSOR_FILES, _MOST):
        if file.number(FILE_KIND, number_types.Int8Flags) in (AXIS_LABELS, VALUE_LABELS):
            return file.text(FILE_NAME, 1000)
    return ""


def read_labels(path: Path, name: str, expected: str) -> tuple[str, ...]:
    """The file ``name`` of the zip appended to ``path``, one class name a line. Raises ModelCorrupt."""
    with ZipContainer(path, expected, appended=True) as container:
        text = container.read(name, _MAX_LABELS).decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.strip().splitlines()]
    return tuple(lines)
