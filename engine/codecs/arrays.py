"""NumPy's files (``.npy``, ``.npz``) to arrays without pickle, and any numbers to the dtype and shape a model declares.

The format is numpy.lib.format, versions 1.0 and 2.0. The header is read here rather than by ``numpy.load`` because that
allocates what the header claims before it has looked at how many bytes follow.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputTooLarge, Malformed, UnusableInput
from engine.model_spec import TensorSpec

Data = bytes | bytearray | memoryview
Array = NDArray[Any]

MAX_ENTRIES = 1_000
MAX_UNPACKED_BYTES = 512 << 20
_MAX_HEADER_CHARACTERS = 10_000
_KINDS = frozenset("biufUS")
TEXT = "str"


def read_npy(data: Data) -> Array:
    """The array in a ``.npy`` file: numbers, or text as an object array of ``str``.

    Raises Malformed for anything that is not one whole array of numbers or text; pickled objects are never read.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_HEADER_CHARACTERS)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(stream, max_header_size=_MAX_HEADER_CHARACTERS)
        else:
            raise Malformed(f"This .npy file has format version {version[0]}.{version[1]}; 1.0 and 2.0 can be read.")
    except Malformed:
        raise
    except Exception as error:  # the header is Python to NumPy: what tokenize, ast and dtype raise
        raise Malformed("This is not a readable .npy file: its header is damaged.") from error
    shape, fortran, dtype = header
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise Malformed(f"The array holds {dtype}, which is neither numbers nor text.")
    if any(n < 0 for n in shape) or len(shape) > 32:
        raise Malformed("This is not a readable .npy file: its shape is impossible.")
    rest = memoryview(data)[stream.tell() :]
    expected = prod(shape) * dtype.itemsize
    if len(rest) != expected:
        raise Malformed(f"The .npy file is cut short or too long: {expected} bytes expected, {len(rest)} found.")
    array = np.frombuffer(rest, dtype=dtype) if expected else np.zeros(prod(shape), dtype=dtype)
    try:
        array = array.reshape(shape, order="F" if fortran else "C")
    except (ValueError, OverflowError) as error:  # of no elements, but with sides beyond what an array may have
        raise Malformed("This is not a readable .npy file: its shape is impossible.") from error
    return _plain(array)


def read_npz(data: Data) -> dict[str, Array]:
    """The arrays of a ``.npz`` file by name. Raises Malformed, or InputTooLarge where it would unpack to too much."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_ENTRIES or sum(e.file_size for e in entries) > MAX_UNPACKED_BYTES:
                raise InputTooLarge(
                    f"The .npz file holds more than {MAX_ENTRIES} arrays or {MAX_UNPACKED_BYTES >> 20} MB."
                )
            arrays: dict[str, Array] = {}
            for entry in entries:
                if not entry.filename.endswith(".npy"):
                    raise Malformed(f"The .npz file holds {entry.filename!r}, which is not an array.")
                # ZipFile.read stops at the size the directory claims, which was checked above.
                arrays[entry.filename.removesuffix(".npy")] = read_npy(archive.read(entry))
            return arrays
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, ValueError, EOFError) as error:
        raise Malformed("This is not a readable .npz file: the archive is damaged.") from error


def _plain(array: Array) -> Array:
    """Native byte order; text as ``str`` objects. Raises Malformed for bytes that are not UTF-8, and for numbers that
    are no characters."""
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("The array holds bytes that are not UTF-8 text.") from error
    if array.dtype.kind == "U":
        _check_characters(array)
        return array.astype(object)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_characters(array: Array) -> None:
    """Raises Malformed for numbers beyond U+10FFFF, of which NumPy makes no ``str``, and for halves of characters."""
    if not array.nbytes:
        return
    codes = np.ascontiguousarray(array).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF))).any():
        raise Malformed("The array holds numbers that are no characters.")


def shape_text(shape: tuple[int, ...]) -> str:
    """``[any, 32, 32, 1]``: a shape as people read it, -1 being a free dimension."""
    return "[" + ", ".join("any" if n < 0 else str(n) for n in shape) + "]"


@lru_cache(64)
def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype for a declared one; ``str`` is ``object``."""
    if name == TEXT:
        return np.dtype(object)
    # NumPy knows no bfloat16: such numbers are held as float32.
    return np.dtype(np.float32) if name == "bfloat16" else np.dtype(name)


