"""The real program in a process of its own, and a plain HTTP client for it."""

from __future__ import annotations

import base64
import http.client
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DIGITS_KERAS = EXAMPLES / "digits-keras"
DIGITS_TORCH = EXAMPLES / "digits-torch"
WINE = EXAMPLES / "wine"
PATIENCE_S = 120.0
"""The bound of every wait on the real program: a framework's import on a busy machine takes its time."""


def environment(home: Path, **more: str) -> dict[str, str]:
    return os.environ | {"DESKSIDE_HOME": str(home), "QT_QPA_PLATFORM": "offscreen", "PYTHONUNBUFFERED": "1"} | more


class Program:
    """``main.py`` with arguments, its lines on stdout and stderr to wait for."""

    def __init__(self, arguments: Sequence[str | Path], home: Path, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(home, **env),
            cwd=home,
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._first: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.stdout, self._first), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.stderr, None), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, lines: list[str], announce: queue.SimpleQueue[str | None] | None) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                if announce is not None:
                    announce.put(lines[-1])
        if announce is not None:
            announce.put(None)

    def url(self) -> str:
        """The address of the one line that ``serve`` prints."""
        line = self._first.get(timeout=PATIENCE_S)
        assert line is not None, f"the program ended: {self.stderr}"
        assert line.startswith("Serving at http://"), line
        return line.removeprefix("Serving at ")

    def wait(self) -> int:
        code = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()


def run(arguments: Sequence[str | Path], home: Path) -> Program:
    """The program, run to its end."""
    program = Program(arguments, home)
    program.wait()
    return program


class Client:
    """One connection to a server of ours. ``caller``: the address to call from; 127.0.0.2 is a stranger to the door,
    which calls only 127.0.0.1 and ::1 this computer."""

    def __init__(self, url: str, key: str | None = None, caller: str = "127.0.0.1") -> None:
        self.address = url.removeprefix("http://")
        self.key = key
        self.connection = http.client.HTTPConnection(self.address, timeout=PATIENCE_S, source_address=(caller, 0))

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, JSON body (empty where it is none) and headers in lower case."""
        sent = dict(headers or {})
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        self.connection.request(method, path, body, sent)
        response = self.connection.getresponse()
        data = response.read()
        received = {k.lower(): v for k, v in response.getheaders()}
        is_json = received.get("content-type", "").startswith("application/json")
        return response.status, json.loads(data) if is_json else {}, received

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        status, body, _ = self.ask("GET", path)
        return status, body

    def post(self, path: str, body: bytes, content_type: str, **headers: str) -> tuple[int, dict[str, Any]]:
        status, answer, _ = self.ask("POST", path, body, {"Content-Type": content_type} | headers)
        return status, answer

    def post_json(self, path: str, value: Any) -> tuple[int, dict[str, Any]]:
        return self.post(path, json.dumps(value).encode(), "application/json")

    def models(self) -> dict[str, dict[str, Any]]:
        _, body = self.get("/models")
        return {m["id"]: m for m in body["models"]}

    def close(self) -> None:
        self.connection.close()


def picture(folder: Path, digit: int) -> bytes:
    return (folder / "samples" / f"digit-{digit}.png").read_bytes()


def as_json_picture(data: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(data).decode()}


def same_answer(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> bool:
    """Equal, but for the last digits of a score, which may move once the model is prepared (docs/decisions/015)."""
    if [entry["label"] for entry in one] != [entry["label"] for entry in other]:
        return False
    pairs = zip(one, other, strict=True)
    return all(math.isclose(a["score"], b["score"], rel_tol=1e-4, abs_tol=1e-6) for a, b in pairs)
