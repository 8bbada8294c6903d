"""The few messages of TensorFlow's SavedModel that describe its signatures and operations, built without TensorFlow.

Field numbers from tensorflow/core/protobuf/saved_model.proto (SavedModel), meta_graph.proto (MetaGraphDef,
MetaInfoDef, SignatureDef, TensorInfo, CollectionDef, AssetFileDef), saver.proto (SaverDef), saved_object_graph.proto
(SavedObjectGraph), tensorflow/core/framework/graph.proto (GraphDef), node_def.proto (NodeDef), attr_value.proto
(AttrValue, NameAttrList), function.proto (FunctionDefLibrary, FunctionDef), op_def.proto (OpDef), tensor_shape.proto
(TensorShapeProto) and types.proto (DataType). Everything else in the file, its constants among it, stays unparsed.
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
    "Function": [("name", 1, _FIELD.TYPE_STRING, False, "")],
    "AttributeList": [("func", 9, _FIELD.TYPE_MESSAGE, True, "Function")],
    "Attribute": [
        ("list", 1, _FIELD.TYPE_MESSAGE, False, "AttributeList"),
        ("s", 2, _FIELD.TYPE_BYTES, False, ""),
        ("placeholder", 9, _FIELD.TYPE_STRING, False, ""),
        ("func", 10, _FIELD.TYPE_MESSAGE, False, "Function"),
    ],
    "AttributeEntry": [
        ("key", 1, _FIELD.TYPE_STRING, False, ""),
        ("value", 2, _FIELD.TYPE_MESSAGE, False, "Attribute"),
    ],
    "Node": [
        ("name", 1, _FIELD.TYPE_STRING, False, ""),
        ("op", 2, _FIELD.TYPE_STRING, False, ""),
        ("input", 3, _FIELD.TYPE_STRING, True, ""),
        ("attr", 5, _FIELD.TYPE_MESSAGE, True, "AttributeEntry"),
    ],
    "Argument": [("name", 1, _FIELD.TYPE_STRING, False, "")],
    "Operation": [
        ("name", 1, _FIELD.TYPE_STRING, False, ""),
        ("input_arg", 2, _FIELD.TYPE_MESSAGE, True, "Argument"),
    ],
    "FunctionDef": [
        ("signature", 1, _FIELD.TYPE_MESSAGE, False, "Operation"),
        ("node_def", 3, _FIELD.TYPE_MESSAGE, True, "Node"),
    ],
    "Library": [("function", 1, _FIELD.TYPE_MESSAGE, True, "FunctionDef")],
    "Graph": [
        ("node", 1, _FIELD.TYPE_MESSAGE, True, "Node"),
        ("library", 2, _FIELD.TYPE_MESSAGE, False, "Library"),
    ],
    "Saver": [
        ("filename_tensor_name", 1, _FIELD.TYPE_STRING, False, ""),
        ("save_tensor_name", 2, _FIELD.TYPE_STRING, False, ""),
        ("restore_op_name", 3, _FIELD.TYPE_STRING, False, ""),
    ],
    "NodeList": [("value", 1, _FIELD.TYPE_STRING, True, "")],
    "Any": [("value", 2, _FIELD.TYPE_BYTES, False, "")],
    "AnyList": [("value", 1, _FIELD.TYPE_MESSAGE, True, "Any")],
    "Collection": [
        ("node_list", 1, _FIELD.TYPE_MESSAGE, False, "NodeList"),
        ("any_list", 5, _FIELD.TYPE_MESSAGE, False, "AnyList"),
    ],
    "CollectionEntry": [
        ("key", 1, _FIELD.TYPE_STRING, False, ""),
        ("value", 2, _FIELD.TYPE_MESSAGE, False, "Collection"),
    ],
    "AssetFile": [
        ("tensor_info", 1, _FIELD.TYPE_MESSAGE, False, "TensorInfo"),
        ("filename", 2, _FIELD.TYPE_STRING, False, ""),
    ],
    "Asset": [("asset_file_def_index", 1, _FIELD.TYPE_INT32, False, "")],
    "Other": [],
    "Object": [
        ("asset", 5, _FIELD.TYPE_MESSAGE, False, "Asset"),
        # The other kinds of the oneof: a later one would replace the asset.
        ("user_object", 4, _FIELD.TYPE_MESSAGE, False, "Other"),
        ("function", 6, _FIELD.TYPE_MESSAGE, False, "Other"),
        ("variable", 7, _FIELD.TYPE_MESSAGE, False, "Other"),
        ("bare_concrete_function", 8, _FIELD.TYPE_MESSAGE, False, "Other"),
        ("constant", 9, _FIELD.TYPE_MESSAGE, False, "Other"),
        ("resource", 10, _FIELD.TYPE_MESSAGE, False, "Other"),
        ("captured_tensor", 12, _FIELD.TYPE_MESSAGE, False, "Other"),
    ],
    "ConcreteFunction": [("bound_inputs", 2, _FIELD.TYPE_INT32, True, "")],
    "ConcreteFunctionEntry": [
        ("key", 1, _FIELD.TYPE_STRING, False, ""),
        ("value", 2, _FIELD.TYPE_MESSAGE, False, "ConcreteFunction"),
    ],
    "ObjectGraph": [
        ("nodes", 1, _FIELD.TYPE_MESSAGE, True, "Object"),
        ("concrete_functions", 2, _FIELD.TYPE_MESSAGE, True, "ConcreteFunctionEntry"),
    ],
    "MetaGraph": [
        ("meta_info_def", 1, _FIELD.TYPE_MESSAGE, False, "MetaInfo"),
        ("graph_def", 2, _FIELD.TYPE_MESSAGE, False, "Graph"),
        ("saver_def", 3, _FIELD.TYPE_MESSAGE, False, "Saver"),
        ("collection_def", 4, _FIELD.TYPE_MESSAGE, True, "CollectionEntry"),
        ("signature_def", 5, _FIELD.TYPE_MESSAGE, True, "SignatureEntry"),
        ("asset_file_def", 6, _FIELD.TYPE_MESSAGE, True, "AssetFile"),
        ("object_graph_def", 7, _FIELD.TYPE_MESSAGE, False, "ObjectGraph"),
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
def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> Any:
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
    return pool


def parse_saved_model(data: bytes) -> Any:
    """The ``SavedModel`` message in ``data``. Raises ValueError where it is none."""
    return _parse("SavedModel", data)


def parse_asset_file(data: bytes) -> Any:
    """The ``AssetFile`` message in ``data``, which TensorFlow 1 packs into a collection. Raises ValueError."""
    return _parse("AssetFile", data)


def _parse(name: str, data: bytes) -> Any:
    message = _message_class(name)()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    return message
