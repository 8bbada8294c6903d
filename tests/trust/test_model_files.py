"""Hostile and damaged model files, C23 to C34 of the acceptance catalogue: one error each, at once and for good.

Every case goes through the real inspector of a real engine. It must cost one sentence: no time-out, no dead inspector,
no memory to speak of, nothing written, and the next good model opens.
"""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest

from engine.engine import Engine
from engine.errors import ConsentRequired, ModelError
from tests.trust import hostile

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_S = 60.0
APP_GROWTH = 64 << 20
INSPECTOR_GROWTH = 200 << 20

Write = Callable[[Path, Path], Path]


@dataclass(frozen=True)
class Case:
    """``write(folder, canary)`` gives what a person opens. ``code`` is what it costs, ``words`` are in the sentence."""

    name: str
    code: str
    words: str
    write: Write


CASES: list[Case] = []


def case(name: str, code: str, words: str) -> Callable[[Write], Write]:
    def register(write: Write) -> Write:
        CASES.append(Case(name, code, words, write))
        return write

    return register


def cases(prefix: str, code: str, words: str, writes: dict[str, Write]) -> None:
    for name, write in writes.items():
        CASES.append(Case(f"{prefix}-{name}", code, words, write))


def bytes_in(name: str, data: Callable[[Path], bytes]) -> Write:
    def write(folder: Path, canary: Path) -> Path:
        (folder / name).write_bytes(data(canary))
        return folder / name

    return write


# -- C23: pickles ------------------------------------------------------------------------------------------------------
cases(
    "C23",
    "model_refused",
    "it is a pickle",
    {
        f"pickle-{protocol}-{suffix}": bytes_in(f"m.{suffix}", lambda canary, p=protocol: hostile.runs(canary, p))  # type: ignore[misc]  # binds p now
        for protocol in (2, 3, 4, 5)
        for suffix in ("pt", "pth", "bin", "ckpt", "pkl")
    },
)
cases(
    "C23",
    "model_corrupt",
    "cut off or damaged",
    {"pickle-0-pt": bytes_in("m.pt", lambda canary: hostile.runs(canary, 0))},
)
cases(
    "C23",
    "model_refused",
    "posix.system",
    {
        f"zip-{protocol}-{suffix}": lambda folder, canary, p=protocol, s=suffix: hostile.torch_zip(  # type: ignore[misc]  # as above
            folder / f"m.{s}", hostile.runs(canary, p)
        )
        for protocol in (0, 2, 4)
        for suffix in ("pt", "pth", "safe")
    },
)


@case("C23-hidden-in-memo", "model_refused", "posix.system")
def _hidden(folder: Path, canary: Path) -> Path:
    words = b"".join(b"\x8c" + bytes([len(w)]) + w + b"\x94" for w in (b"posix", b"system", b"collections"))
    command = f"touch '{canary}'".encode()
    tail = b"\x8c\x0bOrderedDict00h\x00h\x01\x93X" + struct.pack("<I", len(command)) + command + b"\x85R."
    return hostile.torch_zip(folder / "m.pt", b"\x80\x04" + words + tail)


@case("C23-extension-registry", "model_refused", "pickled Python object")
def _extension(folder: Path, canary: Path) -> Path:
    return hostile.torch_zip(folder / "m.pt", b"\x80\x02\x82\x01)R.")


@case("C23-torch-own-gadget", "model_refused", "torch.hub.load")
def _gadget(folder: Path, canary: Path) -> Path:
    return hostile.torch_zip(folder / "m.pt", hostile.pickle_of("torch.hub", "load", "a/b", 2))


@case("C23-inside-an-export-program", "model_refused", "pickled Python object")
def _inside_export(folder: Path, canary: Path) -> Path:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as out:
        out.writestr("w/data.pkl", hostile.runs(canary))
    program = json.dumps({"graph_module": {}}).encode()
    parts = {"archive_format": b"pt2", "models/model.json": program, "data/weights/model.pt": inner.getvalue()}
    parts["data/constants/model.pt"] = b""
    return hostile.zipped(folder / "m.pt2", *((f"m/{name}", data) for name, data in parts.items()))


@case("C23-beside-a-config", "model_refused", "posix.system")
def _folder_of_weights(folder: Path, canary: Path) -> Path:
    model = folder / "bert"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    hostile.torch_zip(model / "pytorch_model.bin", hostile.runs(canary))
    return model


# -- C24: which kind it is ---------------------------------------------------------------------------------------------
@case("C24-torchscript", "needs_consent", "runs")
def _torchscript(folder: Path, canary: Path) -> Path:
    return hostile.torchscript(folder / "m.pt")


