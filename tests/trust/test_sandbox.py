"""The sandbox of worker and inspector: what a hostile model tries fails, and what an honest one needs is there.

Every act is also done without the sandbox, where it succeeds: so each of these tests can fail.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import engine.spares as spares_module
from engine.engine import Engine
from engine.errors import EngineError
from engine.prediction import PredictRequest
from engine.settings import Settings, WorkerSettings
from engine.supervisor import COMPILED_PACKAGE, SANDBOX, child_environment, files_of_a_load, sandbox_order
from engine.worker.sandbox import (
    _ARCHITECTURES,
    VARIABLE,
    Order,
    Reached,
    _filter,
    _landlock,
    enter,
    enter_as_ordered,
)
from tests.e2e.program import DIGITS_KERAS, DIGITS_TORCH, EXAMPLES
from tests.engine.engine_harness import PATIENCE_S, fake, loaded, row

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is written for Linux")

MEMORY_MB = 4000
ACTS = ("read", "write", "connect", "spawn", "fork", "allocate", "allocate shared", "read environment", "chmod")


@contextmanager
def engine_at(folder: Path, **worker: Any) -> Iterator[Engine]:
    with Engine(Settings(worker=WorkerSettings.model_validate(worker)), folder=folder) as engine:
        yield engine


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine_at(tmp_path_factory.mktemp("kept"), memory_mb=MEMORY_MB) as engine:
        yield engine


@pytest.fixture(scope="module")
def kept_spares(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine whose loads find a spare, where :func:`attempt` is told of which framework.

    Its threads are fixed: a model that is still being closed would otherwise have a say in what a load needs.
    """
    with engine_at(tmp_path_factory.mktemp("spares"), memory_mb=MEMORY_MB, spare=True, threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine_at(tmp_path_factory.mktemp("free"), sandbox=False) as engine:
        yield engine


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def warm_spare(engine: Engine, framework: str) -> int:
    """The number of a process that has ``framework`` imported and waits for a load."""
    engine._spares._refill(framework)
    spare = engine._spares.kept(framework)
    assert spare is not None
    assert spare.is_warm.wait(4 * PATIENCE_S)
    return spare.client.pid


def attempt(engine: Engine, name: str, argument: str, framework: str | None = None) -> EngineError | None:
    """Why the model's act failed; None where it was done. ``framework``: of the spare that its worker was."""
    number = sum(1 for _ in engine.stats()["models"])
    model = f"{name.replace(' ', '-')}-{number}"
    pid = None if framework is None else warm_spare(engine, framework)
    entry = loaded(engine, fake(model, act=name, act_on=argument))
    assert pid in (None, entry["worker_pid"])
    try:
        request = row(1.0)
        error = engine.predict(PredictRequest(model, request.data, timeout_s=60)).exception(60)
        assert error is None or isinstance(error, EngineError)
        return error
    finally:
        engine.unload(model)


@pytest.mark.parametrize("name", ACTS)
def test_an_act_of_a_hostile_model_fails(
    kept: Engine, kept_spares: Engine, free: Engine, tmp_path: Path, listener: socket.socket, name: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "canary").write_text("canary")
    written = home / "written"
    arguments = {
        "read": str(home / "canary"),
        "write": str(written),
        "connect": f"127.0.0.1:{listener.getsockname()[1]}",
        "spawn": str(written),
        "fork": "",
        "allocate": str(4 * MEMORY_MB * 1_000_000),
        "allocate shared": str(4 * MEMORY_MB * 1_000_000),
        "chmod": str(home / "canary"),
        # A child reads its parent's out of /proc, where it stands as it was at the start.
        "read environment": "HOME=",
    }
    assert attempt(free, name, arguments[name]) is None
    assert written.exists() is (name in ("write", "spawn"))
    written.unlink(missing_ok=True)
    (home / "canary").chmod(0o640)

    for engine, framework in ((kept, None), (kept_spares, "numpy")):
        error = attempt(engine, name, arguments[name], framework)
        assert error is not None
        assert not written.exists()
        if name == "chmod":
            assert (home / "canary").stat().st_mode & 0o777 == 0o640
    # And the process lives on, with an honest model.
    loaded(kept, fake("honest"))
    assert kept.predict(PredictRequest("honest", row(1.0).data)).result(60).outputs is not None


@pytest.mark.real
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_what_a_framework_has_imported_opens_nothing(
    kept_spares: Engine, tmp_path: Path, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was a spare, and read where it liked until its load began, reads what others read, and no more.

    All else it was kept from since its start, as the acts above show.
    """
    monkeypatch.setitem(spares_module._FRAMEWORKS, "fake", framework)
    (tmp_path / "canary").write_text("canary")
    assert attempt(kept_spares, "read", str(tmp_path / "canary"), framework) is not None
    assert attempt(kept_spares, "read environment", "HOME=", framework) is not None


@pytest.mark.real
@pytest.mark.parametrize(
    ("model", "framework"), [(DIGITS_KERAS, "tensorflow"), (DIGITS_TORCH, "torch")], ids=["keras", "torch"]
)
def test_an_honest_model_answers_in_what_was_a_spare(kept_spares: Engine, model: Path, framework: str) -> None:
    pid = warm_spare(kept_spares, framework)
    entry = kept_spares.load(model).future.result(120)
    assert entry["worker_pid"] == pid
    assert entry["sandbox"]["level"] == "full"
    assert entry["sandbox"]["reasons"] == []
    sample = sorted((model / "samples").iterdir())[3]
    assert kept_spares.predict(PredictRequest(entry["id"], sample.read_bytes())).result(60).predictions
    kept_spares.unload(entry["id"])


@pytest.mark.parametrize("name", ["connect", "read"])
def test_no_address_and_no_private_folder_is_reached(kept: Engine, name: str) -> None:
    argument = {"connect": "192.0.2.1:80", "read": str(Path(__file__).resolve())}[name]
    error = attempt(kept, name, argument)
    assert error is not None


@pytest.mark.real
@pytest.mark.parametrize("model", [DIGITS_KERAS, DIGITS_TORCH, EXAMPLES / "shapes-detector"], ids=lambda p: p.name)
def test_an_honest_model_answers_within_it(kept: Engine, model: Path) -> None:
    entry = kept.load(model).future.result(120)
    assert entry["sandbox"] == {
        "level": "full", "files": True, "network": True, "processes": True, "memory": True, "reasons": [],
    }  # fmt: skip
    sample = sorted((model / "samples").iterdir())[3]
    answer = kept.predict(PredictRequest(entry["id"], sample.read_bytes())).result(60)
    assert answer.predictions
    kept.unload(entry["id"])


@pytest.mark.parametrize("bounded", [False, True], ids=["inspector", "with memory bounded"])
def test_it_reads_everything_changes_nothing_and_knows_nobody(tmp_path: Path, bounded: bool) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "file").write_text("read")
    order = Order(None, (str(tmp_path / "own"),), 4_000_000_000 if bounded else None)
    script = f"""
import ctypes, errno, fcntl, json, mmap, os, resource, signal, socket, sys, time
from engine.worker.sandbox import enter_as_ordered
reached = enter_as_ordered()
results = {{}}
def tried(name, act):
    try:
        act()
        results[name] = "done"
    except OSError as error:
        results[name] = errno.errorcode[error.errno]
tried("read", lambda: open({str(tmp_path / "file")!r}).read())
tried("write own", lambda: open({str(tmp_path / "own" / "x")!r}, "w").close())
tried("write", lambda: open({str(tmp_path / "x")!r}, "w").close())
tried("truncate", lambda: os.truncate({str(tmp_path / "file")!r}, 0))
tried("remove", lambda: os.unlink({str(tmp_path / "file")!r}))
tried("rename", lambda: os.rename({str(tmp_path / "file")!r}, {str(tmp_path / "own" / "file")!r}))
tried("link", lambda: os.symlink("/", {str(tmp_path / "link")!r}))
tried("inet", lambda: socket.socket())
tried("unix", lambda: socket.socket(socket.AF_UNIX))
tried("fork", os.fork)
tried("exec", lambda: os.execv("/bin/true", ["true"]))
tried("signal", lambda: os.kill(os.getppid(), 0))
tried("signal the group", lambda: os.kill(0, 0))
tried("signal oneself", lambda: os.kill(os.getpid(), 0))
tried("raise", lambda: signal.raise_signal(signal.SIGCONT))
tried("chmod", lambda: os.chmod({str(tmp_path / "file")!r}, 0o777))
tried("chown", lambda: os.chown({str(tmp_path / "file")!r}, os.getuid(), os.getgid()))
tried("utime", lambda: os.utime({str(tmp_path / "file")!r}))
tried("setxattr", lambda: os.setxattr({str(tmp_path / "file")!r}, "user.x", b""))
with open({str(tmp_path / "file")!r}) as file:
    tried("set flags", lambda: fcntl.ioctl(file, 0x40086602, bytes(8)))
    tried("fchmod", lambda: os.fchmod(file.fileno(), 0o777))
tried("datagrams", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
tried("stream", lambda: [end.close() for end in socket.socketpair()])
tried("memfd", lambda: os.memfd_create("x"))
tried("shared memory", lambda: open("/dev/shm/" + str(os.getpid()), "w"))
tried("shared zeros", lambda: os.open("/dev/zero", os.O_RDWR))
tried("limit own", lambda: resource.prlimit(0, resource.RLIMIT_NOFILE))
tried("limit another", lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE))
tried("set the clock", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
libc = ctypes.CDLL(None, use_errno=True)
def segment():
    if libc.shmget(0, 4096, 0o1600) < 0:
        raise OSError(ctypes.get_errno(), "shmget")
tried("segment", segment)
tried("anonymous", lambda: mmap.mmap(-1, 4096).close())
print(json.dumps([results, reached.to_json(), {VARIABLE!r} in os.environ]))
"""
    environment = child_environment(WorkerSettings(), 1, tmp_path / "own") | {VARIABLE: order.to_text()}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    results, reached, variable = json.loads(done.stdout)
    assert reached["level"] == "full", reached
    assert not variable
    assert results == {
        "read": "done", "write own": "done", "write": "EACCES", "truncate": "EACCES", "remove": "EACCES",
        "rename": "EACCES", "link": "EACCES", "inet": "EACCES", "unix": "EACCES", "fork": "EPERM", "exec": "EPERM",
        "signal": "EPERM", "signal the group": "EPERM", "signal oneself": "done", "raise": "done",
        "chmod": "EPERM", "chown": "EPERM", "utime": "EPERM", "setxattr": "EPERM", "set flags": "EPERM",
        "fchmod": "EPERM", "datagrams": "EPERM", "stream": "done", "memfd": "EPERM", "shared memory": "EACCES",
        "shared zeros": "EACCES", "limit own": "done", "limit another": "EPERM", "set the clock": "EPERM",
        "segment": "EPERM", "anonymous": "EPERM" if bounded else "done",
    }  # fmt: skip
    assert (tmp_path / "file").read_text() == "read"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_process_of_several_threads_is_not_narrowed(tmp_path: Path, threads: int) -> None:
    (tmp_path / "file").write_text("read")
    (tmp_path / "other").write_text("read")
    script = f"""
import threading
from engine.worker.sandbox import NotNarrowed, Order, enter_as_ordered, narrow, where_packages_lie
reached, readable = enter_as_ordered(), where_packages_lie()
assert reached.level == "full", reached
open({str(tmp_path / "file")!r}).close()
if {threads} == 2:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    narrow(reached, readable, Order(({str(tmp_path / "file")!r},), ()))
except NotNarrowed as error:
    print(error)
open({str(tmp_path / "file")!r}).close()
try:
    open({str(tmp_path / "other")!r}).close()
except PermissionError:
    print("kept")
"""
    order = Order(None, (), 4_000_000_000)
    environment = child_environment(WorkerSettings(), 1, tmp_path / "own") | {VARIABLE: order.to_text()}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split(":")[0].strip() == (
        "kept" if threads == 1 else "There are 2 threads already, which the rules would not bind."
    )


@pytest.mark.parametrize(("abi", "kept"), [(1, False), (2, False), (3, True), (6, True)])
def test_a_kernel_that_lets_files_be_emptied_does_not_keep_them(abi: int, kept: bool) -> None:
    """The kernel's answers are stood in for: none of these runs here."""

    class Libc:
        def syscall(self, number: int, *arguments: object) -> int:
            return abi if arguments[0] is None else os.open("/dev/null", os.O_RDONLY) if number == 444 else 0

    libc: Any = Libc()
    if kept:
        _landlock(libc, Order((), ()))
    else:
        with pytest.raises(OSError, match="emptied"):
            _landlock(libc, Order((), ()))


def eights(data: bytes) -> list[bytes]:
    return [data[at : at + 8] for at in range(0, len(data), 8)]


@pytest.mark.parametrize("machine", sorted(_ARCHITECTURES))
def test_the_filter_ends_by_allowing_and_jumps_nowhere_else(machine: str) -> None:
    """Only this machine's was run; of the other one the shape is held, and that it knows the same calls."""
    audit, _, calls = _ARCHITECTURES[machine]
    program = [struct.unpack("=HBBI", part) for part in eights(_filter(audit, calls, 1, False))]
    assert program[-1] == (0x06, 0, 0, 0x7FFF0000)
    for at, (code, if_true, if_false, _) in enumerate(program):
        if code & 0x07 == 0x05:
            assert at + 1 + max(if_true, if_false) < len(program)
    older = {"fork", "vfork", "chmod", "chown", "lchown", "utime", "utimes", "futimesat"}  # not on aarch64
    assert set(_ARCHITECTURES["x86_64"][2]) - set(calls) in (set(), older)
    assert len(set(calls.values())) == len(calls)


def test_no_thread_is_older_than_the_sandbox(tmp_path: Path) -> None:
    """Landlock binds the thread that takes it on and those it starts: a pool from before would be free."""
    script = "import os, engine.worker.sandbox; print(len(os.listdir('/proc/self/task')))"
    environment = child_environment(WorkerSettings(), 4, tmp_path)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_the_order_names_the_files_of_the_load(tmp_path: Path) -> None:
    home = tmp_path / "home"
    spec = fake("m")
    reads, writes = files_of_a_load(spec)
    text = sandbox_order(WorkerSettings(memory_mb=100), home, reads, writes)
    order = Order.from_text(text)
    assert order == Order(tuple(map(str, reads)), (str(home),), 100_000_000)
    assert Order.from_text(sandbox_order(WorkerSettings(), home, None, ())) == Order(None, (str(home),))
    assert SANDBOX == VARIABLE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"reads": 1, "writes": [], "memory_bytes": null}'])
def test_an_order_that_is_none_ends_the_process(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        enter_as_ordered({VARIABLE: text})


def test_what_is_not_reached_is_told() -> None:
    assert enter_as_ordered({}).to_json() == {
        "level": "none", "files": False, "network": False, "processes": False, "memory": False,
        "reasons": ["It was switched off in the settings."],
    }  # fmt: skip
    compiled = enter_as_ordered({VARIABLE: COMPILED_PACKAGE})
    assert (compiled.level, len(compiled.reasons)) == ("none", 1)
    assert enter(Order((), ()), "sunos5").level == "none"
    assert Reached(files=True).level == "partial"
    assert Reached(True, True, True, True).level == "full"


def test_a_worker_that_is_not_kept_says_so(free: Engine) -> None:
    entry = loaded(free, fake("plain"))
    assert entry["sandbox"]["level"] == "none"
    assert os.environ.get(VARIABLE) is None
