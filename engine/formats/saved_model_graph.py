"""What the graph of a SavedModel could do besides computing: every node and function, against an allow-list.

TensorFlow runs a graph with the rights of its process: ReadFile, WriteFile or a saver in the initialiser would run when
the model is opened. Looked at are the main graph, the function library, what the loader runs by itself (initialisers,
the restore operation) and where file names come from. A SavedModel that passes still is of class *program*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from engine.formats.saved_model_ops import (
    ALLOWED,
    PRINT,
    PRINT_STREAMS,
    SAVER_NAMES,
    SAVER_READS,
    SAVER_WRITES,
    VOCABULARY_FILES,
)
from engine.formats.saved_model_proto import parse_asset_file

_ASSETS = "saved_model_assets"
MAX_NODES = 2_000_000
_SAVER = SAVER_READS | SAVER_WRITES | SAVER_NAMES
_SPECIAL = _SAVER | VOCABULARY_FILES
_REACHES = {
    "ReadFile": "reads files", "WholeFileReader": "reads files", "WholeFileReaderV2": "reads files",
    "MatchingFiles": "lists files", "WriteFile": "writes files", PRINT: "writes into a file",
    "PyFunc": "runs Python", "PyFuncStateless": "runs Python", "EagerPyFunc": "runs Python",
    "Abort": "ends the program",
} | dict.fromkeys(SAVER_READS, "reads files") | dict.fromkeys(SAVER_WRITES | SAVER_NAMES, "writes files")  # fmt: skip


def first_refusal(graph: Any, assets: Iterable[str]) -> str | None:
    """Why one ``MetaGraph`` is refused, as the rest of a sentence, or None where all of it only computes.

    ``assets`` are the names of the files in the model's ``assets`` folder. Raises ValueError where it holds more than
    ``MAX_NODES`` operations, or an asset that cannot be read.
    """
    return _Check(graph, frozenset(assets)).first()


class _Check:
    def __init__(self, graph: Any, assets: frozenset[str]) -> None:
        self._graph = graph
        self._assets = assets
        self._main = graph.graph_def.node
        self._functions = {f.signature.name: f for f in graph.graph_def.library.function}
        self._special: dict[str, set[str]] = {}
        """Function -> the special operations it holds, or a function it calls holds."""
        count = len(self._main) + sum(len(f.node_def) for f in self._functions.values())
        if count > MAX_NODES:
            raise ValueError(f"it holds more than {MAX_NODES:,} operations")

    def first(self) -> str | None:
        if len(self._functions) != len(self._graph.graph_def.library.function):
            return "its graph holds two functions of one name"
        bodies = (f.node_def for f in self._functions.values())
        for node in chain(self._main, *bodies):
            if not self._is_known(node):
                return _sentence(node.op)
        self._gather()
        return self._saver() or self._files()

    def _is_known(self, node: Any) -> bool:
        if node.op in ALLOWED or node.op in _SPECIAL:
            return True
        if node.op == PRINT:
            streams = [entry.value for entry in node.attr if entry.key == "output_stream"]
            return all(stream.s in PRINT_STREAMS and not stream.placeholder for stream in streams)
        # Operations are named in CamelCase; a function of such a name could stand for one that is not allowed.
        return node.op in self._functions and node.op.lstrip("_")[:1].islower()

    def _gather(self) -> None:
        """Fill ``_special``, carrying what a function holds to those that call it."""
        callers: dict[str, set[str]] = {}
        for name, function in self._functions.items():
            self._special[name] = {node.op for node in function.node_def if node.op in _SPECIAL}
            for node in function.node_def:
                for called in self._called(node):
                    callers.setdefault(called, set()).add(name)
        pending = [name for name, held in self._special.items() if held]
        while pending:
            name = pending.pop()
            for caller in callers.get(name, ()):
                if not self._special[name] <= self._special[caller]:
                    self._special[caller] |= self._special[name]
                    pending.append(caller)

    def _called(self, node: Any) -> Iterator[str]:
        """The functions a node names, in whatever attribute."""
        if node.op in self._functions:
            yield node.op
        for entry in node.attr:
            for function in (entry.value.func, *entry.value.list.func):
                if function.name in self._functions:
                    yield function.name

    def _held(self, node: Any) -> set[str]:
        held = {node.op} & _SPECIAL
        for name in self._called(node):
            held |= self._special[name]
        return held

    # -- the saver ---------------------------------------------------------------------------------------------------
    def _saver(self) -> str | None:
        """Savers read and write files: only the declared one may, and nothing that the loader or a caller runs."""
        for entry in self._graph.object_graph_def.concrete_functions:
            for operation in sorted(self._special.get(entry.key, set()) & _SAVER):
                return _sentence(operation)
        holders = [(node, self._held(node) & _SAVER) for node in self._main]
        holders = [(node, held) for node, held in holders if held]
        if not holders:
            return None
        saver = self._graph.saver_def
        by_name = {node.name: node for node in self._main}
        saving = _ancestors(by_name, [saver.save_tensor_name])
        restoring = _ancestors(by_name, [saver.restore_op_name])
        running = _ancestors(by_name, self._run_by_others())
        for node, held in holders:
            writes, name = held & SAVER_WRITES, node.name
            if name in running or (name not in saving and name not in restoring) or (writes and name in restoring):
                return _sentence(min(writes or held))
        return None

    def _run_by_others(self) -> Iterator[str]:
        """The tensors and operations that a signature, an initialiser or a collection of the graph asks for."""
        for signature in self._graph.signature_def:
            for tensor in (*signature.value.outputs, *signature.value.inputs):
                yield tensor.value.name
        for collection in self._graph.collection_def:
            yield from collection.value.node_list.value

    # -- vocabulary files --------------------------------------------------------------------------------------------
    def _files(self) -> str | None:
        """File names come from the model's assets, and from nowhere else."""
        assets = self._asset_files()
        for asset in assets:
            if asset.filename not in self._assets:
                return f"its graph needs the file {asset.filename[:80]!r}, which is not among its assets"
        tensors = {_node_of(asset.tensor_info.name) for asset in assets}
        positions: dict[str, set[int]] = {}
        for name, function in self._functions.items():
            arguments = [argument.name for argument in function.signature.input_arg]
            for node in function.node_def:
                if self._held_below(node):
                    return _vocabulary("a name that is passed on")
                if node.op in VOCABULARY_FILES:
                    given = node.input[1] if len(node.input) > 1 else ""
                    if given not in arguments:
                        return _vocabulary("a name that is written in the graph")
                    positions.setdefault(name, set()).add(arguments.index(given))
        return self._main_names(tensors, positions) or self._bound_names(positions)

    def _asset_files(self) -> list[Any]:
        """The files the loader feeds. Raises ValueError for a damaged one."""
        stated = list(self._graph.asset_file_def)
        if stated:
            return stated
        # As tensorflow/python/saved_model/loader_impl.py (get_asset_tensors): TensorFlow 1 keeps them in a collection.
        collections = (entry.value for entry in self._graph.collection_def if entry.key == _ASSETS)
        return [parse_asset_file(packed.value) for one in collections for packed in one.any_list.value]

    def _held_below(self, node: Any) -> bool:
        return any(self._special[name] & VOCABULARY_FILES for name in self._called(node))

    def _main_names(self, tensors: set[str], positions: dict[str, set[int]]) -> str | None:
        if self._graph.HasField("object_graph_def"):
            # tensorflow/python/saved_model/load.py then runs functions of the library and nothing of the main graph.
            return None
        for node in self._main:
            wanted = {1} if node.op in VOCABULARY_FILES else set()
            for name in self._called(node):
                wanted |= positions.get(name, set())
            for position in wanted:
                if position >= len(node.input) or _node_of(node.input[position]) not in tensors:
                    return _vocabulary("a name that is not among its assets")
        return None

    def _bound_names(self, positions: dict[str, set[int]]) -> str | None:
        """A function called by the loader gets its last arguments from the object graph."""
        objects = self._graph.object_graph_def.nodes
        for entry in self._graph.object_graph_def.concrete_functions:
            bound = entry.value.bound_inputs
            for position in positions.get(entry.key, ()):
                at = position - (len(self._functions[entry.key].signature.input_arg) - len(bound))
                if at < 0 or not 0 <= bound[at] < len(objects) or not _is_asset(objects[bound[at]]):
                    return _vocabulary("a name that is not among its assets")
        return None


def _sentence(operation: str) -> str:
    why = _REACHES.get(operation, "is not known to only compute")
    return f"its graph holds the operation {operation[:80]}, which {why}"


def _vocabulary(whence: str) -> str:
    return f"its graph reads a vocabulary from {whence}, which could be any file"


def _is_asset(saved: Any) -> bool:
    return [field.name for field, _ in saved.ListFields()] == ["asset"]


def _node_of(tensor: str) -> str:
    """``a`` of ``a:0`` and ``^a``."""
    return tensor.removeprefix("^").partition(":")[0]


def _ancestors(by_name: dict[str, Any], tensors: Iterable[str]) -> set[str]:
    """The nodes that ``tensors`` need, themselves included."""
    found: set[str] = set()
    pending = [_node_of(tensor) for tensor in tensors]
    while pending:
        name = pending.pop()
        if name in found or name not in by_name:
            continue
        found.add(name)
        pending.extend(_node_of(given) for given in by_name[name].input)
    return found
