"""Who is measured: Deskside and its peers, how each is started, and how each wants to be asked."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.environments import NotInstalled, environment
from benchmarks.load import BadAnswers, Load
from benchmarks.load import run as ask
from benchmarks.models import (
    BATCH_CAP,
    BENCH,
    BOUNDARY,
    TOLERANCE,
    bodies,
    opened,
    references,
    shape,
    softmax,
    v2_binary_head,
)

ROOT = Path(__file__).resolve().parents[1]
START_S = 180.0
SETTLE_S, SETTLE_EVERY_S, SETTLED_TURNS = 120.0, 0.25, 3
"""At most so long, looking so often, until a started server rested so many times in a row."""
RESTS = 0.3
"""Share of a core up to which a server counts as at rest."""
FORM = f"multipart/form-data; boundary={BOUNDARY.decode()}"
KEY = "b" * 43


@dataclass(frozen=True)
class Question:
    """How a server wants one kind of input."""

    path: str
    body: str  # a wire form of ``models.bodies``
    answer: str  # a form of ``load.FORMS``
    headers: dict[str, str] = field(default_factory=dict)
    softmax: bool = False  # the answer holds probabilities where the references are logits


@dataclass(frozen=True)
class Settings:
    """One way to start a server. ``name`` stands in the tables."""

    name: str
    env: dict[str, str] = field(default_factory=dict)
    prepared: bool = False
    models: str = "sml"  # for which of them it is worth a try


@dataclass(frozen=True)
class Server:
    name: str
    environment: str  # of environments.py; empty: Deskside's own
    command: tuple[str, ...]  # after the environment's Python; "{port}" is filled in
    questions: dict[str, Question]  # by kind: json, v2-binary, raw, jpeg
    documented: Settings = Settings("as documented")
    sweep: tuple[Settings, ...] = ()
    prepared_sweep: tuple[Settings, ...] = ()

    def ways(self, model: str, prepared: bool = False) -> tuple[Settings, ...]:
        """What is worth a try with a model: as documented first, then the sweep."""
        every = self.prepared_sweep if prepared else (self.documented, *self.sweep)
        return tuple(way for way in every if model in way.models)


def _plain(raw_type: str = "application/octet-stream") -> dict[str, Question]:
    return {
        "json": Question("/json", "json", "scores", {"Content-Type": "application/json"}),
        "raw": Question("/raw", "raw", "scores", {"Content-Type": raw_type}),
        "jpeg": Question("/jpeg", "jpeg", "scores", {"Content-Type": "image/jpeg"}),
    }


def _form(json_path: str, raw_path: str, jpeg_path: str) -> dict[str, Question]:
    return {
        "json": Question(json_path, "json", "scores", {"Content-Type": "application/json"}),
        "raw": Question(raw_path, "raw-multipart", "scores", {"Content-Type": FORM}),
        "jpeg": Question(jpeg_path, "jpeg-multipart", "scores", {"Content-Type": FORM}),
    }


def _sweep(*ways: dict[str, str], prepared: bool = False) -> tuple[Settings, ...]:
    """Settings named after what they set."""
    words = {
        "BENCH_WORKERS": "workers",
        "BENCH_THREADS": "threads",
        "OMP_NUM_THREADS": "torch threads",
        "BENCH_BATCH": "batch",
    }
    return tuple(
        Settings(
            ", ".join(f"{words[k]} {v}" for k, v in way.items() if k in words) or "defaults",
            way,
            prepared,
            _models(way),
        )
        for way in ways
    )


def _models(way: dict[str, str]) -> str:
    """S is too small for PyTorch's threads and gains from larger batches; for M and L, what only spares hops between
    threads or processes makes no difference, and one thread leaves cores idle."""
    if way.get("BENCH_BATCH") == "32" or way.get("BENCH_WORKERS") == "0" or way.get("BENCH_THREADS") in ("1", "8"):
        return "s"
    return "ml" if way.keys() & {"OMP_NUM_THREADS", "BENCH_BATCH"} else "sml"


CORES = os.cpu_count() or 1
WORKERS = tuple({"BENCH_WORKERS": str(number)} for number in sorted({2, CORES}) if 1 < number <= CORES)
TORCH = ({"OMP_NUM_THREADS": str(CORES)},) if CORES > 1 else ()
CAP = {"BENCH_BATCH": str(BATCH_CAP)}
BATCHES = (CAP, {"BENCH_BATCH": "32"})
POOL = {"BENCH_POOL": "1"}
V2 = "/v2/models/bench/infer"
HEAD_LENGTH = "Inference-Header-Content-Length"
QUIET_BENTO = {"BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false api_server.metrics.enabled=false"}
JSON_TYPE = {"Content-Type": "application/json"}


def _bento(service: str) -> tuple[str, ...]:
    return ("-m", "bentoml", "serve", f"benchmarks.peers.{service}:Service", "--host=127.0.0.1", "--port={port}")


PEERS = (
    Server(
        "FastAPI, model on the loop", "fastapi", ("-m", "benchmarks.peers.fastapi_server"), _plain(),
        sweep=_sweep(*WORKERS, *TORCH), prepared_sweep=_sweep({}, *WORKERS, prepared=True),
    ),
    Server(
        "Flask + waitress tutorial", "flask", ("-m", "benchmarks.peers.flask_server"), _plain(),
        Settings("as documented", {"BENCH_THREADS": "4"}),
        _sweep(*({"BENCH_THREADS": threads} for threads in "128"), *({"BENCH_THREADS": "4"} | way for way in TORCH)),
        _sweep({"BENCH_THREADS": "2"}, {"BENCH_THREADS": "4"}, prepared=True),
    ),
    Server(
        "FastAPI, thread pool", "fastapi", ("-m", "benchmarks.peers.fastapi_server"), _plain(),
        Settings("as documented", POOL), _sweep(*(way | POOL for way in (*WORKERS, *TORCH))),
        _sweep(POOL, *(way | POOL for way in WORKERS), prepared=True),
    ),
    Server(
        "MLServer", "mlserver", ("-m", "benchmarks.peers.mlserver_server"),
        {
            "json": Question(V2, "v2-json", "v2", JSON_TYPE),
            "raw": Question(V2, "raw-base64", "v2", JSON_TYPE),
            "jpeg": Question(V2, "jpeg-base64", "v2", JSON_TYPE),
        },
        sweep=_sweep({"BENCH_WORKERS": "0"}, *WORKERS, *BATCHES),
        prepared_sweep=_sweep(CAP, *(way | CAP for way in WORKERS), prepared=True),
    ),
    Server(
        "LitServe", "litserve", ("-m", "benchmarks.peers.litserve_server"), _form("/predict", "/predict", "/predict"),
        sweep=_sweep(*WORKERS, *BATCHES), prepared_sweep=_sweep(CAP, *(way | CAP for way in WORKERS), prepared=True),
    ),
    Server(
        "BentoML", "bentoml", _bento("bentoml_server"), _form("/json", "/raw", "/jpeg"),
        sweep=(*_sweep(*WORKERS), Settings("access log and metrics off", QUIET_BENTO, models="s")),
        prepared_sweep=_sweep({}, *WORKERS, prepared=True),
    ),
    Server(
        "BentoML, batching", "bentoml", _bento("bentoml_batching"),
        {
            "json": Question("/json", "rows-json", "rows", JSON_TYPE),
            "raw": Question("/raw", "raw-multipart", "rows", {"Content-Type": FORM}),
            "jpeg": Question("/jpeg", "jpeg-multipart", "rows", {"Content-Type": FORM}),
        },
        Settings("as documented", {"BENCH_BATCH": "100"}),
        _sweep(*BATCHES, *({"BENCH_BATCH": "32"} | QUIET_BENTO | way for way in WORKERS)),
        _sweep(CAP, *(way | CAP for way in WORKERS), prepared=True),
    ),
    Server(
        "Ray Serve", "ray", ("-m", "benchmarks.peers.ray_server"),
        {kind: Question("/", q.body, q.answer, q.headers) for kind, q in _plain().items()},
        sweep=_sweep(*WORKERS), prepared_sweep=_sweep({}, *WORKERS, prepared=True),
    ),
)  # fmt: skip

KERAS_TUTORIAL = Server(
    "model.predict tutorial server", "keras", ("-m", "benchmarks.peers.keras_tutorial"),
    {"jpeg": Question("/predict", "jpeg-multipart", "scores", {"Content-Type": FORM})},
)  # fmt: skip


def deskside(model: str, keyed: bool = False) -> Server:
    """Deskside as it ships: journal, metrics, request log and access rules are on."""
    name = f"bench-{model}"
    native, v2 = f"/predict/{name}", f"/v2/models/{name}/infer"
    keys = {"Authorization": f"Bearer {KEY}"} if keyed else {}
    octets = {"Content-Type": "application/octet-stream"}
    return Server(
        "Deskside" + (" with a key" if keyed else ""), "",
        (str(ROOT / "main.py"), "serve", str(opened(model)), "--trust", "--port", "{port}",
         *(("--key-file", "{home}/keys") if keyed else ())),
        {
            "json": Question(native, "json", "tensors", JSON_TYPE | keys),
            "v2-json": Question(v2, "v2-json", "v2", JSON_TYPE | keys),
            "v2-binary": Question(v2, "v2-binary", "v2-binary", octets | {HEAD_LENGTH: "{v2_head}"} | keys),
            "raw": Question(v2, "raw", "v2-binary", octets | {HEAD_LENGTH: "0"} | keys),
            "jpeg": Question(
                native + "?top_k=10", "jpeg", "labelled", {"Content-Type": "image/jpeg"} | keys, softmax=True
            ),
        },
    )  # fmt: skip


class NotStarted(Exception):
    """Why a server did not come up."""


BARE_DOOR = Server("bare door", "", ("-m", "benchmarks.bare_door", "{port}"), {"json": deskside("s").questions["json"]})
"""Deskside's own server with nothing behind it (:mod:`benchmarks.bare_door`)."""


