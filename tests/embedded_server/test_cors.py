"""Pages of other sites: refused, unless the owner named their exact origin."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from engine.settings import ServerSettings
from tests.embedded_server.wsgi import KEYED, LAN, SECRET, Door2Client
from tests.fakes import FakeEngine

LAB = "https://lab.example"
CORS = replace(KEYED, cors_origins=frozenset({LAB}))
PREFLIGHT = {"Origin": LAB, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
ASK = {"Origin": LAB, "Sec-Fetch-Site": "cross-site", "Authorization": f"Bearer {SECRET}"}


@pytest.fixture
def http(engine: FakeEngine) -> Door2Client:
    return Door2Client(engine, rules=CORS)


def test_a_named_origin_may_ask_and_read(http: Door2Client) -> None:
    response = http.ask("OPTIONS", "/predict/wine", headers=PREFLIGHT, environ_overrides=LAN)
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == LAB
    assert response.headers["Access-Control-Allow-Methods"] == "GET, POST"
    assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    response = http.ask("POST", "/predict/wine", data=b"x", headers=ASK, environ_overrides=LAN)
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (200, LAB)
    assert response.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in response.headers


def test_what_a_named_origin_is_refused_it_can_read_too(http: Door2Client) -> None:
    for headers, path, status in (({"Origin": LAB}, "/models", 401), (ASK, "/predict/nobody", 404)):
        method = "POST" if "predict" in path else "GET"
        response = http.ask(method, path, data=b"x", headers=headers, environ_overrides=LAN)
        assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (status, LAB)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://lab.example", "https://lab.example:444", "https://a.lab.example", "null",
               "https://lab.example.evil", "file://"],
)  # fmt: skip
def test_every_other_is_refused_and_told_nothing(http: Door2Client, engine: FakeEngine, origin: str) -> None:
    for method, headers in (("OPTIONS", PREFLIGHT), ("POST", ASK)):
        response = http.ask(
            method, "/predict/wine", data=b"x", headers=headers | {"Origin": origin}, environ_overrides=LAN
        )
        assert response.status_code == 403
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
    assert engine.requests == []


def test_two_origins_are_none(http: Door2Client) -> None:
    headers = [("Origin", LAB), ("Origin", "https://evil.example")]
    assert http.ask("POST", "/predict/wine", data=b"x", headers=headers).status_code == 403


def test_nobody_is_named_by_default(engine: FakeEngine) -> None:
    http = Door2Client(engine, rules=KEYED)
    response = http.ask("OPTIONS", "/predict/wine", headers=PREFLIGHT, environ_overrides=LAN)
    assert response.status_code == 403
    assert ServerSettings().cors_origins == []  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "origin", ["*", "null", "lab.example", "https://lab.example/", "https://*.example", "file://", ""]
)
def test_only_exact_origins_can_be_named(origin: str) -> None:
    with pytest.raises(ValidationError):
        ServerSettings.model_validate({"cors_origins": [origin]})
