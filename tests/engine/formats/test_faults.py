"""Files that are damaged, hostile or no files at all: one ModelError with a sentence, never anything else."""

from __future__ import annotations

import io
import json
import os
import pickle  # noqa: TID251  # only to write what must be refused
import socket
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ModelCorrupt, ModelError, ModelRefused, ModelUnreadable
from engine.formats import container, describe_model, disk
from engine.formats.container import ZipContainer
from engine.formats.keras_objects import first_refusal
from engine.formats.pickles import UNKNOWN, pickled_globals

Copied = Callable[..., Path]
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX special files")


def repacked(source: Path, target: Path, **replace: bytes | None) -> Path:
    """A copy of a zip with members replaced by name (dots written as ``__``), or left out where None."""
    new = {name.replace("__", "."): data for name, data in replace.items()}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as out:
        for info in old.infolist():
            data = new.get(info.filename, old.read(info.filename))
            if data is not None:
                out.writestr(info.filename, data)
    return target


@pytest.mark.parametrize("name", ["sequential.keras", "script.pt"])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.99])
def test_a_cut_off_file_is_corrupt(copied: Copied, name: str, keep: float) -> None:
    file = copied(name)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ModelCorrupt) as caught:
        describe_model(file)
    assert file.name in caught.value.message
    assert "expected a complete" in caught.value.message


def test_a_keras_file_of_other_bytes_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"hello" * 100)
    with pytest.raises(ModelCorrupt, match=r"model.keras cannot be opened"):
        describe_model(tmp_path / "model.keras")


@posix
def test_special_files_are_never_opened(tmp_path: Path) -> None:
    fifo, sock = tmp_path / "pipe.pt", tmp_path / "s.pt"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(sock))
        # Opening the FIFO would block for ever: nobody writes to it. The time-out of pytest would end the run.
        for path in (fifo, sock, Path("/dev/null")):
            with pytest.raises(ModelUnreadable, match=f"{path.name} is not a regular file"):
                describe_model(path)
    with pytest.raises(disk.NotRegular):
        disk.open_regular(fifo)


@posix
def test_a_special_file_inside_a_saved_model_is_refused(copied: Copied) -> None:
    folder = copied("exported")
    os.mkfifo(folder / "assets" / "pipe")
    with pytest.raises(ModelUnreadable, match="pipe in the folder assets is not a regular file"):
        describe_model(folder)


@posix
def test_a_file_without_permission_is_unreadable(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    file = copied("script.pt")

    def denied(path: Any, *rest: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk.os, "open", denied)  # root may read everything, so the refusal is played
    with pytest.raises(ModelUnreadable, match=r"script.pt cannot be read \(permission denied\)"):
        describe_model(file)


@posix
def test_links_in_a_circle_end(copied: Copied, tmp_path: Path) -> None:
    (tmp_path / "a.pt").symlink_to(tmp_path / "b.pt")
    (tmp_path / "b.pt").symlink_to(tmp_path / "a.pt")
    with pytest.raises(ModelUnreadable):
        describe_model(tmp_path / "a.pt")
    folder = copied("exported")
    (folder / "assets" / "loop").symlink_to(folder, target_is_directory=True)
    with pytest.raises(ModelUnreadable, match="loop in the folder assets is a link to another folder"):
        describe_model(folder)


def test_folder_walks_are_bounded_in_depth(copied: Copied) -> None:
    folder = copied("exported")
    deep = folder.joinpath("assets", *["d"] * (disk.MAX_DEPTH + 1))
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    with pytest.raises(ModelUnreadable, match="too large or too deep"):
        describe_model(folder)


def test_folder_walks_are_bounded_in_entries(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied("exported")
    monkeypatch.setattr(disk, "MAX_ENTRIES", 2)
    for name in ("a", "b"):
        (folder / "assets" / name).mkdir()
        (folder / "assets" / name / "file").write_text("x")
    with pytest.raises(ModelUnreadable, match="at most 2 entries"):
        describe_model(folder)
    (folder / "assets" / "c").write_text("x")
    with pytest.raises(ModelUnreadable, match="The folder assets holds more than 2 entries"):
        describe_model(folder)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("variables", "exported has no variables folder"),
        ("variables/variables.index", "The variables folder of exported is not complete"),
        ("variables/variables.data-00000-of-00001", "The variables folder of exported is not complete"),
    ],
)
def test_a_saved_model_without_its_variables_is_corrupt(copied: Copied, part: str, words: str) -> None:
    folder = copied("exported")
    (folder / part).rename(folder / "away")
    with pytest.raises(ModelCorrupt, match=words):
        describe_model(folder)


def test_a_saved_model_that_lacks_a_shard_is_corrupt(copied: Copied) -> None:
    variables = copied("exported") / "variables"
    (variables / "variables.data-00000-of-00001").rename(variables / "variables.data-00000-of-00002")
    with pytest.raises(ModelCorrupt, match="The variables folder of exported lacks files"):
        describe_model(variables.parent)


