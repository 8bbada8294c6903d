"""The application over the fake engine, asked through WSGI: no socket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from embedded_server.access import AccessRules, KeyDigest, key_digest
from embedded_server.addresses import LOOPBACK_NAMES, host_rules
from embedded_server.app import create_app
from embedded_server.door import Door
from tests.embedded_server.conftest import settings
from tests.fakes import FakeEngine

SECRET = "canary-" + "k" * 36
HOSTS, ORIGINS = host_rules((*LOOPBACK_NAMES, "192.168.1.24"), 8765)
RULES = AccessRules(HOSTS, ORIGINS)
KEYED = replace(RULES, keys=(KeyDigest("window", key_digest(SECRET)),), key_required=True)
BASE = "http://localhost:8765"
LAN = {"REMOTE_ADDR": "192.168.1.77"}


class Door2Client:
    """A client that speaks to our Host, and the door behind it."""

    def __init__(self, engine: FakeEngine, rules: AccessRules = RULES, **changes: Any) -> None:
        values = settings(**changes)
        self.door = Door(rules, requests_inside=values.requests_inside)
        self.app = create_app(engine, values, door=self.door)
        self.client: FlaskClient = self.app.test_client()

    def ask(self, method: str, path: str, **options: Any) -> TestResponse:
        return self.client.open(path, method=method, base_url=BASE, **options)

    def post(self, path: str = "/predict/digits-keras", data: bytes = b"picture", **options: Any) -> TestResponse:
        options.setdefault("content_type", "image/png")
        return self.ask("POST", path, data=data, **options)


def code(response: TestResponse) -> str:
    assert response.content_type == "application/json"
    error = response.get_json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["message"].endswith(".")
    assert len(error["request_id"]) == 16
    return str(error["code"])