@case("C24-legacy-tar", "model_refused", "it is a pickle")
def _tar(folder: Path, canary: Path) -> Path:
    with tarfile.open(folder / "m.pt", "w") as out:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            data = hostile.runs(canary)
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
    return folder / "m.pt"


@case("C24-data-pkl-twice", "model_corrupt", "holds m/data.pkl twice")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def _twice(folder: Path, canary: Path) -> Path:
    safe, evil = b"\x80\x02}.", hostile.runs(canary)
    file = hostile.torch_zip(folder / "m.pt", safe, ("m/data.pk2", evil))
    file.write_bytes(file.read_bytes().replace(b"m/data.pk2", b"m/data.pkl"))
    return file


@case("C24-export-program-named-pt", "model_corrupt", "lacks")
def _named_otherwise(folder: Path, canary: Path) -> Path:
    parts = {"archive_format": b"pt2", "models/model.json": b"{}"}
    return hostile.zipped(folder / "m.pt", *((f"m/{name}", data) for name, data in parts.items()))


# -- C25: safetensors --------------------------------------------------------------------------------------------------
TENSOR = hostile.tensor
cases(
    "C25",
    "model_corrupt",
    "m.safetensors cannot be opened",
    {
        "header-beyond-file": lambda f, _: hostile.safetensors(f / "m.safetensors", {}, length=10_000),
        "header-of-2-to-63": lambda f, _: hostile.safetensors(f / "m.safetensors", {}, length=(1 << 63) - 1),
        "no-header": lambda f, _: hostile.safetensors(f / "m.safetensors", b""),
        "header-no-json": lambda f, _: hostile.safetensors(f / "m.safetensors", b"{" * 3_000_000),
        "deep": lambda f, _: hostile.safetensors(f / "m.safetensors", b'{"a":' * 100_000),
        "overlap": lambda f, _: hostile.safetensors(
            f / "m.safetensors", {"a": TENSOR([4], 0, 16), "b": TENSOR([4], 8, 24)}, bytes(24)
        ),
        "gap": lambda f, _: hostile.safetensors(
            f / "m.safetensors", {"a": TENSOR([4], 0, 16), "b": TENSOR([4], 20, 36)}, bytes(36)
        ),
        "million-tensors": lambda f, _: hostile.safetensors(
            f / "m.safetensors", {str(i): TENSOR([0], 0, 0, "U8") for i in range(100_000)}
        ),
        "shape-overflow": lambda f, _: hostile.safetensors(
            f / "m.safetensors", {"a": TENSOR([1 << 62, 1 << 62], 0, 16)}, bytes(16)
        ),
        "shape-overflow-to-zero": lambda f, _: hostile.safetensors(
            f / "m.safetensors", {"a": TENSOR([1 << 32, 1 << 32], 0, 0)}
        ),
        "end-before-start": lambda f, _: hostile.safetensors(f / "m.safetensors", {"a": TENSOR([4], 16, 0)}, bytes(16)),
        "past-the-end": lambda f, _: hostile.safetensors(f / "m.safetensors", {"a": TENSOR([4], 0, 16)}, bytes(8)),
        "one-name-twice": lambda f, _: hostile.safetensors(
            f / "m.safetensors", b'{"a":%b,"a":%b}' % ((json.dumps(TENSOR([4], 0, 16)).encode(),) * 2), bytes(16)
        ),
    },
)

# -- C26: Keras' config ------------------------------------------------------------------------------------------------
LAMBDA = hostile.layer(
    "keras.layers", "Lambda", {"name": "planted", "function": hostile.layer("builtins", "__lambda__")}
)
cases(
    "C26",
    "model_refused",
    "m.keras is refused: ",
    {
        name: lambda folder, _, planted=planted: hostile.keras_file(folder / "m.keras", hostile.sequential(planted))  # type: ignore[misc]  # binds it now
        for name, planted in {
            "lambda": LAMBDA,
            "lambda-in-a-model-in-a-model": hostile.sequential(hostile.sequential(LAMBDA)),
            "lambda-in-a-wrapper": hostile.layer("keras.layers", "TimeDistributed", {"name": "t", "layer": LAMBDA}),
            "subprocess": hostile.layer("subprocess", "Popen", {"args": "touch"}),
            "os-system": hostile.layer("os", "system"),
            "builtin": hostile.layer("builtins", "function", "exec"),
            "unsafe-deserialization": hostile.layer("keras.config", "function", "enable_unsafe_deserialization"),
            "tfsm": hostile.layer("keras.layers", "TFSMLayer", {"name": "planted", "filepath": "/tmp/x"}),
            "torch": hostile.layer("keras.layers", "TorchModuleWrapper", {"name": "planted"}),
            "jax": hostile.layer("keras.layers", "JaxLayer", {"name": "planted"}),
            "vocabulary-path": hostile.layer(
                "keras.layers", "StringLookup", {"name": "planted", "vocabulary": "/etc/passwd"}
            ),
            "vocabulary-url": hostile.layer(
                "keras.layers", "StringLookup", {"name": "planted", "vocabulary": "http://127.0.0.1:1/v"}
            ),
            "vocabulary-of-text": hostile.layer(
                "keras.layers", "TextVectorization", {"name": "planted", "vocabulary": "gs://a/b"}
            ),
            "get-file": hostile.layer("keras.utils", "get_file"),
            "model-from": hostile.layer("keras.models", "function", "load_model"),
            "custom": hostile.layer("keras.layers", "Dense", registered_name="mine>Dense"),
            "activation": hostile.layer(
                "keras.layers",
                "Dense",
                {"name": "d", "units": 1, "activation": hostile.layer("os", "function", "system")},
            ),
        }.items()
    },
)

