"""Run within a network namespace (unshare(1)): serve the network while its addresses come and go.

    python -m tests.embedded_server.network_moves FOLDER off|self-signed

Prints ``moved 20 times`` at the end; an assertion that does not hold ends it.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from embedded_server import controller as controller_module
from embedded_server.controller import ServerController
from embedded_server.own_connection import connect_to_self
from engine.serving_types import ServerScope, ServerState
from engine.settings import ServerSettings
from tests.embedded_server.conftest import listening
from tests.fakes import FakeEngine

BOUND_S = 5.0
"""Within so long a new address is served, and a gone one no more."""
MOVES = 20


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def link(name: str, *addresses: str) -> None:
    ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-far")
    ip("link", "set", f"{name}-far", "up")
    ip("link", "set", name, "up")
    for address in addresses:
        ip("addr", "add", f"{address}/24", "dev", name)


class Moves:
    def __init__(self, folder: Path, tls: str) -> None:
        self.controller = ServerController(FakeEngine(), ServerSettings.model_validate({"tls": tls, "port": 0}), folder)
        self.tls = tls == "self-signed"
        self.port = 0
        self.pin: str | None = None
        self.news = threading.Condition()
        self.controller.subscribe(self._on_state)

    def _on_state(self, state: ServerState) -> None:
        with self.news:
            self.news.notify_all()

    def status(self, address: str, host: str = "") -> tuple[int, str]:
        connection = connect_to_self(address, self.port, 10, self.pin)
        try:
            connection.request("GET", "/health/live", headers={"Host": f"{host or address}:{self.port}"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def serves(self, *addresses: str) -> None:
        """Wait until exactly these are served beside loopback, then look whether that is true of the sockets."""
        wanted = {"127.0.0.1", *addresses}
        scheme = "https" if self.tls else "http"
        urls = {f"{scheme}://{address}:{self.port}" for address in wanted}
        until = time.monotonic() + BOUND_S
        with self.news:
            while {url.url for url in self.controller.state.urls} != urls:
                left = until - time.monotonic()
                assert left > 0, (self.controller.state.urls, urls)
                self.news.wait(left)
        assert listening() == {(address, self.port) for address in wanted}, listening()
        for address in wanted:
            assert self.status(address)[0] == 200, address
            assert self.status("127.0.0.1", host=address)[0] == 200, "its Host is let in"


def main(folder: Path, tls: str) -> None:
    ip("link", "set", "lo", "up")
    link("home", "10.20.0.1")
    link("wg0", "10.30.0.1")
    controller_module.WATCH_EVERY_S = 0.1  # what is waited for here are 30 rounds of it
    moves = Moves(folder, tls)
    state = moves.controller.start(ServerScope.NETWORK, 0)
    moves.port = state.port
    moves.pin = state.certificate.pin if state.certificate is not None else None
    assert (moves.pin is not None) == moves.tls
    moves.serves("10.20.0.1")
    assert {i.name: (str(i.kind), i.chosen) for i in moves.controller.interfaces()} == {
        "home": ("network", True), "wg0": ("vpn", False),
    }  # fmt: skip
    fingerprints: set[Any] = set()
    failures: list[object] = []
    ended = threading.Event()

    def ask_all_along() -> None:
        while not ended.wait(0.02):
            try:
                if (status := moves.status("127.0.0.1")[0]) != 200:
                    failures.append(status)
            except OSError as error:
                failures.append(error)

    asking = threading.Thread(target=ask_all_along)
    asking.start()
    try:
        old = "10.20.0.1"
        for number in range(2, MOVES + 2):
            new = f"10.20.0.{number}"
            ip("addr", "del", f"{old}/24", "dev", "home")
            if number % 2:  # with a while of no network at all
                moves.serves()
            ip("addr", "add", f"{new}/24", "dev", "home")
            moves.serves(new)
            assert moves.status("127.0.0.1", host=old)[0] == 403, "the old address names us no more"
            certificate = moves.controller.state.certificate
            if certificate is not None:
                assert certificate.pin == moves.pin
                fingerprints.add(certificate.fingerprint)
            old = new
    finally:
        ended.set()
        asking.join()
    assert not failures, failures
    assert len(fingerprints) == (MOVES if moves.tls else 0)
    chosen = ServerSettings.model_validate({"tls": tls, "port": 0, "interfaces": ["wg0"]})
    moves.controller.apply(chosen)
    moves.serves("10.30.0.1")
    ip("link", "del", "wg0")
    moves.serves()
    assert [i.name for i in moves.controller.interfaces() if i.chosen] == ["wg0"]
    moves.controller.stop()
    assert listening() == set()
    sys.stdout.write(f"moved {MOVES} times\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
