"""``docs/embedding.md``, each claim: the examples as they stand, served as people serve them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.remote import EngineClient
from engine.settings import Settings
from tests.e2e.program import DIGITS_KERAS, EXAMPLES, PATIENCE_S, ROOT
from tests.ports import free_port

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
HERE = EXAMPLES / "embedding"
DIGIT = (DIGITS_KERAS / "samples" / "digit-7.png").read_bytes()
SHAPES = (EXAMPLES / "shapes-detector" / "samples" / "crowd.png").read_bytes()
ROW = json.dumps({"inputs": {"x": [[1, 2, 3, 4]]}}).encode()
FRAMEWORKS = ("libtensorflow", "_pywrap_tensorflow", "libtorch", "onnxruntime_pybind")
BIN = Path(sys.executable).parent
PAUSE = threading.Event()
"""Never set: what is asked again and again is asked with a pause."""


def ask(
    port: int, method: str, path: str, body: bytes | None = None, kind: str = "image/png", **headers: str
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        sent = {"Content-Type": kind} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, sent if body is not None else {})
        response = connection.getresponse()
        data = response.read()
        is_json = "json" in response.headers.get("Content-Type", "")
        return response.status, json.loads(data) if is_json else data
    finally:
        connection.close()


def is_live(port: int, path: str = "/health/live") -> bool:
    try:
        return ask(port, "GET", path)[0] in (200, 404, 405)
    except OSError:
        return False


@contextlib.contextmanager
def served(command: Sequence[str], port: int, folder: Path, live: str = "/health/live") -> Iterator[psutil.Process]:
    """A server of somebody's, until it answers; ended with everything it started."""
    environment = os.environ | {
        "ENGINE_FOLDER": str(folder),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE))),
        "DESKSIDE_HOME": str(folder / "home"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            list(command), cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not is_live(port, live):
            assert process.poll() is None, (folder / "server.log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the server never answered"
            PAUSE.wait(0.05)
        yield psutil.Process(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[EngineClient]:
    """The engine that a server shares, seen from here."""
    with EngineClient(folder, Settings()) as client:
        yield client


def entry_of(client: EngineClient, model: str) -> dict[str, Any]:
    return next(entry for entry in client.stats()["models"] if entry["id"] == model)


def family(process: psutil.Process) -> list[psutil.Process]:
    """The server's own processes: neither the engine's host nor its children, where this server started it."""
    found, left = [], [process]
    while left:
        each = left.pop()
        found.append(each)
        left += [child for child in each.children() if "engine.host" not in child.cmdline()]
    return found


def holds_no_framework(process: psutil.Process) -> bool:
    maps = Path(f"/proc/{process.pid}/maps")
    return not maps.exists() or not any(name in maps.read_text() for name in FRAMEWORKS)


def best(answer: tuple[int, Any]) -> str:
    assert answer[0] == 200, answer
    return str(answer[1]["predictions"][0]["label"])


# -- Why does importing TensorFlow in Flask cause a hang? --------------------------------------------------------------
def test_a_first_load_holds_nobody_up(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "flask", "--app", str(HERE / "flask_app.py"), "run", "--port", str(port)]
    with served(command, port, tmp_path) as process, ThreadPoolExecutor(4) as pool:
        assert ask(port, "POST", "/predict/shapes-detector", SHAPES)[0] == 200  # another model, loaded
        first = [pool.submit(ask, port, "POST", "/predict/digits-keras", DIGIT) for _ in range(3)]
        seen = 0
        while not any(future.done() for future in first):
            assert ask(port, "GET", "/health/live") == (200, {"live": True})
            assert ask(port, "POST", "/predict/shapes-detector", SHAPES)[0] == 200
            seen += 1
        assert seen >= 3, "live and another model answered while TensorFlow was imported"
        assert [best(future.result(PATIENCE_S)) for future in first] == ["7", "7", "7"]
        assert all(holds_no_framework(each) for each in family(process))
        with watched(tmp_path) as client:
            assert entry_of(client, "digits-keras")["loads"] == 1


# -- How can I load a TensorFlow model only once in a Flask application? -----------------------------------------------
def test_thirty_two_threads_load_once(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "flask", "--app", str(HERE / "flask_app.py"), "run", "--port", str(port)]
    with served(command, port, tmp_path), ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: ask(port, "POST", "/predict/digits-keras", DIGIT), range(32)))
        assert {best(answer) for answer in answers} == {"7"}
        with watched(tmp_path) as client:
            entry = entry_of(client, "digits-keras")
            assert (entry["loads"], entry["requests"]["window"]) == (1, 32)


def test_the_reloader_loads_nothing_again(tmp_path: Path) -> None:
    port = free_port()
    app = tmp_path / "my_app.py"
    app.write_text("from flask_app import app\n")
    command = [sys.executable, "-m", "flask", "--app", str(app), "run", "--debug", "--port", str(port)]
    with served(command, port, tmp_path) as process, watched(tmp_path) as client:
        assert best(ask(port, "POST", "/predict/digits-keras", DIGIT)) == "7"
        before = entry_of(client, "digits-keras")["worker_pid"]
        children = {child.pid for child in process.children()}
        app.write_text("from flask_app import app\napp.config['CHANGED'] = True\n")
        deadline = time.monotonic() + PATIENCE_S
        while not ({child.pid for child in process.children()} - children and is_live(port)):
            assert time.monotonic() < deadline, "the reloader never started the application again"
            PAUSE.wait(0.05)
        assert best(ask(port, "POST", "/predict/digits-keras", DIGIT)) == "7"
        entry = entry_of(client, "digits-keras")
        assert (entry["loads"], entry["worker_pid"]) == (1, before)


@pytest.mark.skipif(os.name != "posix", reason="gunicorn needs fork")
def test_preloaded_workers_of_gunicorn_load_once(tmp_path: Path) -> None:
    port = free_port()
    command = [str(BIN / "gunicorn"), "--preload", "--workers", "3", "--bind", f"127.0.0.1:{port}", "flask_app:app"]
    with served(command, port, tmp_path) as process, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: ask(port, "POST", "/predict/digits-keras", DIGIT), range(36)))
        assert {best(answer) for answer in answers} == {"7"}
        workers = family(process)[1:]
        assert len(workers) == 3
        with watched(tmp_path) as client:
            entry = entry_of(client, "digits-keras")
            assert (entry["loads"], entry["requests"]["window"]) == (1, 36)
            workers[0].kill()  # a web worker dies: the model is not its
            assert best(ask(port, "POST", "/predict/digits-keras", DIGIT)) == "7"
            assert entry_of(client, "digits-keras")["worker_pid"] == entry["worker_pid"]


