"""torch.export programs and AOTInductor packages: what is read of them, and what each fault says."""

from __future__ import annotations

import io
import json
import os
import pickle  # noqa: TID251  # only to write what must be refused
import platform
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import ModelCorrupt, ModelFormatUnknown, ModelRefused
from engine.formats import describe_model, torch_export
from engine.model_spec import TensorSpec, TrustClass

Copied = Callable[..., Path]


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo run",)


def evil_checkpoint() -> bytes:
    """What torch.save would write of an object whose unpickling runs a command."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(Exploit(), protocol=2))
        archive.writestr("a/version", "3")
    return out.getvalue()


def changed(file: Path, **members: bytes | None) -> Path:
    """The archive with members (named below its folder, ``/`` as ``__``, ``.`` as ``_dot_``) put, replaced or, where
    None, left out."""
    new = {f"program/{name.replace('__', '/').replace('_dot_', '.')}": data for name, data in members.items()}
    with zipfile.ZipFile(file) as archive:
        old = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (old | new).items():
            if data is not None:
                archive.writestr(name, data)
    return file


def program(file: Path) -> dict[str, object]:
    with zipfile.ZipFile(file) as archive:
        value: dict[str, object] = json.loads(archive.read("program/models/model.json"))
        return value


def test_a_program_says_its_signature(copied: Copied) -> None:
    spec = describe_model(copied("program.pt2"))
    assert (spec.format, spec.runtime, spec.trust_class) == ("torch_export", "torch_export", TrustClass.PROGRAM)
    assert spec.inputs == (TensorSpec("x", "float32", (-1, 4)),)
    assert spec.outputs == (TensorSpec("output", "float32", (-1, 2)),)
    assert spec.evidence["inputs"] == "program.pt2: models/model.json graph_module.signature"


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.99])
def test_a_program_that_is_cut_off_is_corrupt(copied: Copied, keep: float) -> None:
    file = copied("program.pt2")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ModelCorrupt, match=r"^program.pt2 cannot be opened.*expected a complete torch.export program"):
        describe_model(file)


def test_other_bytes_named_pt2_are_corrupt(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"just text")
    with pytest.raises(ModelCorrupt, match=r"net.pt2 cannot be opened"):
        describe_model(tmp_path / "net.pt2")


def test_a_zip_of_something_else_named_pt2_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("notes/readme.txt", "hello")
    with pytest.raises(ModelFormatUnknown, match=r"net.pt2 holds no torch.export program"):
        describe_model(tmp_path / "net.pt2")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data__weights__model_weights_config_dot_json", "it lacks data/weights"),
        ("data__constants__model_constants_config_dot_json", "it lacks data/constants"),
        ("data__weights__weight_0", "it lacks data/weights/weight_0"),
    ],
)
def test_a_program_without_a_part_is_corrupt(copied: Copied, name: str, said: str) -> None:
    with pytest.raises(ModelCorrupt, match=said):
        describe_model(changed(copied("program.pt2"), **{name: None}))


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b'{"graph_module": {"graph": 3}}', b"[" * 100_000])
def test_a_damaged_graph_is_corrupt(copied: Copied, text: bytes) -> None:
    with pytest.raises(ModelCorrupt, match=r"models/model.json in it is not"):
        describe_model(changed(copied("program.pt2"), models__model_dot_json=text))


@pytest.mark.parametrize("size", [1 << 40, -7])
def test_a_graph_of_impossible_sizes_is_corrupt(copied: Copied, size: int) -> None:
    file = copied("program.pt2")
    text = json.dumps(program(file)).replace('{"as_int": 4}', f'{{"as_int": {size}}}')
    with pytest.raises(ModelCorrupt, match=r"not in the form torch.export writes") as caught:
        describe_model(changed(file, models__model_dot_json=text.encode()))
    assert "impossible shape" in caught.value.details


@pytest.mark.parametrize("name", ["data__sample_inputs__model_dot_pt", "data__weights__model_dot_pt"])
def test_pickles_that_run_code_are_refused(copied: Copied, name: str) -> None:
    """torch.export.load falls back to an unrestricted unpickler for both."""
    with pytest.raises(ModelRefused, match=r"model.pt in it is a pickled Python object"):
        describe_model(changed(copied("program.pt2"), **{name: evil_checkpoint()}))


def test_a_weight_kept_as_a_pickle_is_looked_into(copied: Copied) -> None:
    config = {"config": {"linear.weight": {"path_name": "weight_0", "use_pickle": True}}}
    file = changed(
        copied("program.pt2"),
        data__weights__model_weights_config_dot_json=json.dumps(config).encode(),
        data__weights__weight_0=evil_checkpoint(),
    )
    with pytest.raises(ModelRefused, match="data/weights/weight_0 in it is a pickled Python object"):
        describe_model(file)


def test_objects_of_other_classes_are_refused(copied: Copied) -> None:
    with pytest.raises(ModelRefused, match="data/constants/custom_obj_0 in it is a pickled Python object"):
        describe_model(changed(copied("program.pt2"), data__constants__custom_obj_0=b"x"))


# -- AOTInductor -------------------------------------------------------------------------------------------------------
def package(folder: Path, metadata: dict[str, str] | None = None, library: str = "model.wrapper.so") -> Path:
    """The names that torch._inductor.aoti_compile_and_package puts into its archive."""
    file = folder / "compiled.pt2"
    told = {"AOTI_PLATFORM": sys.platform, "AOTI_MACHINE": platform.machine(), "AOTI_DEVICE_KEY": "cpu"}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("compiled/archive_format", "pt2")
        archive.writestr(f"compiled/data/aotinductor/model/{library}", b"\x7fELF")
        archive.writestr(
            "compiled/data/aotinductor/model/model.wrapper_metadata.json", json.dumps(told | (metadata or {}))
        )
    return file


def test_a_compiled_package_is_native_code(tmp_path: Path) -> None:
    spec = describe_model(package(tmp_path, {"AOTI_CPU_ISA": "AVX512"}))
    assert (spec.format, spec.runtime, spec.trust_class) == ("aot_inductor", "aot_inductor", TrustClass.PROGRAM)
    assert spec.evidence["runtime"] == "compiled.pt2: data/aotinductor (native code for cpu, AVX512)"
    assert (spec.inputs, spec.evidence["inputs"]) == ((), "assumed")


def test_native_code_for_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="its native code was built for plan9 mips"):
        describe_model(package(tmp_path, {"AOTI_PLATFORM": "plan9", "AOTI_MACHINE": "mips"}))


def test_a_package_without_a_library_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="it holds no compiled library"):
        describe_model(package(tmp_path, library="model.cpp"))


def test_names_of_answers_follow_their_structure() -> None:
    leaf = {"type": None, "context": None, "children_spec": []}
    pair = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf, leaf]}
    tree = {"type": "builtins.dict", "context": '["a", "b"]', "children_spec": [leaf, pair]}
    assert torch_export._output_names(json.dumps([1, tree]), 3) == ["a", "b_0", "b_1"]
    assert torch_export._output_names(json.dumps([1, leaf]), 1) == ["output"]
    assert torch_export._output_names(json.dumps([2, leaf]), 1) == ["output_0"]
