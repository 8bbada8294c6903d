"""Valid requests of every protocol, and ways to spoil them: fields, bodies, single bytes, where they are cut.

Everything follows from one number: :func:`make` gives the same bytes and cuts for the same seed.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tests.fuzz.mutations import EXTREMES
from tests.trust.catalogue import CASES, DIGITS, V2, WINE, picture, v2

HOST = "door.example:81"
"""Of a proxy in front, so that a case has the same bytes whatever port the server has."""
KEY = "fuzz-key-0123456789-0123456789-0123456789ab"
SMUGGLED = "smuggled"
"""The model that only requests within bodies name."""
TFS, TFS_WINE = "/v1/models/digits-keras:predict", "/v1/models/wine:classify"
COLUMNS = ("alcohol", "malic_acid", "hue")
SIDES = (1, 8, 8, 1)


@dataclass
class Sent:
    """A request in parts. ``fields`` without Host, Authorization and Content-Length, which :meth:`wire` adds."""

    method: str
    target: str
    body: bytes = b""
    fields: list[tuple[str, str]] = field(default_factory=list)
    chunked: bool = False

    def wire(self, length: int | None = None) -> bytes:
        """Its bytes; ``length`` is a lie about the body."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {HOST}", f"Authorization: Bearer {KEY}"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        body = self.body
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
            parts = [self.body[at : at + 100] for at in range(0, len(self.body), 100)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        elif self.body or self.method == "POST":
            lines.append(f"Content-Length: {len(self.body) if length is None else length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def npy(array: object) -> bytes:
    out = io.BytesIO()
    np.save(out, np.asarray(array))
    return out.getvalue()


def npz(**arrays: object) -> bytes:
    out = io.BytesIO()
    np.savez(out, **{name: np.asarray(array) for name, array in arrays.items()})
    return out.getvalue()


def binary_v2(
    datatype: str, shape: tuple[int, ...], data: bytes, **more: object
) -> tuple[bytes, list[tuple[str, str]]]:
    """A body of the binary extension, and the field that says how much of it is JSON."""
    tensor = {
        "name": "image", "shape": list(shape), "datatype": datatype, "parameters": {"binary_data_size": len(data)},
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor]} | more).encode()
    return head + data, [("Inference-Header-Content-Length", str(len(head)))]


def form(*parts: tuple[str, bytes]) -> tuple[bytes, list[tuple[str, str]]]:
    body = b""
    for number, (kind, data) in enumerate(parts):
        where = f'form-data; name="f{number}"; filename="a.png"'
        head = f"--cut\r\nContent-Disposition: {where}\r\nContent-Type: {kind}\r\n\r\n"
        body += head.encode() + data + b"\r\n"
    return body + b"--cut--\r\n", [("Content-Type", "multipart/form-data; boundary=cut")]