# -- Why does my PyTorch Flask app terminate after execution? ----------------------------------------------------------
def pytorch_flask(tmp_path: Path, seconds: float) -> tuple[list[str], int]:
    port = free_port()
    return [sys.executable, "-m", "tests.e2e.run_pytorch_flask", str(tmp_path), str(port), str(seconds)], port


def test_the_server_goes_on_after_everything(tmp_path: Path) -> None:
    command, port = pytorch_flask(tmp_path, 3.0)
    with served(command, port, tmp_path) as process:
        assert best(ask(port, "POST", "/predict/digits-torch", DIGIT)) == "7"
        kind = "application/json"
        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(lambda _: ask(port, "POST", "/predict/quick", ROW, kind)[0], range(1000)))
        assert set(codes) == {200}
        assert ask(port, "POST", "/predict/quick", b'{"inputs": {"x": [[1]]}}', kind)[0] == 422
        assert ask(port, "POST", "/predict/digits-torch", b"no picture")[0] == 422
        with socket.create_connection(("127.0.0.1", port)) as rude:
            head = f"POST /predict/slow HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: {kind}\r\n"
            rude.sendall(f"{head}Content-Length: {len(ROW)}\r\n\r\n".encode() + ROW)
        began = time.monotonic()
        slow: list[tuple[int, Any]] = []
        thread = threading.Thread(
            target=lambda: slow.append(ask(port, "POST", "/predict/slow", ROW, kind, X_Request_Timeout_Ms="60000"))
        )
        thread.start()
        assert ask(port, "POST", "/predict/quick", ROW, kind)[0] == 200
        assert not slow, "another model answers while the slow one runs"
        thread.join(PATIENCE_S)
        assert slow[0][0] == 200
        assert time.monotonic() - began >= 3.0
        assert process.is_running()
        assert ask(port, "GET", "/health/live") == (200, {"live": True})
        assert holds_no_framework(process)


