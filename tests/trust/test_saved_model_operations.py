"""C29: a SavedModel whose graph could do more than compute is refused; those that people have are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.engine import Engine
from engine.errors import ModelCorrupt, ModelRefused
from engine.formats import saved_model_graph, saved_model_proto
from engine.formats.saved_model_graph import first_refusal
from engine.formats.saved_model_ops import ALLOWED, SAVER_NAMES, SAVER_READS, SAVER_WRITES, VOCABULARY_FILES
from engine.formats.saved_model_proto import parse_saved_model

pytestmark = pytest.mark.real
PATIENCE_S = 60.0

HARMLESS = ("text", "recurrent", "vocabulary", "pictures", "first", "second")
HOSTILE = {
    "reads": "the operation ReadFile, which reads files",
    "writes": "the operation WriteFile, which writes files",
    "prints": "the operation PrintV2, which writes into a file",
    "saves": "the operation SaveV2, which writes files",
    "lists": "the operation MatchingFiles, which lists files",
    "nested": "the operation WriteFile, which writes files",
    "python": "the operation PyFunc, which runs Python",
    "proto": "the operation DecodeProtoV2, which is not known to only compute",
    "init_saves": "the operation SaveV2, which writes files",
    "restore_saves": "the operation SaveV2, which writes files",
    "constant_vocabulary": "reads a vocabulary from a name that is ",
    "first_without_asset": "reads a vocabulary from a name that is not among its assets",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_people_have_opens(engine: Engine, saved_models: Path, name: str) -> None:
    spec = engine.inspect(saved_models / name).result(PATIENCE_S)
    assert (spec.format, spec.trust_class.value) == ("saved_model", "program")
    assert "serving_default" in spec.signatures


@pytest.mark.parametrize("name", HOSTILE)
def test_what_reaches_past_the_model_is_refused(engine: Engine, saved_models: Path, canary: Path, name: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        engine.inspect(saved_models / name).result(PATIENCE_S)
    assert caught.value.message.startswith(f"{name} is refused: its graph ")
    assert HOSTILE[name] in caught.value.message
    with pytest.raises(ModelRefused):
        engine.load(saved_models / name, trust=True).future.result(PATIENCE_S)
    assert not list(canary.parent.iterdir())


@pytest.mark.parametrize("twin", ["saved_model.pbtxt", "saved_model.cpb"])
def test_a_second_graph_beside_the_first_is_refused(
    engine: Engine, saved_models: Path, tmp_path: Path, twin: str
) -> None:
    folder = Path(shutil.copytree(saved_models / "text", tmp_path / "text"))
    (folder / twin).write_text("meta_graphs {}")
    with pytest.raises(ModelRefused, match=rf"it holds {twin} beside saved_model.pb"):
        engine.inspect(folder).result(PATIENCE_S)


def test_the_lists_name_operations_of_tensorflow(saved_models: Path) -> None:
    facts = json.loads((saved_models / "facts.json").read_text())
    named = ALLOWED | SAVER_READS | SAVER_WRITES | SAVER_NAMES | VOCABULARY_FILES
    assert not named - set(facts["operations"])
    marks = ("File", "Dataset", "Summary", "Py", "Rpc", "Remote", "Debug", "Send", "Recv", "Tpu", "TPU", "Collective")
    assert not [name for name in ALLOWED if any(mark in name for mark in marks)]
    assert sorted(n for n, *_ in saved_model_proto._MESSAGES["Object"]) == facts["kinds"]


# Graphs that no library writes, changed in what TensorFlow wrote.


def graph_of(folder: Path) -> Any:
    return parse_saved_model((folder / "saved_model.pb").read_bytes()).meta_graphs[0]


def function_that(graph: Any, part: str) -> Any:
    return next(f for f in graph.graph_def.library.function if part in f.signature.name)


def calls_the_saver_when_asked(graph: Any) -> None:
    graph.object_graph_def.concrete_functions.add().key = function_that(graph, "traced_save").signature.name


def runs_the_saver_with_a_signature(graph: Any) -> None:
    saving = next(n for n in graph.graph_def.node if any("traced_save" in a.value.func.name for a in n.attr))
    answer = next(n for n in graph.graph_def.node if n.name == "StatefulPartitionedCall")
    answer.input.append(f"^{saving.name}")


def names_a_function_like_an_operation(graph: Any) -> None:
    function = function_that(graph, "initializer")
    function.signature.name = "ReadFile"
    graph.graph_def.node.add(name="n", op="ReadFile")


def has_two_functions_of_one_name(graph: Any) -> None:
    library = graph.graph_def.library.function
    library.add().CopyFrom(library[0])


def names_a_file_outside(graph: Any) -> None:
    graph.asset_file_def[0].filename = "../../../etc/passwd"


def binds_another_object(graph: Any) -> None:
    for saved in graph.object_graph_def.nodes:
        if saved.HasField("asset"):
            saved.constant.SetInParent()


def asks_the_caller_for_the_name(graph: Any) -> None:
    for entry in graph.object_graph_def.concrete_functions:
        if "initializer" in entry.key:
            del entry.value.bound_inputs[:]


def prints_where_an_attribute_says(graph: Any) -> None:
    node = function_that(graph, "number").node_def.add(name="p", op="PrintV2")
    node.attr.add(key="output_stream").value.placeholder = "where"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (calls_the_saver_when_asked, "MergeV2Checkpoints"),
        (runs_the_saver_with_a_signature, "which writes files"),
        (names_a_function_like_an_operation, "ReadFile, which reads files"),
        (has_two_functions_of_one_name, "two functions of one name"),
        (names_a_file_outside, "not among its assets"),
        (binds_another_object, "could be any file"),
        (asks_the_caller_for_the_name, "could be any file"),
        (prints_where_an_attribute_says, "PrintV2, which writes into a file"),
    ],
)
def test_no_way_around(saved_models: Path, change: Callable[[Any], None], words: str) -> None:
    graph = graph_of(saved_models / "vocabulary")
    assert first_refusal(graph, ["words.txt"]) is None
    change(graph)
    refusal = first_refusal(graph, ["words.txt"])
    assert refusal is not None
    assert words in refusal


def test_a_graph_of_too_many_operations_is_corrupt(
    saved_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.formats import saved_model

    monkeypatch.setattr(saved_model_graph, "MAX_NODES", 3)
    with pytest.raises(ModelCorrupt, match="is damaged") as caught:
        saved_model.describe(saved_models / "text")
    assert caught.value.details == "it holds more than 3 operations"
