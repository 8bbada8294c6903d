"""The few messages of TensorFlow's SavedModel that describe its signatures, built without TensorFlow.

Field numbers from tensorflow/core/protobuf/saved_model.proto (SavedModel), meta_graph.proto (MetaGraphDef,
MetaInfoDef, SignatureDef, TensorInfo), tensorflow/core/framework/tensor_shape.proto (TensorShapeProto) and
types.proto (DataType). Everything else in the file stays unparsed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

# protobuf ships no type information.
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

_PACKAGE = "deskside.tensorflow"
_FIELD = descriptor_pb2.FieldDescriptorProto

_Field = tuple[str, int, int, bool, str]
"""Name, number, type, repeated, and the message it holds (or an empty string)."""

_MESSAGES: dict[str, list[_Field]] = {
    "Dim": [("size", 1, _FIELD.TYPE_INT64, False, "")],
    "TensorShape": [
        ("dim", 2, _FIELD.TYPE_MESSAGE, True, "Dim"),
        ("unknown_rank", 3, _FIELD.TYPE_BOOL, False, ""),
    ],
    "TensorInfo": [
        ("name", 1, _FIELD.TYPE_STRING, False, ""),
        ("dtype", 2, _FIELD.TYPE_INT32, False, ""),
        ("tensor_shape", 3, _FIELD.TYPE_MESSAGE, False, "TensorShape"),
    ],
    "TensorEntry": [
        ("key", 1, _FIELD.TYPE_STRING, False, ""),
        ("value", 2, _FIELD.TYPE_MESSAGE, False, "TensorInfo"),
    ],
    "Signature": [
        ("inputs", 1, _FIELD.TYPE_MESSAGE, True, "TensorEntry"),
        ("outputs", 2, _FIELD.TYPE_MESSAGE, True, "TensorEntry"),
        ("method_name", 3, _FIELD.TYPE_STRING, False, ""),
    ],
    "SignatureEntry": [
        ("key", 1, _FIELD.TYPE_STRING, False, ""),
        ("value", 2, _FIELD.TYPE_MESSAGE, False, "Signature"),
    ],
    "MetaInfo": [
        ("tags", 4, _FIELD.TYPE_STRING, True, ""),
        ("tensorflow_version", 5, _FIELD.TYPE_STRING, False, ""),
    ],
    "MetaGraph": [
        ("meta_info_def", 1, _FIELD.TYPE_MESSAGE, False, "MetaInfo"),
        ("signature_def", 5, _FIELD.TYPE_MESSAGE, True, "SignatureEntry"),
    ],
    "SavedModel": [
        ("saved_model_schema_version", 1, _FIELD.TYPE_INT64, False, ""),
        ("meta_graphs", 2, _FIELD.TYPE_MESSAGE, True, "MetaGraph"),
    ],
}
"""A map field is on the wire what a repeated message of key and value is (protobuf encoding, "Maps")."""

DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "str", 8: "complex64", 9: "int64",
    10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
"""DataType -> NumPy's name. Quantised, resource and variant tensors cannot be fed from outside."""


@cache
def _saved_model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="deskside/saved_model.proto", package=_PACKAGE, syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind, repeated, holds in fields:
            field = message.field.add(name=name, number=number, type=kind)
            field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if holds:
                field.type_name = f".{_PACKAGE}.{holds}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.SavedModel"))


def parse_saved_model(data: bytes) -> Any:
    """The ``SavedModel`` message in ``data``. Raises ValueError where it is none."""
    message = _saved_model_class()()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    return message