@dataclass
class Running:
    server: Server
    model: str
    port: int
    process: subprocess.Popen[bytes]
    home: Path = ROOT  # its working directory; of Deskside also where its data folder is

    def load(self, kind: str, connections: int, seconds: float, unique: str = "", cpu: int | None = None) -> Load:
        question = self.server.questions[kind]
        found = bodies(self.model, question.body)
        expected = references(self.model)
        if question.softmax and self.model != "keras":
            expected = [softmax(row) for row in expected]
        headers = {name: value.replace("{v2_head}", _v2_head(self.model)) for name, value in question.headers.items()}
        return Load(
            self.port, question.path, str(found.path), found.spans(), expected, question.answer, TOLERANCE, headers,
            unique, connections, seconds, warm_s=min(1.0, seconds), least=2 * connections, cpu=cpu,
        )  # fmt: skip

    def settle(self) -> None:
        """Wait until it rests: Deskside prepares a model in the background, as long as it answers untouched ones."""
        quiet, until = 0, time.monotonic() + SETTLE_S
        before = cpu_seconds(self.process.pid)
        while quiet < SETTLED_TURNS and time.monotonic() < until:
            time.sleep(SETTLE_EVERY_S)
            now = cpu_seconds(self.process.pid)
            quiet = quiet + 1 if now - before < RESTS * SETTLE_EVERY_S else 0
            before = now

    def check_records(self, answers: int) -> None:
        """Of Deskside: its metrics have counted so many answers, and it kept its journal and its log of requests.

        Raises ``BadAnswers``: what was measured was then not Deskside as it ships.
        """
        key = next(iter(self.server.questions.values())).headers.get("Authorization")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/metrics", headers={"Authorization": key} if key else {})
            page = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise BadAnswers(f"{self.server.name} gave no metrics: {error}") from error
        finally:
            connection.close()
        counted = [line for line in page.splitlines() if line.startswith("nv_inference_request_success{")]
        if sum(int(line.rpartition(" ")[2]) for line in counted) < answers:
            raise BadAnswers(f"{self.server.name} counted fewer than {answers} answers: {counted or page[:300]}")
        data = self.home / "data"
        kept = {
            path.name: path.stat().st_size for path in (data / "logs" / "requests.log", *data.glob("journal.sqlite3*"))
        }
        if len(kept) < 2 or kept["requests.log"] == 0 or sum(kept.values()) == kept["requests.log"]:
            raise BadAnswers(f"{self.server.name} kept no journal or no log of requests: {kept}")

    def memory_mb(self) -> float:
        """PSS of the server and everything it started, so that shared pages count once."""
        return sum(pss(process) for process in family(self.process.pid)) / 1e6