# -- C27, C28: HDF5 ----------------------------------------------------------------------------------------------------
cases("C27", "needs_consent", "runs", {"whole-h5": lambda folder, _: hostile.whole_h5(folder / "m.h5")})
cases(
    "C27",
    "needs_consent",
    "runs",
    {"whole-h5-with-lambda": lambda folder, _: hostile.whole_h5(folder / "m.h5", hostile.sequential(LAMBDA))},
)
cases(
    "C27",
    "model_refused",
    "holds weights, but not the model",
    {"weights-h5": bytes_in("m.h5", lambda _: hostile.hdf5())},
)
cases(
    "C27",
    "model_refused",
    "could lead to another file",
    {
        "external-link": lambda folder, _: hostile.whole_h5(
            folder / "m.h5", planted=h5py.ExternalLink("/etc/passwd", "/")
        ),
        "soft-link": lambda folder, _: hostile.whole_h5(folder / "m.h5", planted=h5py.SoftLink("/")),
    },
)


@case("C27-external-storage", "model_refused", "another file")
def _external_storage(folder: Path, canary: Path) -> Path:
    file = hostile.whole_h5(folder / "m.h5")
    with h5py.File(file, "a") as opened:
        opened.create_dataset("planted", (100,), "u1", external=[("/etc/passwd", 0, 100)])
    return file


@case("C27-virtual-dataset", "model_refused", "another file")
def _virtual(folder: Path, canary: Path) -> Path:
    file = hostile.whole_h5(folder / "m.h5")
    layout = h5py.VirtualLayout((100,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (100,), "u1")
    with h5py.File(file, "a") as opened:
        opened.create_virtual_dataset("planted", layout)
    return file


@case("C27-huge-attribute", "model_corrupt", "cut off or damaged")
def _attribute(folder: Path, canary: Path) -> Path:
    with h5py.File(folder / "m.h5", "w", libver="latest") as file:
        file.create_group("model_weights")
        file.attrs.create("model_config", np.array([b"x" * 60_000] * 300, "S60000"))
    return folder / "m.h5"


cases(
    "C28",
    "model_corrupt",
    "declares more than",
    {
        "huge-in-keras": lambda folder, _: hostile.keras_file(
            folder / "m.keras", hostile.sequential(), hostile.hdf5(1 << 50)
        ),
        "huge-in-h5": bytes_in("m.h5", lambda _: hostile.hdf5(1 << 50)),
    },
)
cases(
    "C28",
    "model_corrupt",
    "",
    {
        "deep-config": lambda folder, _: hostile.keras_file(folder / "m.keras", b'{"a":' * 5000 + b"1" + b"}" * 5000),
        "weights-cut-off": lambda folder, _: hostile.keras_file(
            folder / "m.keras", hostile.sequential(), hostile.hdf5()[:-200]
        ),
    },
)


# -- ONNX: operations and files of its own -----------------------------------------------------------------------------
cases(
    "C29",
    "model_refused",
    "m.onnx is refused: ",
    {
        "onnx-own-domain": lambda folder, _: hostile.onnx(folder / "m.onnx", op="Run", domain="evil.example"),
        "onnx-compiled-blob": lambda folder, _: hostile.onnx(folder / "m.onnx", op="EPContext", domain="com.microsoft"),
        "onnx-python": lambda folder, _: hostile.onnx(folder / "m.onnx", op="PyOp", domain="ai.onnx.contrib"),
        "onnx-weights-above": lambda folder, _: hostile.onnx(
            folder / "m.onnx", weights=hostile.external_weights("../../etc/passwd")
        ),
        "onnx-weights-absolute": lambda folder, _: hostile.onnx(
            folder / "m.onnx", weights=hostile.external_weights("/etc/passwd")
        ),
        "onnx-weights-drive": lambda folder, _: hostile.onnx(
            folder / "m.onnx", weights=hostile.external_weights("C:\\w.bin")
        ),
    },
)
cases(
    "C29",
    "model_corrupt",
    "impossible shape",
    {"onnx-shape": lambda folder, _: hostile.onnx(folder / "m.onnx", dims=[1 << 40, 1 << 40])},
)


@case("C29-onnx-weights-behind-a-link", "model_refused", "leads outside its folder")
def _linked_weights(folder: Path, canary: Path) -> Path:
    (folder / "w.bin").symlink_to("/etc/passwd")
    return hostile.onnx(folder / "m.onnx", weights=hostile.external_weights("w.bin"))


# -- C30: zips ---------------------------------------------------------------------------------------------------------
def _changed(change: Callable[[bytearray], None], suffix: str) -> Write:
    def write(folder: Path, canary: Path) -> Path:
        make = {
            "keras": lambda p: hostile.keras_file(p, hostile.sequential()),
            "pt": lambda p: hostile.torchscript(p),
            "pt2": lambda p: hostile.zipped(p, ("m/archive_format", b"pt2"), ("m/models/model.json", b"{}")),
        }
        file = make[suffix](folder / f"m.{suffix}")
        data = bytearray(file.read_bytes())
        change(data)
        file.write_bytes(data)
        return file

    return write


def _overlap(data: bytearray) -> None:
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 42, 0)


