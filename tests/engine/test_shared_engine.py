"""One engine for several processes: elected, found, lost, found again; and what crosses between them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import host_channel
from engine.engine import Engine
from engine.errors import ConsentRequired, EngineClosed, EngineLost, Loading, Malformed
from engine.folder_lock import try_lock
from engine.host import EngineHost
from engine.host_channel import ADDRESS_FILE, SOCKET_FILE, Listener, connect
from engine.prediction import Lane, Prediction, PredictRequest, Wire
from engine.protocol import ProtocolError
from engine.remote import EngineClient
from engine.remote_values import pack, unpack
from tests.engine.engine_harness import PATIENCE_S, fake, quick_settings, row

ROOT = Path(__file__).resolve().parents[2]
IDLE_S = 0.5


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        pause.wait(0.01)
    return found


def hosts(folder: Path) -> list[psutil.Process]:
    """The processes that hold the engine of ``folder``, those included that are about to find that another does."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if "engine.host" in command and str(folder) in command and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EngineClient]:
    with EngineClient(tmp_path, quick_settings(), idle_s=IDLE_S) as made:
        yield made
    until(lambda: not hosts(tmp_path), "the host has ended")


def test_clients_that_start_together_share_one_host_and_one_worker(tmp_path: Path) -> None:
    clients = [EngineClient(tmp_path, quick_settings(), idle_s=IDLE_S) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        entries = list(pool.map(lambda c: c.load(fake()).future.result(PATIENCE_S), clients))
    assert len({entry["worker_pid"] for entry in entries}) == 1
    assert clients[0].stats()["models"][0]["loads"] == 1
    until(lambda: len(hosts(tmp_path)) == 1, "one host")
    (host,) = hosts(tmp_path)
    assert [child.pid for child in host.children() if "--inspect" not in child.cmdline()] == [entries[0]["worker_pid"]]
    for each in clients:
        each.close()
        with pytest.raises(EngineClosed):
            each.stats()
    until(lambda: not hosts(tmp_path), "the host has ended")
    assert not psutil.pid_exists(entries[0]["worker_pid"])
    assert not (tmp_path / SOCKET_FILE).exists()


def test_a_host_that_dies_costs_what_was_under_way_and_no_more(client: EngineClient, tmp_path: Path) -> None:
    first = client.load(fake(delay_s=30.0)).future.result(PATIENCE_S)
    (host,) = hosts(tmp_path)
    under_way = client.predict(row(1.0))
    until(lambda: client.stats()["models"][0]["running"] == 1, "the request runs")
    host.kill()
    began = time.monotonic()
    with pytest.raises(EngineLost):
        under_way.result(PATIENCE_S)
    assert time.monotonic() - began < 10.0
    (entry,) = client.stats()["models"]  # another host, which was told of the model
    assert (entry["id"], entry["state"], entry["worker_pid"]) == ("fake", "UNLOADED", None)
    assert hosts(tmp_path)[0].pid != host.pid
    until(lambda: not psutil.pid_exists(first["worker_pid"]), "the old worker is gone with its host")


def test_the_first_request_after_a_death_loads_again(client: EngineClient, tmp_path: Path) -> None:
    before = client.load(fake()).future.result(PATIENCE_S)["worker_pid"]
    hosts(tmp_path)[0].kill()
    until(lambda: not client._link.alive, "the loss is seen")  # type: ignore[union-attr]
    assert client.predict(row(2.0)).result(PATIENCE_S).model == "fake"
    assert client.stats()["models"][0]["worker_pid"] != before


def test_cancelling_crosses(client: EngineClient) -> None:
    client.load(fake(delay_s=0.5, max_batch_size=1)).future.result(PATIENCE_S)
    asked = [client.predict(row(1.0)) for _ in range(5)]
    until(lambda: client.stats()["models"][0]["waiting"] >= 2, "a line")
    assert asked[-1].cancel()
    until(lambda: client.stats()["models"][0]["waiting"] < 3, "it is dropped")
    for future in asked[:-1]:
        future.result(PATIENCE_S)
    assert sorted(str(r.state) for r in client.requests()) == ["answered"] * 4 + ["gone"]


def test_what_cannot_be_sent_is_told(client: EngineClient) -> None:
    with pytest.raises(Malformed, match="cannot be sent"):
        client.predict(PredictRequest("fake", {"x": object()})).result(PATIENCE_S)  # type: ignore[dict-item]
    assert client.stats()["models"] == []


FORK = """
import os, sys
from pathlib import Path
from engine.remote import EngineClient
from tests.engine.engine_harness import fake, quick_settings, row
client = EngineClient(Path(sys.argv[1]), quick_settings(), idle_s=0.5)
mine = client.load(fake()).future.result(60)["worker_pid"]
pids = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        answer = client.predict(row(1.0)).result(60)
        same = client.stats()["models"][0]["worker_pid"] == mine
        os._exit(0 if same and answer.model == "fake" else 1)
    pids.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
assert codes == [0, 0, 0], codes
assert client.predict(row(3.0)).result(60).model == "fake"  # the parent's connection is whole
client.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_client_may_be_forked(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path)], cwd=ROOT, timeout=PATIENCE_S, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    until(lambda: not hosts(tmp_path), "the host has ended")


def test_a_host_ends_when_told(client: EngineClient, tmp_path: Path) -> None:
    client.stats()
    (host,) = hosts(tmp_path)
    host.send_signal(signal.SIGTERM)
    until(lambda: not psutil.pid_exists(host.pid) or host.status() == psutil.STATUS_ZOMBIE, "it ended")


def test_the_lock_has_one_holder(tmp_path: Path) -> None:
    held = try_lock(tmp_path / "lock")
    assert held is not None
    assert try_lock(tmp_path / "lock") is None
    os.close(held)
    again = try_lock(tmp_path / "lock")
    assert again is not None
    os.close(again)
    assert (tmp_path / "lock").stat().st_mode & 0o077 == 0


# -- the channel -------------------------------------------------------------------------------------------------------
@pytest.fixture(params=[True, False], ids=["unix", "loopback"])
def hosted(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host in this process, by either kind of channel."""
    if request.param and not host_channel.has_unix_sockets():
        pytest.skip("this Python has no Unix sockets")
    monkeypatch.setattr(host_channel, "has_unix_sockets", lambda: request.param)
    with Engine(quick_settings(), folder=tmp_path) as engine:
        host = EngineHost(engine, Listener(tmp_path), idle_s=PATIENCE_S)
        thread = threading.Thread(target=host.run)
        thread.start()
        yield tmp_path
        host.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_either_channel_is_for_this_user_alone(hosted: Path) -> None:
    name = SOCKET_FILE if host_channel.has_unix_sockets() else ADDRESS_FILE
    assert (hosted / name).stat().st_mode & 0o077 == 0
    with EngineClient(hosted, quick_settings()) as client:
        client.load(fake()).future.result(PATIENCE_S)
        assert client.predict(row(1.0)).result(PATIENCE_S).model == "fake"


def test_a_wrong_secret_and_nonsense_end_the_connection_alone(hosted: Path) -> None:
    if host_channel.has_unix_sockets():
        caller = connect(hosted)
        caller.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
    else:
        caller = host_channel.socket.create_connection(
            ("127.0.0.1", int((hosted / ADDRESS_FILE).read_text().split('"port":')[1].split(",")[0]))
        )
        caller.sendall(b"0" * host_channel.SECRET_BYTES + b"DSK1")
    caller.settimeout(PATIENCE_S)
    with contextlib.suppress(ConnectionResetError):
        assert caller.recv(1) == b""
    caller.close()
    with EngineClient(hosted, quick_settings()) as client:
        assert client.stats()["models"] == []


@pytest.mark.skipif(not host_channel.has_unix_sockets(), reason="Unix sockets only")
def test_a_host_that_dies_before_it_greets_was_never_reached(tmp_path: Path) -> None:
    """As while a process dies: its callers' ends are closed, its listener still takes calls and answers none."""
    dying = host_channel.socket.socket(host_channel.socket.AF_UNIX)
    dying.bind(str(host_channel.socket_path(tmp_path)))
    dying.listen(1)
    threading.Timer(0.2, dying.close).start()
    with pytest.raises(OSError, match=r"reset|ended"):
        connect(tmp_path)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX only")
def test_a_long_folder_has_its_socket_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_channel.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / ("a" * 120)
    folder.mkdir()
    path = host_channel.socket_path(folder)
    assert len(os.fsencode(path)) < 100 or not str(path).startswith(str(folder))
    own = path.parent
    assert own.stat().st_mode & 0o077 == 0
    own.chmod(0o777)
    with pytest.raises(OSError, match="own folder"):
        host_channel.socket_path(folder)


# -- values ------------------------------------------------------------------------------------------------------------
def crossed(value: Any) -> Any:
    packed, buffers = pack(value)
    return unpack(packed, iter(buffers))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    )
)
def test_values_come_out_as_they_went_in(value: Any) -> None:
    assert crossed(value) == value