@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"hello, this is no protobuf"])
def test_a_saved_model_with_a_damaged_graph_is_corrupt(copied: Copied, content: bytes) -> None:
    folder = copied("exported")
    (folder / "saved_model.pb").write_bytes(content)
    with pytest.raises(ModelCorrupt, match=r"saved_model.pb in exported"):
        describe_model(folder)


def test_variables_behind_a_link_are_refused(copied: Copied) -> None:
    folder = copied("exported")
    (folder / "variables").rename(folder.parent / "elsewhere")
    (folder / "variables").symlink_to(folder.parent / "elsewhere", target_is_directory=True)
    with pytest.raises(ModelUnreadable, match="variables in exported is a link"):
        describe_model(folder)


# Pickles


def test_pickles_and_weights_are_refused(copied: Copied, tmp_path: Path) -> None:
    for name in ("weights.pt", "checkpoint.pth"):
        with pytest.raises(ModelRefused, match="holds weights, but not the model they belong to"):
            describe_model(copied(name))
    with pytest.raises(ModelRefused, match="is a pickled Python object"):
        describe_model(copied("whole.pt"))
    with pytest.raises(ModelRefused, match="it is a pickle"):
        describe_model(copied("legacy.pt"))
    for protocol in (2, 3, 4, 5):
        file = tmp_path / f"model{protocol}.pkl"
        file.write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
        with pytest.raises(ModelRefused, match=f"model{protocol}.pkl is refused: it is a pickle"):
            describe_model(file)


class Planted:
    """Unpickling this writes a file."""

    target = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path(self.target), "ran"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_is_unpickled(tmp_path: Path, protocol: int) -> None:
    planted = Planted()
    planted.target = str(tmp_path / "ran")
    file = tmp_path / "evil.pt"
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("evil/data.pkl", pickle.dumps(planted, protocol=protocol))
        out.writestr("evil/version", "3")
    with pytest.raises(ModelRefused, match="pickled Python object"):
        describe_model(file)
    assert not (tmp_path / "ran").exists()


def test_names_a_pickle_would_import() -> None:
    from collections import OrderedDict

    for protocol in (2, 4):
        assert pickled_globals(pickle.dumps(OrderedDict(a=1), protocol=protocol)) == {("collections", "OrderedDict")}
    assert UNKNOWN in pickled_globals(b"\x80\x02garbage")
    # Names taken from the memo, not from the last two strings: os.system hidden behind collections.OrderedDict.
    hidden = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x0bcollections\x8c\x0bOrderedDict00h\x00h\x01\x93."
    assert pickled_globals(hidden) == {("os", "system")}
    assert pickled_globals(b"\x80\x04\x8c\x01a\x8c\x01b\x85\x93.") == {UNKNOWN}


# Containers


def zip_bytes(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for name, data in members:
            out.writestr(name, data)
    return buffer.getvalue()


def opening(tmp_path: Path, data: bytes) -> str:
    file = tmp_path / "model.keras"
    file.write_bytes(data)
    with pytest.raises(ModelCorrupt) as caught, ZipContainer(file, "a thing") as opened:
        for name in opened.names:
            opened.read(name, 1 << 30)
    assert "expected a thing" in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/passwd", "C:/x", "a\\b", "nul\x00l"])
def test_names_that_reach_outside(tmp_path: Path, name: str) -> None:
    data = zip_bytes(("x" * len(name), b"1")).replace(b"x" * len(name), name.encode())
    assert "reaches outside" in opening(tmp_path, data)


def test_bombs(tmp_path: Path) -> None:
    bomb = zip_bytes(("config.json", bytes(200 << 20)), compression=zipfile.ZIP_DEFLATED)
    assert "would unpack to" in opening(tmp_path, bomb)


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_ENTRIES", 3)
    assert "more than 3 entries" in opening(tmp_path, zip_bytes(*((f"f{i}", b"") for i in range(4))))


def test_a_huge_table_of_contents_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_DIRECTORY", 70_000)
    data = zip_bytes(*((f"{i:0200}", b"") for i in range(400)))
    assert "cut off or damaged" in opening(tmp_path, data)


def test_overlapping_entries(tmp_path: Path) -> None:
    data = bytearray(zip_bytes(("a", b"A" * 100), ("b", b"B" * 100)))
    second = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 0)  # the second entry points at the first one's header
    assert "overlap" in opening(tmp_path, bytes(data))


def test_bytes_before_the_first_entry(tmp_path: Path) -> None:
    assert "overlap" in opening(tmp_path, b"#!/bin/sh\n" + zip_bytes(("a", b"1")))


def test_a_wrong_checksum(tmp_path: Path) -> None:
    data = zip_bytes(("config.json", b"AAAAAAAA")).replace(b"AAAAAAAA", b"AAAABAAA")
    assert "config.json in it is damaged" in opening(tmp_path, data)


def test_encryption_links_and_duplicates(tmp_path: Path) -> None:
    data = bytearray(zip_bytes(("a", b"1")))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in opening(tmp_path, bytes(data))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
    assert "link or a device" in opening(tmp_path, buffer.getvalue())
    twice = zip_bytes(("aa", b"1"), ("ab", b"2")).replace(b"ab", b"aa")
    assert "holds aa twice" in opening(tmp_path, twice)


