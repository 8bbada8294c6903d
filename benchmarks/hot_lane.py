"""What the hot lane gains over Flask's view: requests a second, latency, and the server's own time for each request.

``python -m benchmarks.hot_lane``. One engine with one worker stands behind two servers, one by the lane and one by the
view; a client in a process of its own asks them in turns, at 1 and at 32 connections, by each protocol, and checks
every answer. The model is a perceptron 8-32-3, so that next to nothing of a request is the model.
``PEER=/path/to/python``, of an environment with fastapi, uvicorn[standard] and torch, adds FastAPI with the same model
on its loop.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from embedded_server.controller import ServeOptions, ServerController
from embedded_server.listening import bind_listener
from engine import Engine
from engine.settings import ServerSettings

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 3 if QUICK else 5
SECONDS = 2.0 if QUICK else 5.0
CONNECTIONS = (1, 32)
KINDS = ("native", "open-inference", "tensorflow-serving")

# In a process of its own: the server's does not import PyTorch, whose objects its garbage collector would walk.
MAKE = """
import json, sys, numpy as np, torch
folder = sys.argv[1]
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)).eval()
torch.jit.save(torch.jit.script(net), folder + "/model.pt")
tensors = lambda kind, name, width: f'[[{kind}]]\\nname = "{name}"\\ndtype = "float32"\\nshape = [-1, {width}]\\n'
with open(folder + "/deskside.toml", "w") as file:
    file.write('format = "torchscript"\\nruntime = "torchscript"\\ntask = "raw-tensors"\\n')
    file.write(tensors("inputs", "x", 8) + tensors("outputs", "y", 3))
rows = np.random.default_rng(1).standard_normal((64, 8)).astype(np.float32)
with torch.inference_mode():
    first = net(torch.from_numpy(rows))[:, 0].tolist()
json.dump([[row, answer] for row, answer in zip(rows.tolist(), first)], open(folder + "/cases.json", "w"))
"""

CLIENT = """
import json, select, socket, sys, time
port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
kind, path = sys.argv[4:]
PATHS = {"native": "/predict/mlp", "open-inference": "/v2/models/mlp/infer",
         "tensorflow-serving": "/v1/models/mlp:predict", "peer": "/predict"}
ROUTE = {"native": lambda a: a["outputs"]["y"]["data"][0][0], "open-inference": lambda a: a["outputs"][0]["data"][0],
         "tensorflow-serving": lambda a: a["predictions"][0][0], "peer": lambda a: a["outputs"][0][0]}[kind]
BODY = {"native": lambda row: {"inputs": {"x": [row]}}, "peer": lambda row: {"inputs": [row]},
        "open-inference": lambda row: {"inputs": [{"name": "x", "shape": [1, 8], "datatype": "FP32", "data": row}]},
        "tensorflow-serving": lambda row: {"instances": [row]}}[kind]
cases = []
for row, answer in json.load(open(path)):
    body = json.dumps(BODY(row))
    head = (f"POST {PATHS[kind]} HTTP/1.1\\r\\nHost: localhost:{port}\\r\\nContent-Type: application/json\\r\\n"
            f"Content-Length: {len(body)}\\r\\n\\r\\n")
    cases.append(((head + body).encode(), answer))
poll, open_now, times, clock = select.poll(), {}, [], time.perf_counter
for number in range(connections):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    open_now[sock.fileno()] = [sock, number, b"", 0.0]
    poll.register(sock.fileno(), select.POLLIN)
began = clock()
def ask(line):
    line[1] = (line[1] + 7) % len(cases)
    line[2], line[3] = b"", clock()
    line[0].sendall(cases[line[1]][0])
for line in open_now.values():
    ask(line)
active = connections
while active:
    found = poll.poll(20_000)
    if not found:
        raise SystemExit("no answer for twenty seconds")
    for number, _ in found:
        line = open_now[number]
        data = line[2] = line[2] + line[0].recv(65536)
        head, end, body = data.partition(b"\\r\\n\\r\\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\\r\\n")[0]):
            continue
        now = clock()
        times.append(now - line[3])
        if not head.startswith(b"HTTP/1.1 200") or abs(ROUTE(json.loads(body)) - cases[line[1]][1]) > 1e-4:
            raise SystemExit(f"a wrong answer: {data!r}")
        if now < began + seconds:
            ask(line)
        else:
            active -= 1
