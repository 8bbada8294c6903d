"""Raw HTTP for the tests: exactly these bytes, and the answer as it came."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


class Wire:
    """One connection. ``read`` gives the next answer, None where the server closed instead."""

    def __init__(self, port: int, host: str = "127.0.0.1", source: str | None = None) -> None:
        bound = (source, 0) if source else None
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT_S, source_address=bound)
        self.port = port
        self._rest = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Wire:
        self.socket.sendall(data)
        return self

    def request(self, method: str, target: str, body: bytes = b"", **headers: str) -> Wire:
        fields = {"Host": f"localhost:{self.port}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        if body:
            fields["Content-Length"] = str(len(body))
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items()), "", ""]
        return self.send("\r\n".join(lines).encode("latin-1") + body)

    def read(self, *, head_only: bool = False) -> Answer | None:
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return None
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        length = 0 if head_only else int(headers["content-length"])
        while len(self._rest) < length:
            if not self._more():
                return None
        body, self._rest = self._rest[:length], self._rest[length:]
        return Answer(int(first.split()[1]), headers, body)

    def answer(self) -> Answer:
        found = self.read()
        assert found is not None, "the server closed without an answer"
        return found

    def closed(self) -> bool:
        """Whether the server has closed, and sent nothing more."""
        return not self._rest and not self._more()

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65_536)
        except ConnectionResetError:
            return False
        self._rest += data
        return bool(data)
