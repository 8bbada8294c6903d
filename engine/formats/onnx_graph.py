"""What an ONNX file says of itself, read from its protobuf wire format: the weights in it are passed over.

Field numbers: onnx/onnx.proto of ONNX 1.23 (ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto,
ValueInfoProto, TypeProto, FunctionProto); a test holds them against the library's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from engine.formats.protobuf_wire import LENGTH, Field, Wire, WireError, signed
from engine.model_spec import TensorSpec

FIELDS: dict[str, dict[str, int]] = {
    "ModelProto": {"ir_version": 1, "producer_name": 2, "graph": 7, "opset_import": 8, "metadata_props": 14,
                   "functions": 25},
    "GraphProto": {"node": 1, "initializer": 5, "input": 11, "output": 12, "sparse_initializer": 15},
    "NodeProto": {"input": 1, "output": 2, "op_type": 4, "attribute": 5, "domain": 7},
    "AttributeProto": {"t": 5, "g": 6, "tensors": 10, "graphs": 11, "sparse_tensor": 22, "sparse_tensors": 23},
    "FunctionProto": {"name": 1, "node": 7, "domain": 10},
    "TensorProto": {"dims": 1, "data_type": 2, "float_data": 4, "int32_data": 5, "string_data": 6, "int64_data": 7,
                    "name": 8, "raw_data": 9, "double_data": 10, "uint64_data": 11, "external_data": 13,
                    "data_location": 14},
    "SparseTensorProto": {"values": 1, "indices": 2},
    "ValueInfoProto": {"name": 1, "type": 2},
    "TypeProto": {"tensor_type": 1, "sequence_type": 4, "map_type": 5, "sparse_tensor_type": 8, "optional_type": 9},
    "TypeProto.Tensor": {"elem_type": 1, "shape": 2},
    "TensorShapeProto": {"dim": 1},
    "TensorShapeProto.Dimension": {"dim_value": 1, "dim_param": 2},
    "OperatorSetIdProto": {"domain": 1, "version": 2},
    "StringStringEntryProto": {"key": 1, "value": 2},
}  # fmt: skip

DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "str", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip
"""TensorProto.DataType -> NumPy's name. The types of four and eight bits cannot be fed from outside."""

MAX_DEPTH = 32
"""Graphs within graphs (If, Loop, Scan)."""
MAX_TENSORS = 1_000
MAX_NAME = 4096
MAX_METADATA = 4 << 20
MAX_RANK = 32
_MOST_ELEMENTS_A_BYTE = 8
_DATA = ("float_data", "int32_data", "string_data", "int64_data", "raw_data", "double_data", "uint64_data")
_PASSES_SCORES_ON = frozenset({"Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Dropout"})


class OnnxDamaged(ValueError):
    """Well-formed protobuf that is no whole ONNX model; the text continues "cannot be opened, …"."""


@dataclass(slots=True)
class OnnxFacts:
    """``operations``: (domain, type) of every node at any depth, but those of functions the file brings along.
    ``external``: file name -> the least bytes it must have. ``last_operation``: what makes the first output, looking
    through those that only reshape; empty where it is not told. ``other_types``: inputs and outputs that are no
    tensors, by name (``sequence``, ``map``…)."""

    ir_version: int = 0
    producer: str = ""
    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    other_types: dict[str, str] = field(default_factory=dict)
    open_ranks: list[str] = field(default_factory=list)
    operations: set[tuple[str, str]] = field(default_factory=set)
    external: dict[str, int] = field(default_factory=dict)
    last_operation: str = ""


def read_facts(data: bytes | memoryview) -> OnnxFacts:
    """Raises WireError for bytes that are no protobuf message, OnnxDamaged for one that is no whole ONNX model."""
    return _Reader(Wire(data)).read()