def nested_to_array(name: str, value: Any, declared: TensorSpec | None) -> Array:
    """Nested JSON lists as an array of the declared dtype (undeclared: float32 or int64, text as ``str``).

    Raises UnusableInput: ``invalid_shape`` for ragged lists, ``invalid_dtype`` for values of another kind.
    """
    if declared is not None and declared.dtype == TEXT:
        return _text_array(name, value)
    try:
        array = np.array(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise UnusableInput(
            f"Input {name!r} is ragged or nested too deeply: all lists of one level must be equally long.",
            code="invalid_shape",
        ) from error
    if array.size == 0 and array.dtype.kind == "f" and declared is not None:
        return array.astype(numpy_dtype(declared.dtype))
    if array.dtype.kind == "U" and declared is None:
        return _text_array(name, value)
    if array.dtype.kind not in "biuf":
        expected = declared.dtype if declared is not None else "numbers"
        raise UnusableInput(
            f"Input {name!r} takes {expected}, but some of its values are not numbers.", code="invalid_dtype"
        )
    if declared is None:
        return array.astype(
            np.float32 if array.dtype.kind == "f" else np.int64 if array.dtype.kind == "i" else array.dtype
        )
    return to_dtype(name, array, declared.dtype)


def _text_array(name: str, value: Any) -> Array:
    array = np.array(value, dtype=object)
    if not all(isinstance(text, str) for text in array.ravel()):
        raise UnusableInput(f"Input {name!r} takes text, but some of its values are not text.", code="invalid_dtype")
    return array


def to_dtype(name: str, array: Array, dtype: str) -> Array:
    """``array`` in ``dtype`` where no value changes its meaning: whole numbers become floats, floats become whole
    numbers only where they are whole, everything stays in range. Raises UnusableInput ``invalid_dtype``."""
    target = numpy_dtype(dtype)
    if array.dtype == target:
        return array
    kinds = array.dtype.kind, target.kind
    if "O" in kinds or (target.kind == "b" and kinds[0] != "b"):
        raise UnusableInput(f"Input {name!r} takes {dtype}, not {_kind_name(array.dtype)}.", code="invalid_dtype")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(target)
    if target.kind in "iu":
        fits = _in_range(array, target) and (array.dtype.kind != "f" or bool(np.array_equal(cast, array)))
        reason = "whole numbers in its range"
    else:
        fits = array.dtype.kind != "f" or _are_finite_alike(cast, array)
        reason = "numbers in its range"
    if not fits:
        raise UnusableInput(f"Input {name!r} takes {dtype}: {reason} only.", code="invalid_dtype")
    return cast


def _are_finite_alike(cast: Array, array: Array) -> bool:
    """Whether no finite number of ``array`` became infinite. No infinite one becomes finite."""
    finite = np.isfinite(cast)
    return bool(finite.all()) or bool(np.array_equal(finite, np.isfinite(array)))


def _in_range(array: Array, target: np.dtype[Any]) -> bool:
    if array.size == 0 or array.dtype.kind == "b":
        return True
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return False
    low, high = integer_range(target)
    return int(array.min()) >= low and int(array.max()) <= high


def integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The smallest and the largest number of an integer dtype."""
    info: Any = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _kind_name(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind == "O" else dtype.name


def fit_inputs(arrays: Mapping[str, Array], declared: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """``arrays`` in the declared order, dtype and shape; as they are where nothing is declared.

    Raises UnusableInput: ``unknown_input`` for missing or surplus names, ``invalid_dtype``, ``invalid_shape``.
    """
    if not declared:
        return dict(arrays)
    check_names(arrays, declared)
    fitted: dict[str, Array] = {}
    for tensor in declared:
        array = arrays[tensor.name]
        check_shape(tensor.name, array.shape, tensor.shape)
        fitted[tensor.name] = to_dtype(tensor.name, array, tensor.dtype)
    return fitted


def check_names(given: Mapping[str, Any], declared: tuple[TensorSpec, ...]) -> None:
    """Raises UnusableInput ``unknown_input`` unless ``given`` has exactly the declared names."""
    if len(given) == len(declared) and all(tensor.name in given for tensor in declared):
        return
    names = [tensor.name for tensor in declared]
    listed = ", ".join(repr(name) for name in names)
    for name in given:
        if name not in names:
            raise UnusableInput(f"The model has no input {name!r}; its inputs are {listed}.", code="unknown_input")
    for name in names:
        if name not in given:
            raise UnusableInput(f"Input {name!r} is missing; the model takes {listed}.", code="unknown_input")


def check_shape(name: str, shape: tuple[int, ...], declared: tuple[int, ...]) -> None:
    """Raises UnusableInput ``invalid_shape`` where ``shape`` does not fit ``declared`` (-1 fits every size)."""
    if len(shape) == len(declared) and all(want in (-1, have) for have, want in zip(shape, declared, strict=True)):
        return
    hint = ""
    if declared and declared[0] == -1 and len(shape) == len(declared) - 1:
        hint = " The first dimension counts the rows: add one."
    raise UnusableInput(
        f"Input {name!r} has shape {shape_text(shape)}, but the model takes {shape_text(declared)}.{hint}",
        code="invalid_shape",
    )
