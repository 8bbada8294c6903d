"""Who is let in, against a plain list of what was agreed: a machine that makes, ends and limits keys, guesses them,
names origins, blocks and pauses, lets time pass and asks under many names.

The expectations are those of the contract ("HTTP, native routes", "Keys") and of ``SECURITY.md``: a verdict read top to
bottom in :meth:`AccessMachine.expected`. What is asked is the real door in front of an application that answers all.
"""

from __future__ import annotations

import base64
import json
import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from embedded_server.access import AccessRules, BadKeyLog
from embedded_server.addresses import host_rules
from embedded_server.door import Door, DoorMiddleware
from embedded_server.key_limits import KeyLimits
from embedded_server.keys import KeyStore
from engine.errors import SettingsInvalid
from tests.fuzz.budget import for_a_while, quick

HOST_NAMES = ("localhost", "127.0.0.1", "[::1]", "192.168.1.24", "desk.local")
GUESSES, GUESS_FOR_S, WINDOW_S = 10, 60.0, 60.0
NAMES = ("robot", "phones", "lab 1")
MODELS = (None, None, ("wine",), ("wine", "digits"), ())
LIMITS = st.sampled_from((None, None, 1, 2, 3))
PEERS: dict[str, str] = {
    "127.0.0.1": "this computer", "::1": "this computer", "::ffff:127.0.0.1": "this computer",
    "127.0.0.2": "127.0.0.2", "192.168.1.77": "192.168.1.77", "192.168.1.78": "192.168.1.78",
    "::ffff:192.168.1.77": "192.168.1.77",
    "2001:db8::1": "2001:db8::/64", "2001:db8::2": "2001:db8::/64", "2001:db8:0:1::1": "2001:db8:0:1::/64",
    "fe80::7%eth0": "fe80::/64",
}  # fmt: skip
"""Addresses to ask from -> whose they are, for counting."""
NEIGHBOURS = (
    ("2001:db8::1", "2001:db8::2"), ("2001:db8::1", "2001:db8:0:1::1"), ("192.168.1.77", "::ffff:192.168.1.77"),
    ("192.168.1.77", "192.168.1.78"),
)  # fmt: skip
ROUTES: dict[tuple[str, str], tuple[str, str]] = {
    ("GET", "/"): ("", ""), ("GET", "/docs"): ("", ""), ("GET", "/health/live"): ("", ""),
    ("GET", "/v2/health/ready"): ("", ""), ("POST", "/pair"): ("", ""), ("GET", "/openapi.json"): ("", ""),
    ("GET", "/models"): ("read", ""), ("HEAD", "/models"): ("read", ""), ("GET", "/metrics"): ("read", ""),
    ("GET", "/v2/models/wine"): ("read", "wine"), ("GET", "/v2/models/stats"): ("read", ""),
    ("GET", "/v1/models/digits/metadata"): ("read", "digits"),
    ("POST", "/v2/repository/models/wine/load"): ("read", "wine"), ("GET", "/pair"): ("read", ""),
    ("POST", "/predict/wine"): ("infer", "wine"), ("POST", "/predict/digits?top_k=1"): ("infer", "digits"),
    ("POST", "/v2/models/wine/infer"): ("infer", "wine"), ("POST", "/v1/models/wine:predict"): ("infer", "wine"),
    ("POST", "/v2/models/stats/infer"): ("infer", "stats"), ("POST", "/models"): ("infer", ""),
    ("OPTIONS", "/predict/wine"): ("read", "wine"), ("DELETE", "/models"): ("read", ""),
}  # fmt: skip
"""What may be asked -> the right that it needs ("" for none) and the model that it names."""
KEYLESS = ("/", "/docs", "/openapi.json", "/health/live", "/v2/health/ready")
NO_ROUTES = ("//predict/wine", "/predict/wine/", "/predict/../models", "/predict/wi%6ee", "/v2/health/../models", "")
OTHER_HOSTS = (
    "LOCALHOST:8765", "192.168.1.24:8765", "proxy.example:8765", "front.example:81", "proxy.example", "evil.example",
    "localhost", "localhost:1", "", " ", None, "localhost:8765, evil", "localhost:8765,localhost:8765",
    "desk.local.:8765", "localhost:8765.evil.example", "front.example:81@evil.example",
)  # fmt: skip
OWN, FOREIGN = ("http://localhost:8765", "HTTP://desk.local:8765"), ("https://a.example", "http://b.example:81")
OTHER_ORIGINS = ("null", "file://", "http://localhost:1", "https://evil.example", "http://localhost:8765, null", "")


