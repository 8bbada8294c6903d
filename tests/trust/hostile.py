"""The pieces hostile model files are made of, without a framework. Nothing here runs what it writes."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def pickle_of(module: str, name: str, argument: str, protocol: int) -> bytes:
    """A pickle that calls ``module.name(argument)``, in the words of each protocol (pickletools' opcodes)."""
    if protocol == 0:
        return f"c{module}\n{name}\n(V{argument}\ntR.".encode()
    text = b"X" + struct.pack("<I", len(argument)) + argument.encode()
    if protocol < 4:
        return b"\x80" + bytes([protocol]) + f"c{module}\n{name}\n".encode() + text + b"\x85R."
    parts = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() + b"\x94" for word in (module, name))
    return b"\x80" + bytes([protocol]) + parts + b"\x93" + text + b"\x85R."


def runs(canary: Path, protocol: int = 2) -> bytes:
    """A pickle that writes the canary through ``os.system`` when it is opened."""
    return pickle_of("posix", "system", f"touch '{canary}'", protocol)


def zipped(path: Path, *members: tuple[str, bytes], packed: bool = False) -> Path:
    """A zip; members of one name are written twice."""
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as out:
        for name, data in members:
            out.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return path


def torch_zip(path: Path, pickled: bytes, *more: tuple[str, bytes]) -> Path:
    """As ``torch.save`` lays it out."""
    root = path.stem
    return zipped(path, (f"{root}/data.pkl", pickled), (f"{root}/version", b"3\n"), *more)


def torchscript(path: Path, *more: tuple[str, bytes]) -> Path:
    """As ``torch.jit.save`` lays it out."""
    root = path.stem
    code = (f"{root}/code/__torch__.py", b"class M(Module):\n  def forward(self, x): return x\n")
    empty = b"\x80\x02)."
    return zipped(path, (f"{root}/data.pkl", empty), (f"{root}/constants.pkl", empty), code, *more)


def safetensors(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


# -- Keras -------------------------------------------------------------------------------------------------------------
def layer(module: str | None, class_name: str, inner: Any = None, **more: Any) -> dict[str, Any]:
    inner = {"name": "planted"} if inner is None else inner
    return {"module": module, "class_name": class_name, "config": inner, "registered_name": None} | more


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    start = layer("keras.layers", "InputLayer", {"name": "x", "batch_shape": [None, 4], "dtype": "float32"})
    return layer("keras", "Sequential", {"name": "model", "layers": [start, *layers]})


def keras_file(path: Path, config: Any, weights: bytes | None = None) -> Path:
    """A ``.keras`` file around ``config`` (an object, or bytes as they are)."""
    return zipped(
        path,
        ("metadata.json", json.dumps({"keras_version": "3.15.1"}).encode()),
        ("config.json", config if isinstance(config, bytes) else json.dumps(config).encode()),
        ("model.weights.h5", hdf5() if weights is None else weights),
    )


def hdf5(declared: int | None = None, **groups: Any) -> bytes:
    """An HDF5 file; ``declared``: the elements of a dataset that holds none of them."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("layers")["0"] = np.zeros(4, np.float32)
        if declared is not None:
            file.create_dataset("huge", shape=(declared,), dtype="f4", chunks=(1024,))
        for name, value in groups.items():
            file[name] = value
    return buffer.getvalue()


def whole_h5(path: Path, config: Any = None, **groups: Any) -> Path:
    """A model in HDF5 as ``model.save("x.h5")`` lays it out."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3.15.1"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(config or sequential())
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = np.array([b"x"])
        for name, value in groups.items():
            weights[name] = value
    return path


# -- protobuf ----------------------------------------------------------------------------------------------------------
def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of protobuf's wire format."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def onnx_tensor(name: str, dims: list[int]) -> bytes:
    """A ValueInfoProto of float32 (onnx.proto)."""
    shape = b"".join(field(1, field(1, n)) for n in dims)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def onnx(
    path: Path, *, op: str = "Relu", domain: str = "", weights: bytes = b"", dims: list[int] | None = None
) -> Path:
    """One operation from ``x`` to ``y`` (ModelProto, GraphProto, NodeProto of onnx.proto)."""
    node = field(1, "x") + field(2, "y") + field(4, op) + (field(7, domain) if domain else b"")
    given = onnx_tensor("x", dims or [1, 4])
    graph = field(1, node) + field(2, "g") + weights + field(11, given) + field(12, onnx_tensor("y", [1, 4]))
    opset = field(8, field(1, "") + field(2, 17)) + (field(8, field(1, domain) + field(2, 1)) if domain else b"")
    path.write_bytes(field(1, 8) + field(7, graph) + opset)
    return path


def external_weights(location: str) -> bytes:
    """An initializer of four floats that lie in another file (TensorProto.external_data)."""
    entry = field(1, "location") + field(2, location)
    return field(5, field(1, 4) + field(2, 1) + field(8, "w") + field(13, entry) + field(14, 1))
