"""``torch.export`` programs and AOTInductor packages: both are ``.pt2``, and only what the zip holds tells them apart.

Layout: torch/export/pt2_archive/constants.py (``archive_format`` is ``pt2``; ``models/NAME.json``, ``data/weights``,
``data/constants``, ``data/sample_inputs``, ``data/aotinductor``); before torch 2.8 the files
``serialized_exported_program.json`` and ``serialized_*.pt`` (torch/export/__init__.py, ``load``). The JSON follows
torch/_export/serde/schema.py. Class *program*: a program's expressions are evaluated by Python, a package is machine
code. Pickles in the archive may rebuild tensors only, because ``torch.export.load`` opens them without restriction.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from engine.errors import ModelCorrupt, ModelFormatUnknown, ModelRefused
from engine.formats.container import LOCAL_HEADER, ZipContainer
from engine.formats.disk import EXPECTED, read_head
from engine.formats.pickles import pickled_globals, rebuilds_tensors
from engine.model_spec import ModelSpec, TensorSpec, TrustClass

NAME = "torch_export"
AOT_NAME = "aot_inductor"
PROGRAM = "a complete torch.export program as torch.export.save writes it"
MAX_JSON = 128 << 20
MAX_PICKLE = 32 << 20
MAX_TENSORS = 1_000
MAX_RANK = 64
MAX_ELEMENTS = 1 << 31
_LEGACY = "serialized_exported_program.json"
_LEGACY_PARTS = ("serialized_state_dict.pt", "serialized_constants.pt", "serialized_example_inputs.pt")
_AOT = "/data/aotinductor/"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")

DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 34: "uint32", 35: "uint64",
}  # fmt: skip
"""ScalarType of torch/_export/serde/schema.py -> NumPy's name."""


def recognise(path: Path) -> bool:
    """A zip with ``archive_format`` or a program of before torch 2.8, or a file named ``.pt2`` that is no TorchScript
    archive. Raises ModelCorrupt, ModelUnreadable."""
    named = path.suffix.lower() == ".pt2"
    if not path.is_file() or read_head(path, 4) != LOCAL_HEADER:
        return named
    try:
        with ZipContainer(path, PROGRAM) as container:
            names = container.names
    except ModelCorrupt:
        if named:
            raise
        return False  # a damaged zip of another name is for that name's format to tell
    if _LEGACY in names or any(name.endswith("/archive_format") for name in names):
        return True
    return named and not any(name.endswith("/constants.pkl") for name in names)


def describe(path: Path) -> ModelSpec:
    """Inputs, outputs and free dimensions. Raises ModelCorrupt, ModelRefused, ModelFormatUnknown, ModelUnreadable."""
    with ZipContainer(path, PROGRAM) as container:
        names = container.names
        root = _root(names)
        if any(_AOT in name for name in names):
            return _package(path, container, root)
        program = next(iter(_programs(names, root)), None)
        if program is None:
            raise ModelFormatUnknown(f"{path.name} holds no torch.export program: expected {EXPECTED}.")
        _check_parts(container, root, program)
        _check_pickles(path, container, root)
        text = _json(container, program)
    inputs, outputs = _signature(container, program, text)
    version = str(text.get("torch_version", "unknown"))[:20]
    where = f"{path.name}: {program.removeprefix(root)}"
    return ModelSpec(
        path=path,
        model_file=path,
        format=NAME,
        runtime="torch_export",
        task="raw-tensors",
        trust_class=TrustClass.PROGRAM,
        inputs=inputs,
        outputs=outputs,
        files=(path,),
        evidence={
            "format": f"{where} torch_version {version}",
            "runtime": where,
            "inputs": f"{where} graph_module.signature",
            "outputs": f"{where} graph_module.signature",
        },
    )


def _root(names: list[str]) -> str:
    """``name/``, the folder everything lies in, or an empty text for the layout of before torch 2.8."""
    roots = {name.partition("/")[0] for name in names}
    return roots.pop() + "/" if len(roots) == 1 and all("/" in name for name in names) else ""