times.sort()
print(json.dumps([len(times), len(times) / (clock() - began), times[len(times) // 2] * 1e3,
                  times[int(len(times) * 0.99)] * 1e3]))
"""

PEER = """
import sys, torch, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
torch.set_num_threads(1)
net = torch.jit.load(sys.argv[2])
app = FastAPI()
class Question(BaseModel):
    inputs: list[list[float]]
@app.post("/predict")
async def predict(question: Question):
    with torch.inference_mode():
        return {"outputs": net(torch.tensor(question.inputs)).tolist()}
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


def ask(port: int, connections: int, kind: str, folder: Path, seconds: float = SECONDS) -> list[float]:
    """Answers, answers a second, median and 99th percentile in milliseconds."""
    cases = str(folder / "cases.json")
    command = [sys.executable, "-c", CLIENT, str(port), str(connections), str(seconds), kind, cases]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    told: list[float] = json.loads(run.stdout)
    return told


@contextmanager
def peer(folder: Path) -> Iterator[int]:
    """FastAPI's port, 0 where there is none."""
    if not (python := os.environ.get("PEER")):
        yield 0
        return
    with bind_listener("127.0.0.1", 0) as listener:
        port = int(listener.getsockname()[1])
    process = subprocess.Popen([python, "-c", PEER, str(port), str(folder / "model.pt")])
    try:
        until = time.monotonic() + 60
        while not any(c.laddr.port == port for c in psutil.Process(process.pid).net_connections("tcp")):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("the peer does not start")
            time.sleep(0.1)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)


def compare(engine: Engine, folder: Path, peer_port: int) -> None:
    ports = {}
    servers = []
    for name in ("view", "lane"):
        settings = ServerSettings.model_validate({"hot_lane": name == "lane"})
        servers.append(ServerController(engine, settings, folder.parent / name))
        ports[name] = servers[-1].start_at(ServeOptions(port=0)).port
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{ROUNDS} rounds of {SECONDS:g} s each, in turns; medians; a server's time is that of its whole process")
    print("| protocol | connections | who | /s | p50 ms | p99 ms | own CPU us | times the view |")
    print("|---|---|---|---|---|---|---|---|")
    own = psutil.Process()
    for kind in KINDS:
        for connections in CONNECTIONS:
            turns = [(name, port, kind) for name, port in ports.items()]
            turns += [("FastAPI", peer_port, "peer")] if peer_port and kind == KINDS[0] else []
            found: dict[str, list[list[float]]] = {name: [] for name, *_ in turns}
            for number in range(ROUNDS + 1):
                for name, port, asked in turns if number % 2 else turns[::-1]:
                    before = sum(own.cpu_times()[:2])
                    told = ask(port, connections, asked, folder, SECONDS if number else 1.0)
                    if number:  # the first turn warms
                        found[name].append([*told, (sum(own.cpu_times()[:2]) - before) / told[0] * 1e6])
            for name, _, _ in turns:
                _, rate, p50, p99, cpu = (statistics.median(column) for column in zip(*found[name], strict=True))
                pairs = zip(found[name], found["view"], strict=True)
                times = statistics.median(mine[1] / view[1] for mine, view in pairs)
                spent = "" if name == "FastAPI" else f"{cpu:.0f}"
                print(
                    f"| {kind} | {connections} | {name} | {rate:.0f} | {p50:.2f} | {p99:.1f} | {spent} | {times:.2f} |"
                )
    for server in servers:
        server.stop()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="deskside-bench-") as name, Engine(folder=Path(name)) as engine:
        folder = Path(name) / "mlp"
        folder.mkdir()
        subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True)
        with peer(folder) as peer_port:
            engine.load(folder, trust=True).future.result(120)
            compare(engine, folder, peer_port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
