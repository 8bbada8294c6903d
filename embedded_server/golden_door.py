"""A model's golden sample asked over the server's own socket: the whole way a client's request goes."""

from __future__ import annotations

import http.client
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from embedded_server.addresses import WILDCARDS, url_host
from embedded_server.own_connection import connect_to_self
from embedded_server.protocols.bodies import LONGEST_TIMEOUT_MS, TIMEOUT_HEADER
from embedded_server.protocols.native import SHARES, WORDS
from engine.golden import GoldenReport, GoldenSample

DOOR = "network"
_GRACE_S = 5.0
_IN_QUERY = frozenset({"top_k", *SHARES, *WORDS})


class NotAnswered(Exception):
    """The question got no answer over the network: the sentence says why."""


def ask_golden(
    host: str, port: int, secret: str, model_id: str, version: str, sample: GoldenSample, pin: str | None = None
) -> GoldenReport:
    """Post the sample to ``/predict/{model_id}`` of the server bound to ``host`` and compare its answer.

    ``secret`` is a key the server takes, ``pin`` that of its certificate where it speaks https. Blocks for at most a
    minute. What goes wrong is in the report.
    """
    try:
        answer = _post(host, port, secret, model_id, sample, pin)
    except (OSError, http.client.HTTPException, NotAnswered) as error:
        return sample.unanswered(error, door=DOOR, version=version)
    return sample.compare(answer, door=DOOR, version=str(answer.get("version", version)))


def _post(host: str, port: int, secret: str, model_id: str, sample: GoldenSample, pin: str | None) -> dict[str, Any]:
    """The answer's body. Raises OSError, HTTPException, NotAnswered."""
    if strange := sorted(set(sample.params) - _IN_QUERY):
        raise NotAnswered(f"The network cannot be asked with the parameter {strange[0]!r}.")
    target = ("::1" if host == "::" else "127.0.0.1") if host in WILDCARDS else host
    headers = {
        "Host": f"{url_host(target)}:{port}",
        "Connection": "close",
        "Authorization": f"Bearer {secret}",
        TIMEOUT_HEADER: str(LONGEST_TIMEOUT_MS),
    }
    if sample.content_type:
        headers["Content-Type"] = sample.content_type
    query = urlencode({name: str(value) for name, value in sample.params.items()})
    connection = connect_to_self(target, port, LONGEST_TIMEOUT_MS / 1000 + _GRACE_S, pin)
    try:
        connection.request("POST", f"/predict/{quote(model_id)}?{query}", body=sample.data, headers=headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    try:
        answer = orjson.loads(body)
    except ValueError as error:
        raise NotAnswered(f"The server answered with status {response.status} and no JSON.") from error
    if response.status != 200 or not isinstance(answer, dict):
        stated = answer.get("error") if isinstance(answer, dict) else None
        sentence = stated.get("message") if isinstance(stated, dict) else None
        raise NotAnswered(str(sentence or f"The server answered with status {response.status}."))
    return answer