def _valid() -> dict[str, Sent]:
    json_ = [("Content-Type", "application/json")]
    png, pixels = picture("L", "PNG"), np.full(SIDES, 0.5, np.float32)
    text64 = base64.b64encode(png).decode()
    examples = {"alcohol": [2.0], "malic_acid": 3}
    row = dict.fromkeys(COLUMNS, 1.5)
    numbers, encoded = binary_v2("FP32", SIDES, pixels.tobytes(), id="1", parameters={"binary_data_output": True})
    wanted = {"outputs": [{"name": "probabilities", "parameters": {"classification": 2, "binary_data": True}}]}
    picked = v2(list(SIDES), pixels.ravel().tolist())
    inner = Sent("POST", f"/predict/{SMUGGLED}", b"x").wire()
    one, one_head = form(("image/png", png))
    two, two_head = form(("image/png", png), ("text/plain", b"no picture"))
    bytes_, bytes_head = binary_v2("BYTES", (1,), len(png).to_bytes(4, "little") + png, **wanted)
    return {
        "image": Sent("POST", DIGITS, png, [("Content-Type", "image/png")]),
        "image-of-no-type": Sent("POST", f"{DIGITS}?top_k=2&threshold=0.1", png),
        "image-in-chunks": Sent("POST", DIGITS, png, [("Content-Type", "image/png")], chunked=True),
        "image-drawn": Sent("POST", DIGITS, png, [("Accept", "image/png"), ("X-Request-Timeout-Ms", "5000")]),
        "json-image": Sent("POST", DIGITS, json.dumps({"image": text64}).encode(), json_),
        "json-inputs": Sent("POST", DIGITS, json.dumps({"inputs": {"image": pixels.tolist()}}).encode(), json_),
        "json-rows": Sent("POST", WINE, json.dumps({"rows": [row, row]}).encode(), json_),
        "csv": Sent("POST", WINE, f"{','.join(COLUMNS)}\n1,2,3\n4,5,6\n".encode(), [("Content-Type", "text/csv")]),
        "npy": Sent("POST", DIGITS, npy(pixels), [("Content-Type", "application/x-npy")]),
        "npz": Sent("POST", DIGITS, npz(image=pixels), [("Content-Type", "application/x-npz")]),
        "form": Sent("POST", DIGITS, one, one_head),
        "form-of-two": Sent("POST", DIGITS, two, two_head),
        "v2": Sent("POST", V2, picked, json_),
        "v2-binary": Sent("POST", V2, numbers, encoded),
        "v2-binary-bytes": Sent("POST", V2, bytes_, bytes_head),
        "v2-raw": Sent("POST", V2, png, [("Inference-Header-Content-Length", "0")]),
        "v2-packed": Sent("POST", V2, gzip.compress(picked, mtime=0), [*json_, ("Content-Encoding", "gzip")]),
        "v2-unpacked": Sent("POST", V2, picked, [*json_, ("Accept-Encoding", "gzip")]),
        "tfs-rows": Sent("POST", TFS, json.dumps({"instances": pixels.tolist()}).encode()),
        "tfs-columns": Sent("POST", TFS, json.dumps({"inputs": {"image": pixels.tolist()}}).encode()),
        "tfs-b64": Sent("POST", TFS, json.dumps({"instances": [{"image": {"b64": text64}}]}).encode()),
        "tfs-classify": Sent("POST", TFS_WINE, json.dumps({"context": {"hue": 1}, "examples": [examples]}).encode()),
        "waits": Sent("POST", DIGITS, png, [("Expect", "100-continue")]),
        "waits-for-nothing": Sent("GET", "/models", fields=[("Expect", "100-continue")]),
        "models": Sent("GET", "/models"),
        "head": Sent("HEAD", "/docs"),
        "page": Sent("GET", "/", fields=[("Sec-Fetch-Site", "none"), ("Origin", f"http://{HOST}")]),
        "metrics": Sent("GET", "/metrics"),
        "v2-metadata": Sent("GET", "/v2/models/digits-keras"),
        "v2-index": Sent("POST", "/v2/repository/index", b"{}", json_),
        "tfs-status": Sent("GET", "/v1/models/wine/versions/1/metadata"),
        "carries-another": Sent("POST", WINE, f"{','.join(COLUMNS)}\n1,2,3\n".encode() + inner.replace(b",", b";")),
    }  # fmt: skip