def _programs(names: list[str], root: str) -> list[str]:
    """The JSON of each program in the archive; ``model`` is the one ``torch.export.load`` takes."""
    if _LEGACY in names:
        return [_LEGACY]
    found = [n for n in names if n.startswith(f"{root}models/") and n.endswith(".json")]
    return sorted(found, key=lambda name: (not name.endswith("/model.json"), name))


def _package(path: Path, container: ZipContainer, root: str) -> ModelSpec:
    """An AOTInductor package. Its own program, where it was packed too, gives inputs and outputs."""
    libraries = [n for n in container.names if _AOT in n and n.endswith((".so", ".pyd", ".dll", ".dylib"))]
    if not libraries:
        raise container.corrupt("it holds no compiled library")
    facts: dict[str, Any] = {}
    metadata = [n for n in container.names if _AOT in n and n.endswith("_metadata.json")]
    for name in metadata[:20]:
        facts |= _json(container, name)
    built_for = (
        str(facts.get("AOTI_PLATFORM", sys.platform))[:40],
        str(facts.get("AOTI_MACHINE", platform.machine()))[:40],
    )
    if built_for != (sys.platform, platform.machine()):
        raise ModelRefused(
            f"{path.name} is refused: its native code was built for {' '.join(built_for)}, and this machine is "
            f"{sys.platform} {platform.machine()}."
        )
    _check_pickles(path, container, root)
    where = f"{path.name}: data/aotinductor"
    target = ", ".join(str(facts[key])[:80] for key in ("AOTI_DEVICE_KEY", "AOTI_CPU_ISA") if facts.get(key))
    evidence = {"format": where, "runtime": f"{where} (native code{' for ' + target if target else ''})"}
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    program = next(iter(_programs(container.names, root)), None)
    if program is not None:
        inputs, outputs = _signature(container, program, _json(container, program))
        source = f"{path.name}: {program.removeprefix(root)} graph_module.signature"
        evidence |= {"inputs": source, "outputs": source}
    return ModelSpec(
        path=path,
        model_file=path,
        format=AOT_NAME,
        runtime="aot_inductor",
        task="raw-tensors",
        trust_class=TrustClass.PROGRAM,
        inputs=inputs,
        outputs=outputs,
        files=(path,),
        evidence=evidence,
    )


def _check_parts(container: ZipContainer, root: str, program: str) -> None:
    """What the load will look for is there: programs, weights and constants."""
    if program == _LEGACY:
        missing = [name for name in _LEGACY_PARTS if name not in container.names]
        missing = [n for n in missing if n.replace(".pt", ".json") not in container.names]
    else:
        folders = ("weights", "constants")
        stem = program.rpartition("/")[2].removesuffix(".json")
        missing = [
            f"data/{folder}"
            for folder in folders
            if f"{root}data/{folder}/{stem}.pt" not in container.names
            and f"{root}data/{folder}/{stem}_{folder}_config.json" not in container.names
        ]
        missing += [name for name in _payloads(container, root) if root + name not in container.names]
    if missing:
        raise container.corrupt(f"it lacks {missing[0]}")


def _payloads(container: ZipContainer, root: str, *, pickled: bool = False) -> Iterator[str]:
    """The files that the configs of weights and constants name; ``pickled``: only those that are pickles."""
    for config in _CONFIGS:
        if root + config not in container.names:
            continue
        entries = _json(container, root + config).get("config")
        for entry in entries.values() if isinstance(entries, dict) else ():
            if not isinstance(entry, dict) or not isinstance(entry.get("path_name"), str):
                raise container.corrupt(f"{config} in it is not in the form torch.export writes")
            if entry.get("use_pickle") or not pickled:
                yield f"{config.rpartition('/')[0]}/{entry['path_name']}"


def _check_pickles(path: Path, container: ZipContainer, root: str) -> None:
    """Every pickle in the archive rebuilds tensors and nothing else. Raises ModelRefused, ModelCorrupt."""
    pickled = {root + name for name in _payloads(container, root, pickled=True)}
    pickled |= {name for name in container.names if name.endswith(".pt")}
    for name in sorted(pickled):
        if name not in container.names:
            raise container.corrupt(f"it lacks {name.removeprefix(root)}")
        if container.size_of(name) == 0:
            continue  # written where there is nothing to keep
        if container.read_head(name, 4) != LOCAL_HEADER:
            raise _foreign(path, name.removeprefix(root))
        with container.within(name) as inner:
            for member in [n for n in inner.names if n.endswith(".pkl")]:
                if not all(rebuilds_tensors(*found) for found in pickled_globals(inner.read(member, MAX_PICKLE))):
                    raise _foreign(path, name.removeprefix(root))
    objects = [name for name in container.names if name.rpartition("/")[2].startswith(("custom_obj", "opaque_obj"))]
    if objects:
        raise _foreign(path, objects[0].removeprefix(root))