def _v2_head(model: str) -> str:
    return str(len(v2_binary_head(shape(model))))


def family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """Of a process and everything it started, those that ended left out."""
    total = 0.0
    for process in family(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(server: Server, model: str, settings: Settings | None = None, cpu: int | None = None) -> Iterator[Running]:
    """A server that has answered its first question rightly and rests; all its processes are gone afterwards."""
    settings = settings or server.documented
    port, home = free_port(), Path(tempfile.mkdtemp(prefix="deskside-bench-"))
    (home / "keys").write_text(KEY + "\n")
    (home / "keys").chmod(0o600)
    python = environment(server.environment) if server.environment else Path(sys.executable)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "BENCH_"))}
    env |= {"DESKSIDE_HOME": str(home), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    if server.environment:
        env |= {
            "BENCH_MODEL": model, "BENCH_PORT": str(port), "BENCH_PREPARED": str(int(settings.prepared)),
            "OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
            "BENTOML_HOME": str(BENCH / "bentoml"),
            "BENCH_KERAS": str(opened("keras") / "model.keras"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        } | settings.env  # fmt: skip
    command = [str(python), *(part.format(port=port, home=home) for part in server.command)]
    if cpu is not None:
        command = ["taskset", "--cpu-list", str(cpu), *command]
    log = (home / "log").open("wb")
    process = subprocess.Popen(command, env=env, cwd=home, stdout=log, stderr=log, start_new_session=True)
    try:
        started = Running(server, model, port, process, home)
        _await(started, home)
        started.settle()
        yield started
    finally:
        stop(process)
        log.close()
        shutil.rmtree(home, ignore_errors=True)


def _await(run: Running, home: Path) -> None:
    """Until one question is answered. Two busy cores make a start slow, so only the end of patience is an error."""
    kind = next(iter(set(run.server.questions) & ({"json"} if run.model == "s" else {"jpeg"})))
    load = run.load(kind, 1, 1.0)
    start, end = load.spans[0]
    with open(load.bodies, "rb") as file:
        file.seek(start)
        body = file.read(end - start)
    until = time.monotonic() + START_S
    said = "nothing"
    while time.monotonic() < until:
        if run.process.poll() is not None:
            said = f"exit {run.process.returncode}"
            break
        try:
            connection = http.client.HTTPConnection("127.0.0.1", run.port, timeout=30)
            connection.request("POST", load.path, body, load.headers)
            answer = connection.getresponse()
            said = f"{answer.status} {answer.read()[:300]!r}"
            if answer.status == 200:
                return
        except (OSError, http.client.HTTPException) as error:
            said = str(error)
        finally:
            connection.close()
        time.sleep(0.1)
    log = (home / "log").read_text(errors="replace")
    raise NotStarted(f"{run.server.name} did not answer: {said}. {' '.join(log.split())[-600:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and whatever it started, politely first."""
    members = family(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGINT if "ray" in str(process.args) else signal.SIGTERM)
    _, alive = psutil.wait_procs(members, timeout=15)
    for member in alive:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=15)
    process.wait()


def main(names: list[str]) -> int:
    """Start each peer (those whose name holds a given word) and ask it everything for a moment."""
    failed = 0
    for server in (*PEERS, KERAS_TUTORIAL):
        if names and not any(name.lower() in server.name.lower() for name in names):
            continue
        for model in ("keras",) if server is KERAS_TUTORIAL else ("s", "m"):
            began = time.monotonic()
            try:
                with running(server, model) as run:
                    took = time.monotonic() - began
                    for kind in server.questions.keys() & ({"json"} if model == "s" else {"raw", "jpeg"}):
                        found = ask(run.load(kind, 8, 1.0))
                        found.check(f"{server.name}, {model}, {kind}")
                        print(
                            f"{server.name}, {model}, {kind}: started in {took:.1f} s, {found.rate:.0f}/s", flush=True
                        )
            except (NotInstalled, NotStarted, BadAnswers) as error:
                failed += 1
                print(f"FAILED: {server.name}, {model}: {error}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