def _encrypt(data: bytearray) -> None:
    data[data.rindex(b"PK\x01\x02") + 8] |= 1


def _truncate(data: bytearray) -> None:
    del data[len(data) // 2 :]


def _claim(data: bytearray) -> None:
    """The last entry says it unpacks to 4 GiB."""
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 24, 0xFFFFFFFE)


def _link(data: bytearray) -> None:
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 38, (stat.S_IFLNK | 0o777) << 16)


def _prefix(data: bytearray) -> None:
    data[:0] = b"#!/bin/sh\ntouch x\n"


for _name, _change in {
    "overlap": _overlap, "encrypted": _encrypt, "cut-off": _truncate, "claims-4-GiB": _claim, "link": _link,
    "script-before-it": _prefix,
}.items():  # fmt: skip
    cases(
        "C30",
        "model_corrupt",
        "m.",
        {f"{_name}-{suffix}": _changed(_change, suffix) for suffix in ("keras", "pt", "pt2")},
    )


def _renamed(name: str) -> Write:
    def write(folder: Path, canary: Path) -> Path:
        stand_in = "x" * len(name)
        file = hostile.zipped(folder / "m.keras", ("config.json", b"{}"), (stand_in, b"1"))
        file.write_bytes(file.read_bytes().replace(stand_in.encode(), name.encode()))
        return file

    return write


cases(
    "C30",
    "model_corrupt",
    "reaches outside of it",
    {
        f"name-{i}": _renamed(n)
        for i, n in enumerate(["../up", "/etc/passwd", "a/../../up", "C:/x", "a\\b", "nul\x00l"])
    },
)


@case("C30-bomb", "model_corrupt", "would unpack to")
def _bomb(folder: Path, canary: Path) -> Path:
    return hostile.zipped(folder / "m.keras", ("config.json", bytes(100 << 20)), packed=True)


@case("C30-bomb-of-one-entry-many-times", "model_corrupt", "m.keras")
def _shared(folder: Path, canary: Path) -> Path:
    """42-style without nesting: every entry of the table points at the same packed bytes."""
    file = hostile.zipped(folder / "m.keras", ("a", bytes(10 << 20)), packed=True)
    data = file.read_bytes()
    start = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    entry = data[start:end]
    entries = b"".join(entry[:-1] + bytes([97 + i % 26]) for i in range(2000))
    tail = bytearray(data[end:])
    struct.pack_into("<HHII", tail, 8, 2000, 2000, len(entries), start)
    file.write_bytes(data[:start] + entries + bytes(tail))
    return file


@case("C30-million-entries", "model_corrupt", "m.keras cannot be opened")
def _million(folder: Path, canary: Path) -> Path:
    """A table of 10^6 entries, written by hand: zipfile would take a minute."""
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    table = entry * 1_000_000
    zip64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, len(table), len(local))
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(local) + len(table), 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (folder / "m.keras").write_bytes(local + table + zip64 + locator + end)
    return folder / "m.keras"