VALID = _valid()
NOT_200 = {"carries-another": 422, "v2-index": 403}
"""Of the valid ones, those that hold something to be refused."""
FROM_THE_CATALOGUE = [case for case in CASES if 0 < len(case.raw or case.body) < 4000]
INNER = Sent("POST", f"/predict/{SMUGGLED}", b"x").wire()
TOKENS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"%2f", b"\xff", b"\r\n ", b"0\r\n\r\n",
    b"\r\nTransfer-Encoding: chunked", b"\r\nContent-Length: 0", b"\r\nContent-Length: 3", b"\r\nExpect: 100-continue",
    b"\r\nHost: evil.example", b"\r\nConnection: close", b"\r\nConnection: keep-alive", b"\r\nOrigin: null",
    b"\r\nContent-Encoding: gzip", b"\r\nX-Request-Timeout-Ms: 0", b"\r\nInference-Header-Content-Length: 5",
    b" HTTP/1.0", b" HTTP/2.0", b"HEAD ", b"OPTIONS ", b"{", b"[", b'"', b"null", b"NaN", b"-1", b"1e999", b"--cut",
    b"99999999999999999999", b"\x93NUMPY", b"PK\x05\x06", INNER,
)  # fmt: skip
FIELDS = (
    ("Content-Encoding", "gzip"), ("Content-Encoding", "br"), ("Content-Type", "application/json; charset=\xe9"),
    ("Content-Type", "multipart/form-data; boundary="), ("Content-Type", "multipart/form-data; boundary=cut"),
    ("Content-Type", "application/x-npy"), ("Content-Type", "application/x-npz"), ("Content-Type", "text/csv"),
    ("Content-Type", "application/vnd.apache.parquet"), ("Content-Type", "image/svg+xml"), ("Content-Type", "\x80"),
    ("Inference-Header-Content-Length", "0"), ("Inference-Header-Content-Length", "9999999999"),
    ("Inference-Header-Content-Length", "-1"), ("Inference-Header-Content-Length", "12"),
    ("X-Request-Timeout-Ms", "1"), ("X-Request-Timeout-Ms", "60001"), ("Accept", "image/png;q=\xb9"),
    ("Accept-Encoding", "gzip;q=nan"), ("Accept", ",;=" * 30), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site"),
    ("Authorization", "Bearer x"), ("Host", "evil.example"), ("Expect", "100-continue"), ("Expect", "other"),
    ("Connection", "close"), ("Upgrade", "h2c"), ("Range", "bytes=0-"), ("Cookie", "a=b"), ("If-None-Match", "*"),
    ("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "gzip, chunked"),
    ("X", "y" * 5000),
)  # fmt: skip
TARGETS = (
    DIGITS, WINE, V2, TFS, "/v1/models/wine:regress", "/v2/models/wine/infer",
    "/v2/models/digits-keras/versions/1/infer",
    "/v2/models/digits-keras/versions/9/infer", "/v1/models/digits-keras/labels/stable:predict", f"{DIGITS}?top_k=0",
    f"{DIGITS}?threshold=nan", f"{DIGITS}?version={'x' * 65}", f"{DIGITS}?version=9", f"{DIGITS}?top_k=1&top_k=2",
    f"{DIGITS}?aggregation_strategy=x", "/predict/nobody", "/predict/", "//", "/pair",
    "/v2/repository/models/wine/load",
    "*", f"http://{HOST}/models", "/models?" + "x" * 3000, "/" + "y" * 9000, "/predict/%00", "/v1/models/x:y",
)  # fmt: skip
VALUES = (
    "null", "true", "[]", "{}", "-1", "1e999", "1.5", '""', '"x"', "18446744073709551616", "-9223372036854775809", "0",
    "[[],[1]]", '{"b64":"x"}', '{"b64":1}', "[" * 200, "NaN", '"\\ud800"', "9" * 400, '["a",1]', "1e-400", '"BYTES"',
    '"FP16"', '"BOOL"', "[0]", "[0,4611686018427387904,8]", "4611686018427387904", "[true]", "1048577",
    "[" * 270 + "]" * 270, '{"a":' * 300 + "1" + "}" * 300,
)  # fmt: skip
"""What takes the place of a value in JSON."""


@dataclass(frozen=True)
class Case:
    """What one seed is: its requests' names, all bytes, and where they are cut."""

    seed: int
    names: tuple[str, ...]
    data: bytes
    cuts: tuple[int, ...]


def make(seed: int) -> Case:
    """One to three requests on a connection, most of them spoiled."""
    rng = random.Random(seed)
    names = [rng.choice(tuple(VALID)) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    data = b"".join(_spoiled(rng, VALID[name]) for name in names)
    if rng.random() < 0.5:
        data = _bytes_changed(rng, data)
    cuts = [rng.randrange(1, max(2, len(data))) for _ in range(rng.choice((0, 1, 1, 3, 8)))]
    if rng.random() < 0.4:  # behind the first head: what it announces comes later
        cuts.append(data.find(b"\r\n\r\n") + 4)
    return Case(seed, tuple(names), data, tuple(cuts))


def _spoiled(rng: random.Random, valid: Sent) -> bytes:
    sent = Sent(valid.method, valid.target, valid.body, list(valid.fields), valid.chunked)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        rng.choice(_WAYS)(rng, sent)
    lie = None
    if rng.random() < 0.08:
        lie = max(0, len(sent.body) + rng.choice((-len(sent.body), -1, 1, -len(INNER), 40_000, 1 << 40)))
    return sent.wire(lie)


def _json_value(rng: random.Random, sent: Sent) -> None:
    """Another value for one of its JSON's; the length of a binary body's JSON follows, most of the time."""
    try:
        size = next((int(v) for name, v in sent.fields if name.startswith("Inference")), None)
        value = json.loads(sent.body[:size])
    except ValueError:
        _body_bytes(rng, sent)
        return
    places: list[tuple[list[object] | dict[str, object], object]] = []
    level: list[object] = [value]
    while level:
        inner = level.pop()
        if isinstance(inner, dict | list):
            keys = list(inner) if isinstance(inner, dict) else list(range(min(len(inner), 3)))
            places += [(inner, key) for key in keys]
            level += [inner[key] for key in keys]  # type: ignore[index]  # a key of its own
    if not places:
        return
    container, key = rng.choice(places)
    container[key] = "@HERE@"  # type: ignore[index,call-overload]  # as above
    changed = json.dumps(value).encode().replace(b'"@HERE@"', rng.choice(VALUES).encode(), 1)
    sent.body = changed + (sent.body[size:] if size is not None else b"")
    if size and rng.random() < 0.9:
        sent.fields = [(n, str(len(changed)) if n.startswith("Inference") else v) for n, v in sent.fields]


def _body_bytes(rng: random.Random, sent: Sent) -> None:
    sent.body = _bytes_changed(rng, sent.body)


def _body_of_another(rng: random.Random, sent: Sent) -> None:
    other = rng.choice(list(VALID.values()))
    sent.body = rng.choice((other.body, rng.choice(FROM_THE_CATALOGUE).body, INNER, sent.body + INNER, b""))
    if rng.random() < 0.5:
        sent.fields = list(other.fields)


def _field(rng: random.Random, sent: Sent) -> None:
    sent.fields.insert(rng.randint(0, len(sent.fields)), rng.choice(FIELDS))


def _no_field(rng: random.Random, sent: Sent) -> None:
    if sent.fields:
        sent.fields.pop(rng.randrange(len(sent.fields)))


def _target(rng: random.Random, sent: Sent) -> None:
    sent.target = rng.choice(TARGETS)


def _method(rng: random.Random, sent: Sent) -> None:
    sent.method = rng.choice(
        ("GET", "HEAD", "HEAD", "HEAD", "POST", "OPTIONS", "PUT", "TRACE", "CONNECT", "BREW", "post", "P\xd6ST")
    )


def _refused(rng: random.Random, sent: Sent) -> None:
    """A head that is refused before its body is read, and a body of other requests."""
    sent.method, sent.chunked = "POST", rng.random() < 0.3
    sent.fields.append(rng.choice((("Origin", "null"), ("Host", "evil.example"), ("Sec-Fetch-Site", "cross-site"))))
    sent.body = INNER * rng.randint(1, 4)


def _coding(_: random.Random, sent: Sent) -> None:
    sent.chunked = not sent.chunked


_WAYS: tuple[Callable[[random.Random, Sent], None], ...] = (
    _json_value, _json_value, _json_value, _body_bytes, _body_bytes, _body_of_another, _field, _field, _no_field,
    _target, _method, _method, _coding, _refused,
)  # fmt: skip


def _bytes_changed(rng: random.Random, before: bytes) -> bytes:
    """Some bytes of it changed, put in, taken out or cut off; most of them near its beginning."""
    data = bytearray(before)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, min(len(data), 250) if rng.random() < 0.7 else len(data))
        kind = rng.choice(("byte", "bit", "token", "token", "remove", "twice", "cut", "number", "catalogue"))
        length = rng.randint(1, 60)
        if kind == "byte":
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == "bit" and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "token":
            data[at:at] = rng.choice(TOKENS)
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "twice":
            data[at:at] = data[at : at + length]
        elif kind == "cut" and rng.random() < 0.3:
            del data[at:]
        elif kind == "number":
            size = rng.choice((1, 2, 4, 8))
            data[at : at + size] = (rng.choice(EXTREMES) % (1 << 8 * size)).to_bytes(
                size, rng.choice(("little", "big"))
            )
        elif kind == "catalogue":
            other = rng.choice(FROM_THE_CATALOGUE)
            data[at:at] = (other.raw or other.body)[:length]
    return bytes(data)