@dataclass(frozen=True)
class Key:
    """A key as it was agreed on."""

    name: str
    secret: str
    rights: frozenset[str]
    models: tuple[str, ...] | None
    per_minute: int | None
    at_once: int | None

    def may(self, right: str, model: str) -> bool:
        return right in self.rights and (self.models is None or not model or model in self.models)


@dataclass(frozen=True)
class Question:
    method: str
    target: str
    peer: str
    host: str | None = "localhost:8765"
    origin: str | None = None
    fetch: tuple[str | None, str | None, str | None] = (None, None, None)
    """Sec-Fetch-Site, -Mode and -Dest."""
    authorization: str | None = None
    secret: str | None = None
    """What ``authorization`` shows: None for nothing, "" for what is no key."""
    preflight: bool = False

    def environ(self) -> dict[str, Any]:
        fields = {
            "HTTP_HOST": self.host, "HTTP_ORIGIN": self.origin, "HTTP_AUTHORIZATION": self.authorization,
            "HTTP_SEC_FETCH_SITE": self.fetch[0], "HTTP_SEC_FETCH_MODE": self.fetch[1],
            "HTTP_SEC_FETCH_DEST": self.fetch[2],
            "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST" if self.preflight else None,
        }  # fmt: skip
        given = {name: value for name, value in fields.items() if value is not None}
        return {"REQUEST_METHOD": self.method, "REQUEST_URI": self.target, "REMOTE_ADDR": self.peer} | given

    def headers(self) -> list[tuple[str, str]]:
        names = {name: value for name, value in self.environ().items() if name.startswith("HTTP_")}
        return [(name[5:].replace("_", "-").lower(), value) for name, value in names.items()]


QUESTIONS = st.builds(
    lambda route, **parts: Question(*route, **parts),
    st.sampled_from([*ROUTES] * 3 + [("POST", path) for path in NO_ROUTES]),
    peer=st.sampled_from(("192.168.1.77",) * 4 + tuple(PEERS)),
    host=st.sampled_from(("localhost:8765",) * 20 + OTHER_HOSTS),
    origin=st.sampled_from((None,) * 12 + OWN + FOREIGN + OTHER_ORIGINS),
    fetch=st.sampled_from(
        ((None, None, None),) * 8
        + (("same-origin", "cors", "empty"), ("none", "navigate", "document"), ("cross-site", "navigate", "document"))
        + (("cross-site", "navigate", "iframe"), ("same-site", "no-cors", "image"), ("cross-site", "navigate", None))
        + (("new", "navigate", "document"), ("", None, None))
    ),
    preflight=st.sampled_from((False,) * 5 + (True,)),
)  # fmt: skip


class AccessMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="deskside-access-")
        self.path = Path(self.folder.name) / "keys.json"
        self.stores = [KeyStore(self.path), KeyStore(self.path)]
        """This program's, and that of another one (``deskside keys``)."""
        self.now = 1000.0
        hosts, origins = host_rules(HOST_NAMES, 8765, ("proxy.example", "front.example:81"))
        self.rules = AccessRules(hosts, origins, key_required=True)
        self.door = Door(self.rules, requests_inside=100)
        self.door.bad_keys = BadKeyLog(lambda: self.now)
        self.door.key_limits = KeyLimits(lambda: self.now, lambda: self.now)
        self.inside: Callable[[], None] | None = None
        self.front = DoorMiddleware(self._application, self.door)
        # What was agreed.
        self.keys: dict[str, Key] = {}
        self.ended: list[str] = []
        self.taken_back: list[Key | None] = [None, None]
        self.wrong: dict[str, deque[float]] = {}
        self.blocked_until: dict[str, float] = {}
        self.asked: dict[str, list[float]] = {}
        self.used: dict[str, float] = {}
        self._renew()

    def teardown(self) -> None:
        self.folder.cleanup()

    def _application(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answers all; what happens while it does is ``inside``."""
        if (then := self.inside) is not None:
            then()
        start_response("200 OK", [("Content-Length", "2")])
        return [b"{}"]

    def _renew(self, **changes: Any) -> None:
        """As the controller does it: the door gets the keys of the file, and what is held back."""
        self.rules = replace(self.rules, keys=self.stores[0].digests(), **changes)
        self.door.rules = self.rules

    # -- steps: keys -------------------------------------------------------------------------------------------------
    @rule(
        store=st.sampled_from((0, 0, 1)), name=st.sampled_from(NAMES),
        rights=st.sampled_from((("infer", "read"), ("infer", "read"), ("infer",), ("read",))),
        models=st.sampled_from(MODELS), per_minute=LIMITS, at_once=LIMITS,
    )  # fmt: skip
    def make_key(self, store: int, name: str, rights: tuple[str, ...], **facts: Any) -> None:
        try:
            info = self.stores[store].add(name, rights=frozenset(rights), **facts)
        except SettingsInvalid:
            assert name in self.keys
            return
        assert name not in self.keys
        assert info.secret
        assert len(info.secret) >= 43
        self.keys[name] = Key(name, info.secret, frozenset(rights), **facts)
        self._renew()

    @rule(store=st.sampled_from((0, 0, 1)), name=st.sampled_from(NAMES))
    def end_key(self, store: int, name: str) -> None:
        assert self.stores[store].remove(name) is (name in self.keys)
        if name in self.keys:
            self.taken_back[store] = self.keys.pop(name)
            self.ended.append(self.taken_back[store].secret)
        self._renew()

    @rule(store=st.sampled_from((0, 1)), name=st.sampled_from(NAMES))
    def take_back_the_end(self, store: int, name: str) -> None:
        last = self.taken_back[store]
        may = last is not None and last.name == name and name not in self.keys
        assert self.stores[store].restore(name) is may
        if last is not None and may:
            self.keys[name] = last
            self.taken_back[store] = None
        self._renew()

    @precondition(lambda self: self.keys)
    @rule(store=st.sampled_from((0, 1)), data=st.data())
    def renew_key(self, store: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.keys)))
        info = self.stores[store].renew(name)
        self.ended.append(self.keys[name].secret)
        self.keys[name] = replace(self.keys[name], secret=info.secret or "")
        self._renew()

    @rule(name=st.sampled_from(NAMES), paused=st.booleans())
    def pause_key(self, name: str, paused: bool) -> None:
        names = self.rules.paused_keys
        self._renew(paused_keys=names | {name} if paused else names - {name})

    # -- steps: what the owner holds back, and time ------------------------------------------------------------------
    @initialize(required=st.sampled_from((True, True, True, False)), exempt=st.booleans())
    def begin(self, required: bool, exempt: bool) -> None:
        self._renew(key_required=required, loopback_exempt=exempt)

    @rule(paused=st.sampled_from((False, False, True)))
    def pause(self, paused: bool) -> None:
        self._renew(paused=paused)

    @rule(draining=st.sampled_from((False, False, False, True)))
    def drain(self, draining: bool) -> None:
        self.door.draining = draining

    @rule(address=st.sampled_from(("192.168.1.77", "2001:db8::1", "127.0.0.1")), denied=st.booleans())
    def block(self, address: str, denied: bool) -> None:
        others = self.rules.denied - {address}
        self._renew(denied=others | {address} if denied else others)

    @rule(origin=st.sampled_from(FOREIGN), named=st.booleans())
    def name_an_origin(self, origin: str, named: bool) -> None:
        others = self.rules.cors_origins - {origin}
        self._renew(cors_origins=others | {origin} if named else others)

    @rule(seconds=st.sampled_from((0.5, 1.0, 20.0, 29.0, 59.0, 60.0, 61.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    # -- steps: callers ----------------------------------------------------------------------------------------------
    @rule(questions=st.lists(QUESTIONS, min_size=3, max_size=12), data=st.data())
    def ask(self, questions: list[Question], data: st.DataObject) -> None:
        for question in questions:
            self._ask(self._with_key(question, data))

    @rule(
        routes=st.lists(st.sampled_from([r for r, (right, _) in ROUTES.items() if right]), min_size=2, max_size=8),
        peer=st.sampled_from(("192.168.1.78", "192.168.1.78", "127.0.0.1")), data=st.data(),
    )  # fmt: skip
    def ask_well(self, routes: list[tuple[str, str]], peer: str, data: st.DataObject) -> None:
        """Nothing wrong but, perhaps, the key: deep into what a key may."""
        for route in routes:
            self._ask(self._with_key(Question(*route, peer), data))

    @rule(
        peers=st.sampled_from(NEIGHBOURS) | st.tuples(st.sampled_from(tuple(PEERS))),
        times=st.integers(8, 12), pause=st.sampled_from((0.0, 0.0, 1.0, 6.5, 7.0)),
    )  # fmt: skip
    def guess(self, peers: tuple[str, ...], times: int, pause: float) -> None:
        """From one address, or from two in turn that count as one or as two."""
        for n in range(times):
            peer = peers[n % len(peers)]
            self._ask(Question("GET", "/models", peer, authorization=f"Bearer guess{n}", secret=""))
            self.now += pause

    @precondition(lambda self: "burst" not in self.keys)
    @rule(at_once=LIMITS, per_minute=LIMITS, count=st.integers(2, 5))
    def ask_at_once(self, at_once: int | None, per_minute: int | None, count: int) -> None:
        """One question while another is inside, and so on; of a key for that alone, whose name is used again."""
        self.make_key(0, "burst", ("infer",), models=None, per_minute=per_minute, at_once=at_once)
        secret = self.keys["burst"].secret
        question = Question(
            "POST", "/predict/wine", "192.168.1.78", authorization=f"Bearer {secret}", secret=secret
        )  # fmt: skip
        self._ask_within(question, count, 0)
        self.end_key(0, "burst")

    def _ask_within(self, question: Question, count: int, inside: int) -> None:
        if not count:
            return

        def another() -> None:
            self._ask_within(question, count - 1, inside + 1)

        self._ask(question, inside, another)

    def _with_key(self, question: Question, data: st.DataObject) -> Question:
        """The question as somebody asks it who has a key, an ended one, none or something else."""
        secrets = [key.secret for key in self.keys.values()]
        kind = data.draw(st.sampled_from(("none", "bearer", "bearer", "basic", "ended", "odd", "query")))
        if kind in ("bearer", "basic", "query") and secrets:
            secret = data.draw(st.sampled_from(secrets))
            if kind == "query":  # no place for a key
                return replace(question, target=f"{question.target.partition('?')[0]}?api_key={secret}")
            word = data.draw(st.sampled_from(("Bearer", "bearer", "BEARER")))
            basic = base64.b64encode(f"anybody:{secret}".encode()).decode()
            return replace(
                question, secret=secret, authorization=f"{word} {secret}" if kind == "bearer" else f"Basic {basic}"
            )
        if kind == "ended" and self.ended:
            secret = data.draw(st.sampled_from(self.ended))
            # An end may have been taken back.
            return replace(question, authorization=f"Bearer {secret}", secret=secret)
        if kind == "odd":
            secret = secrets[0] if secrets else "x"
            odd = ("Bearer", "Bearer ", secret, f"Digest {secret}", f"Basic {secret}", "Basic Og==", "", "Bearer \xe9")
            joined = (f"Bearer {secret}, Bearer {secret}", f"Bearer {secret}x", f"Bearer {secret[:-1]}")
            return replace(question, authorization=data.draw(st.sampled_from(odd + joined)), secret="")
        return question

    # -- what is agreed ----------------------------------------------------------------------------------------------
    def expected(self, q: Question, inside: int) -> tuple[int, str]:
        """Status and code of the answer; 200 where it comes to the application. ``inside``: open questions of the
        key."""
        rules = self.rules
        whose = PEERS[q.peer]
        here = whose == "this computer"
        path = q.target.partition("?")[0]
        key = next((key for key in self.keys.values() if key.secret == q.secret), None)
        right, model = ROUTES.get((q.method, q.target), ROUTES.get((q.method, path), ("infer", "")))

        if q.host is None or not q.host.strip() or "," in q.host:
            return 400, "bad_host"
        if q.host.lower() not in {*(f"{name}:8765" for name in (*HOST_NAMES, "proxy.example")), "front.example:81"}:
            return 403, "bad_host"
        address = "127.0.0.1" if q.peer == "::ffff:127.0.0.1" else q.peer.removeprefix("::ffff:")
        if address in rules.denied:
            return 403, "not_allowed"
        if q.origin in rules.cors_origins:
            if q.method == "OPTIONS" and q.preflight:
                return 204, ""
        elif self._from_elsewhere(q, path):
            return 403, "bad_origin"
        keyless = path in KEYLESS or (q.method, path) == ("POST", "/pair") or path.startswith("/v2/health/")
        if rules.key_required and not (here and rules.loopback_exempt) and not keyless:
            if not here and self.now < self.blocked_until.get(whose, 0.0):
                return 429, "key_limit"
            if key is None:
                return 401, "key_required"
        if path in NO_ROUTES:
            return 404, "model_not_found" if path.startswith("/predict/") else "not_found"
        if key is not None and right and (not key.may(right, model) or key.name in rules.paused_keys):
            return 403, "key_rights"
        if rules.paused and not here and right == "infer":
            return 503, "busy"
        if self.door.draining:
            return 503, "draining"
        if key is not None and right == "infer":
            recent = [at for at in self.asked.get(key.name, []) if self.now - at < WINDOW_S]
            if key.per_minute is not None and len(recent) >= key.per_minute:
                return 429, "key_quota"
            if key.at_once is not None and inside >= key.at_once:
                return 429, "key_quota"
        return 200, ""

    def _from_elsewhere(self, q: Question, path: str) -> bool:
        if q.method == "OPTIONS" and q.preflight:
            return True
        if q.origin is not None and q.origin.lower() not in {
            f"http://{name}:8765" for name in (*HOST_NAMES, "proxy.example")
        }:
            return True
        site, mode, dest = q.fetch
        link = q.method == "GET" and path in ("/", "/docs") and mode == "navigate" and dest in (None, "document")
        return site not in (None, "same-origin", "none") and not link

    def _ask(self, q: Question, inside: int = 0, then: Callable[[], None] | None = None) -> None:
        status, code = self.expected(q, inside)
        before = self.door.check(q.method, q.target, q.headers(), q.peer)
        self._remember(q, status, code)
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        self.inside = then

        def start_response(said: str, headers: list[tuple[str, str]], _: object = None) -> Any:
            answers.append((said, headers))

        body = b"".join(self.front(q.environ(), start_response))
        self.inside = None
        ((said, headers),) = answers
        assert int(said[:3]) == status, (said, body, status, code)
        # What the door says to a head before the body is read is what it says to the request.
        assert before.allowed is (status in (200, 204))
        assert before.status == status or status == 200
        self._check_answer(q, status, code, dict(headers), body)

    def _remember(self, q: Question, status: int, code: str) -> None:
        whose = PEERS[q.peer]
        key = next((key for key in self.keys.values() if key.secret == q.secret), None)
        if status == 401 and q.authorization is not None and whose != "this computer":
            times = self.wrong.setdefault(whose, deque(maxlen=GUESSES))
            times.append(self.now)
            if len(times) == GUESSES and times[-1] - times[0] <= GUESS_FOR_S:
                self.blocked_until[whose] = self.now + GUESS_FOR_S
        if key is None:
            return
        if status == 200 or code == "key_quota":
            self.used[key.name] = self.now
        right, _ = ROUTES.get((q.method, q.target), ROUTES.get((q.method, q.target.partition("?")[0]), ("", "")))
        if status == 200 and right == "infer" and key.per_minute is not None:
            self.asked.setdefault(key.name, []).append(self.now)

    def _check_answer(self, q: Question, status: int, code: str, headers: dict[str, str], body: bytes) -> None:
        names = {name.lower() for name in headers}
        foreign = q.origin if q.origin in self.rules.cors_origins else None
        assert headers.get("Access-Control-Allow-Origin") == foreign
        assert foreign or not any(name.startswith("access-control-") for name in names)
        assert "access-control-allow-credentials" not in names
        if status in (200, 204):
            return
        assert headers["Cache-Control"] == "no-store"
        assert q.method != "HEAD" or not body
        if status in (429, 503):
            assert 1 <= int(headers["Retry-After"]) <= 60
        if code == "key_quota" and headers["Retry-After"] != "1":
            asked = next(self.asked[key.name] for key in self.keys.values() if key.secret == q.secret)
            oldest = min(at for at in asked if self.now - at < WINDOW_S)
            assert int(headers["Retry-After"]) == max(1, math.ceil(WINDOW_S - (self.now - oldest)))
        if q.method != "HEAD":
            answer = json.loads(body)["error"]
            assert isinstance(answer, str) or answer["code"] == code
        for key in self.keys.values():
            assert key.secret not in body.decode() + str(headers)
        if status != 404:
            newest = self.door.refusals.newest_first()[0]
            assert newest.client.replace("127.0.0.1", "::1") in (
                q.peer,
                "::1",
                q.peer.removeprefix("::ffff:"),
                "fe80::7",
            )

    # -- what always holds -------------------------------------------------------------------------------------------
    @invariant()
    def the_file_says_what_was_agreed(self) -> None:
        for store in self.stores:
            told = {
                info.name: (frozenset(info.rights), info.models, info.per_minute, info.at_once)
                for info in store.infos()
            }
            assert told == {k.name: (k.rights, k.models, k.per_minute, k.at_once) for k in self.keys.values()}
        if self.path.exists():
            assert self.path.stat().st_mode & 0o777 == 0o600
            text = self.path.read_text()
            assert not any(secret in text for secret in (*self.ended, *(k.secret for k in self.keys.values())))

    @invariant()
    def uses_are_counted(self) -> None:
        assert self.door.key_limits.last_used() == self.used
        assert self.door.inside == 0


def test_access_is_as_agreed() -> None:
    run_state_machine_as_test(AccessMachine, settings=quick(60, stateful_step_count=40))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_access_is_as_agreed_for_long() -> None:
    for_a_while(lambda how: run_state_machine_as_test(AccessMachine, settings=how), 100, stateful_step_count=80)