@case("C30-wrong-crc", "model_corrupt", "config.json in it is damaged")
def _crc(folder: Path, canary: Path) -> Path:
    file = hostile.keras_file(folder / "m.keras", hostile.sequential())
    file.write_bytes(file.read_bytes().replace(b'"planted"', b'"plented"').replace(b'"model"', b'"modal"'))
    return file


# -- C34: what is no file ----------------------------------------------------------------------------------------------
@case("C34-fifo", "model_unreadable", "not a regular file")
def _fifo(folder: Path, canary: Path) -> Path:
    os.mkfifo(folder / "m.pt")
    return folder / "m.pt"


cases(
    "C34",
    "model_unreadable",
    "not a regular file",
    {path: lambda folder, _, p=path: Path("/dev") / p for path in ("zero", "random", "null", "tty")},  # type: ignore[misc]  # binds it now
)


@case("C34-link-to-a-device", "model_unreadable", "not a regular file")
def _device(folder: Path, canary: Path) -> Path:
    (folder / "m.keras").symlink_to("/dev/zero")
    return folder / "m.keras"


@case("C34-socket", "model_unreadable", "not a regular file")
def _socket(folder: Path, canary: Path) -> Path:
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket may have 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("m.pt")
    os.chdir(here)
    return folder / "m.pt"


@case("C34-links-in-a-circle", "model_unreadable", "cannot be read")
def _circle(folder: Path, canary: Path) -> Path:
    (folder / "a.pt").symlink_to(folder / "b.pt")
    (folder / "b.pt").symlink_to(folder / "a.pt")
    return folder / "a.pt"


@case("C34-folder-loop", "model_format_unknown", "holds no model")
def _loop(folder: Path, canary: Path) -> Path:
    (folder / "loop").mkdir()
    (folder / "loop" / "again").symlink_to(folder / "loop", target_is_directory=True)
    return folder / "loop"


# -- the test ----------------------------------------------------------------------------------------------------------
def memory_peak(pid: int) -> int:
    """Bytes, the most since :func:`forget_peak`."""
    line = next(s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def forget_peak(pid: int) -> int:
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return psutil.Process(pid).memory_info().rss


def names_of(path: Path) -> set[str]:
    """What a sentence may call it: the file, what it links to, the folder it is alone in, a file of the folder."""
    target = Path(os.path.realpath(path))
    return {path.name, target.name, path.parent.name, *(p.name for p in target.glob("*.*"))}


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_symlink()}


def assert_a_good_model_opens(engine: Engine) -> None:
    assert engine.inspect(EXAMPLES / "wine").result(PATIENCE_S).format == "keras"


def fails(engine: Engine, path: Path, *, trust: bool) -> ModelError:
    with pytest.raises(ModelError) as caught:
        engine.load(path, trust=trust).future.result(PATIENCE_S)
    return caught.value


@pytest.mark.skipif(sys.platform != "linux", reason="needs special files, and reads the memory as Linux shows it")
@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_a_hostile_file_costs_one_sentence(engine: Engine, tmp_path: Path, canary: Path, case: Case) -> None:
    assert_a_good_model_opens(engine)
    pid = engine._inspector.pid
    assert pid is not None
    folder = tmp_path / "files"
    folder.mkdir()
    path = case.write(folder, canary)
    before = files_below(folder)
    app, inspector = psutil.Process().memory_info().rss, forget_peak(pid)

    error = fails(engine, path, trust=False)
    assert (error.code, case.words in error.message) == (case.code, True), error.message
    assert any(name in error.message for name in names_of(path)), error.message
    assert error.message.endswith((".", ").")), error.message
    assert "\n" not in error.message
    assert len(error.message) < 500
    assert "Traceback" not in error.message
    if case.code == "needs_consent":
        assert isinstance(error, ConsentRequired)
        assert error.fingerprint
    else:
        # Consent changes nothing.
        assert fails(engine, path, trust=True).code == case.code

    assert engine._inspector.pid == pid, "the file ended the inspector"
    assert memory_peak(pid) - inspector < INSPECTOR_GROWTH
    assert psutil.Process().memory_info().rss - app < APP_GROWTH
    assert files_below(folder) == before
    assert not canary.exists()
    assert not engine.stats()["models"]
    assert_a_good_model_opens(engine)


def test_every_case_of_the_catalogue_is_here() -> None:
    """C29's SavedModels are in test_saved_model_operations, C32 in test_changing_files."""
    assert {c.name.partition("-")[0] for c in CASES} == {f"C{n}" for n in (*range(23, 31), 34)}