def _foreign(path: Path, name: str) -> ModelRefused:
    return ModelRefused(
        f"{path.name} is refused: {name} in it is a pickled Python object, which can run any code when it is opened; "
        "export the model without it."
    )


def _json(container: ZipContainer, name: str) -> dict[str, Any]:
    try:
        value = json.loads(container.read(name, MAX_JSON))
    except (ValueError, RecursionError) as error:
        raise container.corrupt(f"{name} in it is not JSON", str(error)) from error
    if not isinstance(value, dict):
        raise container.corrupt(f"{name} in it is not a JSON object")
    return value


def _signature(
    container: ZipContainer, name: str, program: dict[str, Any]
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The tensors that go in and come out, named as the arguments and as the answer's structure has them."""
    try:
        graph = program["graph_module"]
        values = graph["graph"]["tensor_values"]
        specs = graph["signature"]["input_specs"]
        given = [s["user_input"]["arg"] for s in specs if "user_input" in s]
        inputs = [_tensor(arg["as_tensor"]["name"], arg, values) for arg in given if "as_tensor" in arg]
        answers = [s["user_output"]["arg"] for s in graph["signature"]["output_specs"] if "user_output" in s]
        names = _output_names(graph["module_call_graph"][0]["signature"]["out_spec"], len(answers))
        pairs = zip(names, answers, strict=True)
        outputs = [_tensor(n, arg, values) for n, arg in pairs if "as_none" not in arg]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise container.corrupt(f"{name} in it is not in the form torch.export writes", repr(error)) from error
    if len(inputs) > MAX_TENSORS or len(outputs) > MAX_TENSORS or not outputs:
        raise container.corrupt(f"{name} in it names no outputs, or more than {MAX_TENSORS:,} tensors")
    return tuple(inputs), tuple(outputs)


def _tensor(name: str, argument: dict[str, Any], values: dict[str, Any]) -> TensorSpec:
    """One argument of the signature. Numbers (``as_sym_int``, ``as_float``…) have no dimensions."""
    if "as_tensor" not in argument:
        kind = next(iter(argument))
        return TensorSpec(str(name), {"float": "float64", "bool": "bool"}.get(kind.rpartition("_")[2], "int64"), ())
    value = values[argument["as_tensor"]["name"]]
    sizes = value["sizes"]
    if len(sizes) > MAX_RANK:
        raise ValueError("a tensor of more than 64 dimensions")
    shape = tuple(int(size["as_int"]) if "as_int" in size else -1 for size in sizes)
    if min(shape, default=0) < -1 or prod(n for n in shape if n > 0) > MAX_ELEMENTS:
        raise ValueError(f"a tensor of the impossible shape {shape}")
    return TensorSpec(str(name), DTYPES.get(value["dtype"], f"torch-{int(value['dtype'])}"), shape)


def _output_names(out_spec: str, count: int) -> list[str]:
    """A name for each leaf of the answer: a dict's keys, else ``output``, ``output_0``… (torch/utils/_pytree.py,
    ``treespec_dumps`` protocol 1)."""
    version, tree = json.loads(out_spec)
    names = list(_leaves("output", tree)) if version == 1 else []
    return names if len(names) == count and len(set(names)) == count else [f"output_{i}" for i in range(count)]


def _leaves(name: str, tree: dict[str, Any]) -> Iterator[str]:
    if tree["type"] is None:
        yield name
        return
    keys = json.loads(tree["context"]) if tree["type"].endswith(("dict", "OrderedDict")) else None
    for index, child in enumerate(tree["children_spec"]):
        yield from _leaves(str(keys[index]) if isinstance(keys, list) else f"{name}_{index}", child)
