"""The headless program with real models over a real socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.e2e.program import (
    DIGITS_KERAS,
    DIGITS_TORCH,
    PATIENCE_S,
    ROOT,
    WINE,
    Client,
    Program,
    as_json_picture,
    picture,
    run,
    same_answer,
)

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, str]]:
    """One program for the module: all three examples, loaded."""
    program = Program(["serve", DIGITS_KERAS, DIGITS_TORCH, WINE, "--port", "0"], tmp_path_factory.mktemp("home"))
    yield program, program.url()
    assert program.stop() == 0
    assert len(program.stdout) == 1


@pytest.fixture
def client(server: tuple[Program, str]) -> Iterator[Client]:
    client = Client(server[1])
    yield client
    client.close()


@pytest.mark.parametrize("folder", [DIGITS_KERAS, DIGITS_TORCH], ids=lambda f: f.name)
def test_every_sample_is_read_rightly(client: Client, folder: Path) -> None:
    for digit in range(10):
        status, body = client.post(f"/predict/{folder.name}", picture(folder, digit), "image/png")
        assert status == 200
        assert body["model"] == folder.name
        assert body["task"] == "image-classification"
        assert body["predictions"][0]["label"] == str(digit)
        scores = [p["score"] for p in body["predictions"]]
        assert scores == sorted(scores, reverse=True)
        assert set(body["timing_ms"]) == {"decode", "wait", "infer", "post", "total"}


@pytest.mark.parametrize("folder", [DIGITS_KERAS, DIGITS_TORCH], ids=lambda f: f.name)
def test_one_picture_gives_one_answer_in_every_encoding(client: Client, folder: Path) -> None:
    path, data = f"/predict/{folder.name}", picture(folder, 7)
    _, raw = client.post(path, data, "image/png")
    _, octets = client.post(path, data, "application/octet-stream")
    _, encoded = client.post_json(path, as_json_picture(data))
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="../../etc/passwd"\r\n\r\n' + data + b"\r\n"
    _, form = client.post(path, part + b"--x--\r\n", "multipart/form-data; boundary=x")
    for other in (octets, encoded, form):
        assert same_answer(raw["predictions"], other["predictions"])
    status, several = client.post(path, part * 3 + b"--x--\r\n", "multipart/form-data; boundary=x")
    assert status == 200
    assert [r["input"] for r in several["results"]] == [0, 1, 2]
    assert all(r["predictions"][0]["label"] == "7" for r in several["results"])


@pytest.mark.parametrize(("folder", "layout"), [(DIGITS_KERAS, (1, 32, 32, 1)), (DIGITS_TORCH, (1, 1, 32, 32))])
def test_raw_tensors_go_in_and_come_out(client: Client, folder: Path, layout: tuple[int, ...]) -> None:
    tensor = np.random.default_rng(3).uniform(0, 255, layout).astype(np.float32)
    status, body = client.post_json(f"/predict/{folder.name}", {"inputs": {"image": tensor.tolist()}})
    assert status == 200
    output = body["outputs"]["probabilities"]
    assert output["dtype"] == "float32"
    assert output["shape"] == [1, 10]
    assert abs(sum(output["data"][0]) - 1) < 1e-4
    batch = np.concatenate([tensor] * 5)
    _, five = client.post_json(f"/predict/{folder.name}", {"inputs": {"image": batch.tolist()}})
    assert np.allclose(five["outputs"]["probabilities"]["data"], output["data"] * 5, atol=1e-5)


def test_a_table_is_answered_row_by_row(client: Client) -> None:
    table = (WINE / "samples" / "cellar.csv").read_bytes()
    status, body = client.post("/predict/wine", table, "text/csv")
    assert status == 200
    assert len(body["results"]) == len(table.decode().strip().splitlines()) - 1
    header, first, *_ = table.decode().splitlines()
    row = {k: float(v) for k, v in zip(header.split(","), first.split(","), strict=True) if k != "cultivar"}
    _, one = client.post_json("/predict/wine", {"rows": [row]})
    assert one["predictions"][0]["label"] == body["results"][0]["predictions"][0]["label"]


BAD_INPUTS = [
    ("digits-keras", b"", "image/png", 422),
    ("digits-keras", b"this is no picture", "image/png", 422),
    ("digits-torch", picture(DIGITS_TORCH, 1)[:200], "image/png", 422),
    ("digits-keras", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 422),
    ("digits-keras", b"a,b\n1,2\n", "text/csv", 415),
    ("digits-keras", b'{"text": "hello"}', "application/json", 415),
    ("digits-keras", b'{"image": "%%%"}', "application/json", 400),
    ("digits-keras", b'{"image"', "application/json", 400),
    ("digits-keras", b"[]", "application/json", 400),
    ("digits-keras", b'{"inputs": {"image": [[1, 2], [3]]}}', "application/json", 422),
    ("digits-keras", b'{"inputs": {"image": [1, 2, 3]}}', "application/json", 422),
    ("digits-torch", b'{"inputs": {"picture": [[1]]}}', "application/json", 422),
    ("wine", b"alcohol,hue\n1,2\n", "text/csv", 422),
    ("wine", b'{"rows": [{"alcohol": "much"}]}', "application/json", 422),
    ("wine", picture(DIGITS_KERAS, 1), "image/png", 415),
]


@pytest.mark.parametrize(("model", "body", "content_type", "expected"), BAD_INPUTS)
def test_bad_input_is_told_in_a_sentence(
    client: Client, model: str, body: bytes, content_type: str, expected: int
) -> None:
    status, answer = client.post(f"/predict/{model}", body, content_type)
    assert status == expected, answer
    error = answer["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["message"].rstrip().endswith(".")
    assert "Traceback" not in error["message"]
    assert "/" not in error["message"].replace("image/", "").replace("text/", "").replace("application/", "")


def test_unknown_models_and_routes_are_404(client: Client) -> None:
    for path in ("/predict/nobody", "/predict/..%2fwine", "/predict/", "/nothing"):
        status, body = client.post(path, b"x", "image/png")
        assert status == 404
        assert body["error"]["code"] in ("model_not_found", "not_found")


def test_a_killed_worker_is_replaced_without_a_hand(client: Client) -> None:
    before = client.models()["digits-torch"]
    os.kill(before["worker_pid"], signal.SIGKILL)
    status, body = client.post("/predict/digits-torch", picture(DIGITS_TORCH, 4), "image/png")
    if status == 503:  # the death was not yet known when the request was taken: it is told once
        assert body["error"]["code"] == "worker_restarted"
        status, body = client.post("/predict/digits-torch", picture(DIGITS_TORCH, 4), "image/png")
    assert status == 200
    assert body["predictions"][0]["label"] == "4"
    after = client.models()["digits-torch"]
    assert after["worker_pid"] != before["worker_pid"]
    assert after["state"] == "READY"


def test_a_hundred_first_requests_load_a_lazy_model_once(tmp_path: Path) -> None:
    program = Program(["serve", DIGITS_TORCH, WINE, "--lazy", "--port", "0"], tmp_path)
    url = program.url()
    start = threading.Barrier(101, timeout=PATIENCE_S)

    def first_request(digit: int) -> tuple[int, str]:
        client = Client(url)
        start.wait()
        status, body = client.post("/predict/digits-torch", picture(DIGITS_TORCH, digit % 10), "image/png")
        client.close()
        return status, body["predictions"][0]["label"]

    with ThreadPoolExecutor(100) as pool:
        futures = [pool.submit(first_request, n) for n in range(100)]
        watcher = Client(url)
        assert watcher.get("/health/ready")[0] == 200  # an offered model counts as able to answer
        start.wait()
        assert watcher.get("/health/live")[0] == 200
        bottle = (WINE / "samples" / "one-bottle.csv").read_bytes()
        assert watcher.post("/predict/wine", bottle, "text/csv")[0] == 200
        assert [f.result(PATIENCE_S) for f in futures] == [(200, str(n % 10)) for n in range(100)]
    entry = watcher.models()["digits-torch"]
    watcher.close()
    assert entry["loads"] == 1
    assert entry["requests"] == {"window": 0, "network": 100}
    assert program.stop() == 0


def test_sigterm_answers_what_was_accepted_and_leaves_nothing(tmp_path: Path) -> None:
    program = Program(["serve", DIGITS_TORCH, "--port", "0"], tmp_path)
    url = program.url()
    children = psutil.Process(program.process.pid).children(recursive=True)
    outcomes: list[int] = []
    stop = threading.Event()

    def keep_asking() -> None:
        client = Client(url)
        while not stop.is_set():
            try:
                outcomes.append(client.post("/predict/digits-torch", picture(DIGITS_TORCH, 1), "image/png")[0])
            except OSError:
                return  # refused before it was accepted
        client.close()

    threads = [threading.Thread(target=keep_asking) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(outcomes) < 40:
        assert program.process.poll() is None
        threads[0].join(0.01)
    code = program.stop()
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert code == 0
    assert set(outcomes) <= {200, 503}
    assert outcomes.count(200) >= 40
    assert not [child for child in children if child.is_running()]
    with socket.socket() as again:
        host, port = url.removeprefix("http://").split(":")
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((host, int(port)))


def test_a_taken_port_ends_with_3_and_names_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        program = run(["serve", DIGITS_TORCH, "--lazy", "--port", str(port)], tmp_path)
    assert program.process.returncode == 3
    assert program.stdout == []
    assert str(port) in "\n".join(program.stderr)


def test_a_made_key_is_told_once_on_stderr_and_opens_the_network_door(tmp_path: Path) -> None:
    program = Program(["serve", DIGITS_TORCH, "--lazy", "--port", "0", "--host", "0.0.0.0"], tmp_path)
    url = program.url()
    assert "127.0.0.1" not in url or len(psutil.net_if_addrs()) == 1
    here = f"http://127.0.0.1:{url.rsplit(':', 1)[1]}"
    local = Client(here)
    assert local.get("/models")[0] == 200  # with a made key, callers from this computer need none
    keys = [line for line in program.stderr if "key" in line.lower()]
    assert len(keys) == 1
    stranger = Client(here, caller="127.0.0.2")
    assert stranger.get("/models")[0] == 401
    assert stranger.post("/predict/digits-torch", picture(DIGITS_TORCH, 1), "image/png")[0] == 401
    assert stranger.get("/health/live")[0] == 200
    colleague = Client(here, key=keys[0].split()[-1], caller="127.0.0.2")
    status, body = colleague.post("/predict/digits-torch", picture(DIGITS_TORCH, 1), "image/png")
    assert (status, body["predictions"][0]["label"]) == (200, "1")
    for client in (local, stranger, colleague):
        client.close()
    assert program.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("command", [["serve", "--lazy"], ["predict"], ["inspect"]], ids=lambda c: c[0])
def test_a_model_that_is_none_is_one_sentence_and_exit_2(tmp_path: Path, command: list[str]) -> None:
    bad = {
        "missing.keras": None,
        "empty.keras": b"",
        "broken.pt": b"PK\x03\x04 and then nothing",
        "notes.txt": b"hello",
        "cut.keras": (DIGITS_KERAS / "model.keras").read_bytes()[:5000],
    }
    for name, content in bad.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        arguments = [command[0], path, *command[1:]]
        if command[0] == "predict":
            arguments.append(DIGITS_KERAS / "samples" / "digit-1.png")
        program = run(arguments, tmp_path)
        assert program.process.returncode == 2, (name, program.stderr)
        assert program.stdout == []
        assert len(program.stderr) == 1, program.stderr
        assert str(path) in program.stderr[0]
        assert "Traceback" not in program.stderr[0]


def test_predict_prints_one_line_an_input(tmp_path: Path) -> None:
    pictures = [DIGITS_TORCH / "samples" / f"digit-{n}.png" for n in (3, 5)]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    program = run(["predict", DIGITS_TORCH, pictures[0], broken, pictures[1], "--json"], tmp_path)
    assert program.process.returncode == 1
    lines = [json.loads(line) for line in program.stdout]
    assert [line["input"] for line in lines] == [str(pictures[0]), str(broken), str(pictures[1])]
    assert lines[0]["predictions"][0]["label"] == "3"
    assert lines[1]["error"]["code"].startswith("image")
    assert lines[2]["predictions"][0]["label"] == "5"


def test_importing_the_program_imports_no_framework() -> None:
    import subprocess
    import sys

    code = (
        "import sys, main, gui, engine, embedded_server; "
        "assert not {'torch','tensorflow','keras','PIL','h5py','google.protobuf'} & set(sys.modules), "
        "{'torch','tensorflow','keras','PIL','h5py','google.protobuf'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