@pytest.mark.slow
def test_a_prediction_of_fifty_seconds_is_answered(tmp_path: Path) -> None:
    command, port = pytorch_flask(tmp_path, 50.0)
    with served(command, port, tmp_path), ThreadPoolExecutor(1) as pool:
        kind = "application/json"
        began = time.monotonic()
        slow = pool.submit(ask, port, "POST", "/predict/slow", ROW, kind, X_Request_Timeout_Ms="60000")
        others = 0
        while not slow.done():
            assert ask(port, "POST", "/predict/quick", ROW, kind)[0] == 200
            others += 1
            PAUSE.wait(0.5)
        assert slow.result()[0] == 200
        assert time.monotonic() - began >= 50.0
        assert others > 50
        assert ask(port, "GET", "/health/live") == (200, {"live": True})


def test_an_asyncio_server_awaits_without_waiting(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "asyncio_app:app", "--app-dir", str(HERE), "--port", str(port)]
    with served(command, port, tmp_path) as process, ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, port, "POST", "/predict/digits-keras", DIGIT)
        waits = []
        while not first.done():
            began = time.monotonic()
            assert ask(port, "GET", "/health/live") == (200, {"live": True})
            waits.append(time.monotonic() - began)
        assert best(first.result()) == "7"
        assert len(waits) >= 5
        assert max(waits) < 2.0, "the loop was never held up by the load, which takes seconds"
        assert ask(port, "POST", "/predict/nobody", DIGIT)[0] == 404
        assert holds_no_framework(process)


# -- How to load TensorFlow models only once in a DRF WSGI application? ------------------------------------------------
def test_django_rest_framework_under_waitress(tmp_path: Path) -> None:
    port = free_port()
    command = [str(BIN / "waitress-serve"), "--listen", f"127.0.0.1:{port}", "drf_site.wsgi:application"]
    with served(command, port, tmp_path, live="/predict/x") as process:
        assert best(ask(port, "POST", "/predict/digits-keras", DIGIT)) == "7"
        assert ask(port, "POST", "/predict/nobody", DIGIT)[0] == 404
        assert holds_no_framework(process)


@pytest.mark.skipif(os.name != "posix", reason="gunicorn needs fork")
def test_four_workers_of_gunicorn_share_one_copy(tmp_path: Path) -> None:
    port = free_port()
    command = [str(BIN / "gunicorn"), "--workers", "4", "--bind", f"127.0.0.1:{port}", "drf_site.wsgi"]
    with served(command, port, tmp_path, live="/predict/x") as process, ThreadPoolExecutor(8) as pool:
        pids: set[int] = set()
        deadline = time.monotonic() + PATIENCE_S
        while len(pids) < 4:
            for answer in pool.map(lambda _: ask(port, "POST", "/predict/digits-keras", DIGIT), range(16)):
                assert best(answer) == "7"
                pids.add(answer[1]["pid"])
            assert time.monotonic() < deadline, f"only {pids} answered"
        assert pids == {each.pid for each in family(process)[1:]}
        with watched(tmp_path) as client:
            entry = entry_of(client, "digits-keras")
        assert entry["loads"] == 1
        model = psutil.Process(entry["worker_pid"])
        memory = {pid: psutil.Process(pid).memory_info().rss for pid in pids}
        assert max(memory.values()) < model.memory_info().rss / 2, "the framework and the weights are in one process"
        assert all(holds_no_framework(psutil.Process(pid)) for pid in pids)
        assert not holds_no_framework(model) or not Path("/proc").exists()