class _Reader:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._facts = OnnxFacts()
        self._functions: set[tuple[str, str]] = set()
        self._producers: dict[str, tuple[str, str]] = {}
        """Of the main graph: output name -> (operation, its first input)."""

    def read(self) -> OnnxFacts:
        facts, known = self._facts, FIELDS["ModelProto"]
        graphs: list[Field] = []
        for part in self._wire.fields():
            if part.number == known["ir_version"]:
                facts.ir_version = part.value
            elif part.number == known["producer_name"]:
                facts.producer = self._wire.text(part, MAX_NAME)
            elif part.number == known["graph"]:
                graphs.append(part)
            elif part.number == known["opset_import"]:
                domain, version = self._opset(part)
                facts.opsets[domain] = version
            elif part.number == known["metadata_props"]:
                key, value = self._pair(part)
                facts.metadata[key] = value
            elif part.number == known["functions"]:
                self._function(part)
        if not graphs or any(graph.kind != LENGTH for graph in graphs) or not facts.ir_version:
            raise OnnxDamaged("it holds no graph")
        if not facts.opsets:
            # Writers put the operator sets behind the graph: a file that ends before them was cut off.
            raise OnnxDamaged("it is cut off behind its graph")
        self._main_graph(graphs)
        facts.operations -= self._functions
        return facts

    def _main_graph(self, graphs: list[Field]) -> None:
        """The model's graph. Protobuf merges a message that is written in several pieces, and so does who runs it."""
        known = FIELDS["GraphProto"]
        inputs: list[Field] = []
        outputs: list[Field] = []
        initialised: set[str] = set()
        for part in (part for graph in graphs for part in self._wire.fields(graph.start, graph.end)):
            if part.number == known["input"]:
                inputs.append(part)
            elif part.number == known["output"]:
                outputs.append(part)
            elif part.number == known["initializer"]:
                initialised.add(self._tensor(part))
            elif part.number == known["sparse_initializer"]:
                self._sparse(part)
            elif part.number == known["node"]:
                self._node(part, 0, remember=True)
        # Before IR version 4 every initializer was listed among the inputs.
        self._facts.inputs = tuple(t for t in self._values(inputs) if t.name not in initialised)
        self._facts.outputs = tuple(self._values(outputs))
        if not outputs:
            raise OnnxDamaged("its graph has no outputs")
        self._facts.last_operation = self._operation_behind(self._facts.outputs[0].name if self._facts.outputs else "")

    def _operation_behind(self, name: str) -> str:
        for _ in range(MAX_DEPTH):
            operation, source = self._producers.get(name, ("", ""))
            if operation not in _PASSES_SCORES_ON:
                return operation
            name = source
        return ""

    def _graph(self, graph: Field, depth: int) -> None:
        known = FIELDS["GraphProto"]
        if depth > MAX_DEPTH:
            raise OnnxDamaged(f"its graphs are nested more than {MAX_DEPTH} deep")
        for part in self._wire.fields(graph.start, graph.end):
            if part.number == known["node"]:
                self._node(part, depth)
            elif part.number == known["initializer"]:
                self._tensor(part)
            elif part.number == known["sparse_initializer"]:
                self._sparse(part)

    def _function(self, function: Field) -> None:
        known = FIELDS["FunctionProto"]
        name = domain = ""
        for part in self._wire.fields(function.start, function.end):
            if part.number == known["name"]:
                name = self._wire.text(part, MAX_NAME)
            elif part.number == known["domain"]:
                domain = self._wire.text(part, MAX_NAME)
            elif part.number == known["node"]:
                self._node(part, 0)
        self._functions.add((domain, name))

    def _node(self, node: Field, depth: int, *, remember: bool = False) -> None:
        known = FIELDS["NodeProto"]
        operation = domain = source = ""
        outputs: list[str] = []
        for part in self._wire.fields(node.start, node.end):
            if part.number == known["op_type"]:
                operation = self._wire.text(part, MAX_NAME)
            elif part.number == known["domain"]:
                domain = self._wire.text(part, MAX_NAME)
            elif part.number == known["attribute"]:
                self._attribute(part, depth)
            elif remember and part.number == known["output"]:
                outputs.append(self._wire.text(part, MAX_NAME))
            elif remember and part.number == known["input"] and not source:
                source = self._wire.text(part, MAX_NAME)
        self._facts.operations.add((domain, operation))
        self._producers.update((name, (operation, source)) for name in outputs)

    def _attribute(self, attribute: Field, depth: int) -> None:
        known = FIELDS["AttributeProto"]
        for part in self._wire.fields(attribute.start, attribute.end):
            if part.number in (known["t"], known["tensors"]):
                self._tensor(part)
            elif part.number in (known["g"], known["graphs"]):
                self._graph(part, depth + 1)
            elif part.number in (known["sparse_tensor"], known["sparse_tensors"]):
                self._sparse(part)

    def _sparse(self, sparse: Field) -> None:
        for part in self._wire.fields(sparse.start, sparse.end):
            if part.number in FIELDS["SparseTensorProto"].values():
                self._tensor(part)

    def _tensor(self, tensor: Field) -> str:
        """The name of a stored tensor, whose elements must be there. Raises OnnxDamaged."""
        known = FIELDS["TensorProto"]
        data = {known[name] for name in _DATA}
        name = ""
        dims: list[int] = []
        held = 0
        place: dict[str, str] = {}
        for part in self._wire.fields(tensor.start, tensor.end):
            if part.number == known["name"]:
                name = self._wire.text(part, MAX_NAME)
            elif part.number == known["dims"]:
                dims.extend(self._dims(part))
            elif part.number in data:
                held += max(part.size, 1)
            elif part.number == known["external_data"]:
                key, value = self._pair(part)
                place[key] = value
        elements = prod(dims)
        if min(dims, default=0) < 0:
            raise OnnxDamaged(f"its tensor {name[:80]!r} has a negative dimension")
        if place:
            held = self._external(name, place, elements)
        if elements > held * _MOST_ELEMENTS_A_BYTE:
            raise OnnxDamaged(f"its tensor {name[:80]!r} declares {elements:,} elements, but holds {held:,} bytes")
        return name

    def _dims(self, part: Field) -> Iterator[int]:
        for count, size in enumerate(self._wire.integers(part)):
            if count > MAX_RANK:
                raise OnnxDamaged("it holds a tensor of more than 32 dimensions")
            yield size

    def _external(self, name: str, place: dict[str, str], elements: int) -> int:
        """The bytes of a tensor in another file, as stated; where no length is, what its elements need at the least."""
        try:
            offset, length = int(place.get("offset", 0)), int(place.get("length", 0))
        except ValueError as error:
            raise OnnxDamaged(f"its tensor {name[:80]!r} lies at no place in its file") from error
        if offset < 0 or length < 0:
            raise OnnxDamaged(f"its tensor {name[:80]!r} lies at no place in its file")
        length = length or -(-elements // _MOST_ELEMENTS_A_BYTE)
        location = place.get("location", "")
        self._facts.external[location] = max(self._facts.external.get(location, 0), offset + length)
        return length

    def _values(self, values: list[Field]) -> Iterator[TensorSpec]:
        if len(values) > MAX_TENSORS:
            raise OnnxDamaged(f"it has more than {MAX_TENSORS:,} inputs or outputs")
        known = FIELDS["ValueInfoProto"]
        for value in values:
            name, kind = "", None
            for part in self._wire.fields(value.start, value.end):
                if part.number == known["name"]:
                    name = self._wire.text(part, MAX_NAME)
                elif part.number == known["type"]:
                    kind = part
            tensor = None if kind is None else self._type(name, kind)
            if tensor is not None:
                yield tensor

    def _type(self, name: str, kind: Field) -> TensorSpec | None:
        numbers = {number: word for word, number in FIELDS["TypeProto"].items()}
        for part in self._wire.fields(kind.start, kind.end):
            word = numbers.get(part.number, "")
            if word == "tensor_type":
                return self._tensor_type(name, part)
            if word:
                self._facts.other_types[name] = word.removesuffix("_type")
        return None

    def _tensor_type(self, name: str, tensor: Field) -> TensorSpec:
        known = FIELDS["TypeProto.Tensor"]
        dtype, shape = 0, None
        for part in self._wire.fields(tensor.start, tensor.end):
            if part.number == known["elem_type"]:
                dtype = part.value
            elif part.number == known["shape"]:
                shape = self._shape(part)
        if shape is None:
            self._facts.open_ranks.append(name)
            shape = (-1,)
        return TensorSpec(name, DTYPES.get(dtype, f"onnx-{dtype}"), shape)

    def _shape(self, shape: Field) -> tuple[int, ...]:
        sizes: list[int] = []
        for dim in self._wire.fields(shape.start, shape.end):
            if dim.number != FIELDS["TensorShapeProto"]["dim"]:
                continue
            size = -1  # a name (dim_param), or nothing: free
            for part in self._wire.fields(dim.start, dim.end):
                if part.number == FIELDS["TensorShapeProto.Dimension"]["dim_value"]:
                    size = signed(part.value)
            sizes.append(size if size > 0 else -1)
            if len(sizes) > MAX_RANK:
                raise OnnxDamaged("it has an input of more than 32 dimensions")
        return tuple(sizes)

    def _opset(self, part: Field) -> tuple[str, int]:
        domain, version = "", 0
        for inner in self._wire.fields(part.start, part.end):
            if inner.number == FIELDS["OperatorSetIdProto"]["domain"]:
                domain = self._wire.text(inner, MAX_NAME)
            elif inner.number == FIELDS["OperatorSetIdProto"]["version"]:
                version = signed(inner.value)
        return domain, version

    def _pair(self, part: Field) -> tuple[str, str]:
        pair = ["", ""]
        for inner in self._wire.fields(part.start, part.end):
            if inner.number in (1, 2):
                pair[inner.number - 1] = self._wire.text(inner, MAX_METADATA)
        return pair[0], pair[1]


__all__ = ["DTYPES", "FIELDS", "OnnxDamaged", "OnnxFacts", "WireError", "read_facts"]