# Keras


def test_weights_must_be_whole(copied: Copied, models: Path) -> None:
    source = models / "sequential.keras"
    with zipfile.ZipFile(source) as opened:
        weights = opened.read("model.weights.h5")
    target = copied("sequential.keras")
    for data, words in ((weights[:-100], "cut off"), (b"x" * 500, "not an HDF5 file"), (None, "holds no weights")):
        repacked(source, target, model__weights__h5=data)
        with pytest.raises(ModelCorrupt, match=words):
            describe_model(target)


@pytest.mark.parametrize(
    ("config", "words"),
    [(b"not json", "is not JSON"), (b"[]", "not a JSON object"), (b"[" * 100_000, "is not JSON"),
     (b'{"a":' * 300 + b"1" + b"}" * 300, "nested too deeply"), (None, "holds no config.json")],
)  # fmt: skip
def test_a_damaged_config_is_corrupt(copied: Copied, models: Path, config: bytes | None, words: str) -> None:
    target = copied("sequential.keras")
    repacked(models / "sequential.keras", target, config__json=config)
    with pytest.raises(ModelCorrupt, match=words):
        describe_model(target)


def test_code_in_keras_files_is_refused(copied: Copied) -> None:
    with pytest.raises(ModelRefused, match="its layer 'twice' \\(Lambda\\) holds code of its own"):
        describe_model(copied("lambda.keras"))
    with pytest.raises(ModelRefused, match=r"its layer 'special' .* is not one of Keras' own"):
        describe_model(copied("custom.keras"))


def layer(module: str | None, class_name: str, inner: Any = None, **more: Any) -> dict[str, Any]:
    inner = {"name": "l"} if inner is None else inner
    return {"module": module, "class_name": class_name, "config": inner, "registered_name": None} | more


@pytest.mark.parametrize(
    "planted",
    [
        layer("keras.layers", "Lambda"),
        layer("keras.layers", "TFSMLayer", {"filepath": "/tmp/x"}),
        layer("keras.src.utils.torch_utils", "TorchModuleWrapper"),
        layer(None, "Lambda"),
        layer(None, "__lambda__", {"value": "x"}),
        layer("os", "system"),
        layer("keras.utils", "get_file"),
        layer("keras.config", "function", "enable_unsafe_deserialization"),
        layer("builtins", "function", "exec"),
        layer("keras.src.utils.file_utils", "File"),
        layer("keras.layers", "Dense", registered_name="mine>Dense"),
        layer("keras.layers", "StringLookup", {"name": "l", "vocabulary": "/etc/passwd"}),
        layer("keras.layers", "TextVectorization", {"name": "l", "vocabulary": "http://a/b"}),
        layer("keras.src.ops.core", "Map"),
        layer(["keras.layers"], "Dense"),  # type: ignore[arg-type]  # what a forged file may hold
        layer("keras.layers", ["Dense"]),  # type: ignore[arg-type]
        {"class_name": "__typespec__", "spec_name": "X", "module": "tensorflow", "config": []},
        {"spec_name": "X", "module": "os"},
    ],
)
def test_whatever_is_not_on_the_list_is_refused_however_deep(planted: dict[str, Any]) -> None:
    model = layer(
        "keras", "Sequential", {"layers": [layer("keras.layers", "Bidirectional", {"layer": [{"x": planted}]})]}
    )
    refusal = first_refusal(model)
    assert refusal is not None
    json.dumps(refusal)
    nested = layer("keras", "Sequential", {"layers": [layer("keras", "Sequential", compile_config={"loss": planted})]})
    assert first_refusal(nested) is not None


def test_only_the_models_own_training_settings_are_not_looked_at() -> None:
    model = layer("keras", "Sequential", {"layers": []}, compile_config={"loss": layer("builtins", "function", "mine")})
    assert first_refusal(model) is None


# Any change of any byte


@pytest.mark.parametrize("name", ["sequential.keras", "script.pt", "exported", "weights.pt"])
def test_a_mutated_file_raises_only_model_errors(models: Path, tmp_path: Path, name: str) -> None:
    import shutil

    if (models / name).is_dir():
        shutil.copytree(models / name, tmp_path / name)
        file = tmp_path / name / "saved_model.pb"
    else:
        file = Path(shutil.copy(models / name, tmp_path / name))
    original = file.read_bytes()

    @settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def mutate(draw: st.DataObject) -> None:
        data = bytearray(original)
        # Headers and directories are at the ends; a change there says more than one in the weights.
        positions = st.one_of(
            st.integers(0, min(400, len(data) - 1)),
            st.integers(max(0, len(data) - 900), len(data) - 1),
            st.integers(0, len(data) - 1),
        )
        for at in draw.draw(st.lists(positions, min_size=1, max_size=8)):
            data[at] = draw.draw(st.integers(0, 255))
        if draw.draw(st.booleans()):
            del data[draw.draw(st.integers(0, len(data) - 1)) :]
        file.write_bytes(bytes(data))
        try:
            describe_model(file)
        except ModelError as error:
            assert file.name in error.message or name in error.message  # noqa: PT017  # either outcome is right

    mutate()