def test_requests_answers_and_errors_cross() -> None:
    request = PredictRequest("m", b"\x00\xff", params={"$part": 0, "top_k": 3}, lane=Lane.LAN, wire=Wire.OPEN_INFERENCE)
    assert crossed(request) == request
    tensors = PredictRequest("m", {"x": np.arange(4, dtype=np.int16)})
    np.testing.assert_array_equal(crossed(tensors).data["x"], np.arange(4, dtype=np.int16))
    answer = Prediction("p", "m", "t", {"total": 1.5}, predictions={"image": b"png", "n": float("inf")})
    assert crossed(answer) == answer
    for error in (Loading("Not yet.", retry_after_s=7.5), ConsentRequired("Ask.", fingerprint="ab")):
        back = crossed(error)
        assert (type(back), back.message, back.code) == (type(error), error.message, error.code)
    assert crossed(Loading("Not yet.", retry_after_s=7.5)).retry_after_s == 7.5
    assert crossed(ConsentRequired("Ask.", fingerprint="ab")).fingerprint == "ab"


@pytest.mark.parametrize(
    "value",
    [{"$data": ["Engine", {}]}, {"$enum": ["OSError", "x"]}, {"$call": "os.system"}, {"$data": "x"}, {"$spec": 3},
     {"$data": ["Prediction", {"nothing": 1}]}, {"$map": [1]}],
)  # fmt: skip
def test_only_known_types_come_out(value: Any) -> None:
    with pytest.raises(ProtocolError):
        unpack({"value": value, "parts": []}, iter(()))
