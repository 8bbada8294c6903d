"""The acceptance catalogue C1 to C40 as a table: what is sent over the socket, and what it must cost.

``STATUS`` and ``CODE`` are those of the native routes (contract.md, "HTTP, native routes"; design.md §8 settles where
they differ from the catalogue's own words); protocol routes answer in their protocol's shape. What is no request over a
socket (files, the window, the switch) stands in :data:`ELSEWHERE`.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

HOST, LENGTH = b"@HOST@", b"@LENGTH@"
"""In raw bytes: our Host with its port, and the length of the body in decimal."""
DIGITS = "/predict/digits-keras"
WINE = "/predict/wine"
V2 = "/v2/models/digits-keras/infer"
JSON = {"Content-Type": "application/json"}
BODY_CANARY = b"canary-of-a-body"


@dataclass(frozen=True)
class Case:
    """One request, by its parts or as ``raw`` bytes, and its answer. ``code`` is that of the native envelope, "" for an
    answer in another shape; ``closes``: the connection has to end with it. ``sender``: the address to call from."""

    number: int
    name: str
    status: int
    code: str = ""
    method: str = "POST"
    target: str = DIGITS
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""
    closes: bool = False
    keyed: bool = True
    sender: str = "127.0.0.1"

    @property
    def id(self) -> str:
        return f"C{self.number}-{self.name}"


CASES: list[Case] = []


def add(number: int, name: str, status: int, code: str = "", **parts: object) -> None:
    CASES.append(Case(number, name, status, code, **parts))  # type: ignore[arg-type]  # the fields of Case


def head(
    *lines: bytes, method: bytes = b"POST", target: bytes = DIGITS.encode(), version: bytes = b"HTTP/1.1"
) -> bytes:
    return b"\r\n".join([method + b" " + target + b" " + version, *lines, b"", b""])


# -- C1 to C5, C7: whose page, whose name ------------------------------------------------------------------------------
add(1, "foreign-host", 403, "bad_host", body=b"x", headers={"Host": "evil.example"})
add(
    1, "foreign-host-from-the-network", 403, "bad_host", body=b"x", headers={"Host": "evil.example"}, sender="127.0.0.2"
)
add(2, "no-host", 400, "bad_host", raw=head(method=b"GET", target=b"/models"))
add(2, "two-hosts", 400, "bad_host", raw=head(b"Host: " + HOST, b"Host: " + HOST, method=b"GET", target=b"/models"))
for name, value, status in (
    ("comma", "localhost, evil", 400),
    ("suffix", "localhost.evil.example", 403),
    ("user-part", "localhost@evil", 403),
    ("trailing-dot", "localhost.", 403),
):
    add(2, name, status, "bad_host", body=b"x", headers={"Host": value})
for method in ("GET", "POST", "DELETE", "OPTIONS"):
    add(
        3,
        f"rebinding-{method}",
        403,
        "bad_host",
        method=method,
        target="/models",
        headers={"Host": "rebind.example:80"},
    )
    for origin in ("https://evil.example", "null", "file://", "http://localhost:1"):
        add(4, f"{method}-{origin}", 403, "bad_origin", method=method, target="/models", headers={"Origin": origin})
add(5, "cross-site", 403, "bad_origin", body=b"x", headers={"Sec-Fetch-Site": "cross-site"})
add(5, "same-site", 403, "bad_origin", body=b"x", headers={"Sec-Fetch-Site": "same-site"})
for type_ in ("text/plain", "application/x-www-form-urlencoded"):
    add(6, type_, 415, "unsupported_media_type", target=WINE, body=b'{"rows":[]}', headers={"Content-Type": type_})
add(
    7, "preflight", 403, "bad_origin", method="OPTIONS",
    headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Private-Network": "true"},
)  # fmt: skip

# -- C8, C9: what is not there -----------------------------------------------------------------------------------------
for method, target, status, code in (
    ("GET", "/admin", 404, "not_found"),
    ("POST", "/shutdown", 404, "not_found"),
    ("GET", "/debug", 404, "not_found"),
    ("TRACE", "/", 405, "method_not_allowed"),
    ("PUT", "/models", 405, "method_not_allowed"),
    ("DELETE", DIGITS, 405, "method_not_allowed"),
    ("CONNECT", "localhost:1", 404, "not_found"),
    ("POST", "/v2/repository/models/digits-keras/load", 403, ""),
    ("POST", "/v2/repository/models/digits-keras/unload", 403, ""),
):
    add(8, f"{method}-{target}", status, code, method=method, target=target)
for name in ("../x", "..%2fx", "%252e", "a\\b", "CON", "x%00", "x;y", "http://x/y", ".", "x" * 65):
    add(9, name[:12], 404, "model_not_found", target=f"/predict/{name}", body=b"x")
add(9, "ten-thousand-letters", 414, "uri_too_long", target="/predict/" + "x" * 10_000, closes=True)
add(9, "absolute-form", 404, "not_found", method="GET", target="http://localhost/models")

# -- C10 to C13: JSON and tensors --------------------------------------------------------------------------------------
for depth, status, code in ((33, 422, "invalid_shape"), (101, 422, "invalid_shape"), (100_000, 400, "malformed")):
    nested = b'{"inputs":{"image":' + b"[" * depth + b"1" + b"]" * depth + b"}}"
    add(10, f"depth-{depth}", status, code, body=nested, headers=JSON)
for name, value in (
    ("nan", b"NaN"), ("infinity", b"Infinity"), ("1e999", b"1e999"), ("5000-digits", b"9" * 5000),
    ("surrogate", b'"\\ud800"'),
):  # fmt: skip
    add(11, name, 400, "malformed", target=WINE, body=b'{"rows":[{"alcohol":' + value + b"}]}", headers=JSON)
add(11, "truncated", 400, "malformed", target=WINE, body=b'{"rows":[', headers=JSON)
add(11, "utf-16", 400, "malformed", target=WINE, body='{"rows":[]}'.encode("utf-16"), headers=JSON)


def v2(shape: list[int], data: object, datatype: str = "FP32") -> bytes:
    return json.dumps({"inputs": [{"name": "image", "shape": shape, "datatype": datatype, "data": data}]}).encode()


for name, body in {
    "giant": v2([2**31, 2**31], [1.0]),
    "negative": v2([-1, 28], [1.0]),
    "zero": v2([0], [1.0]),
    "rank-33": v2([1] * 33, [1.0]),
    "mismatch": v2([1, 32, 32, 1], [1.0, 2.0]),
    "datatype": v2([1], [1.0], "FLOAT"),
    "ragged": v2([2, 2], [[1, 2], [3]]),
}.items():
    add(12, name, 400, target=V2, body=body, headers=JSON)
add(12, "native-ragged", 422, "invalid_shape", body=b'{"inputs":{"image":[[1,2],[3]]}}', headers=JSON)
add(13, "a-claim-of-64-mib", 400, target=V2, body=v2([16, 1024, 1024, 1], [1] * 1000, "INT8"), headers=JSON)
add(
    13, "an-array-that-claims-64-mib", 400, "malformed",
    body=b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (16, 1024, 1024, 1), }".ljust(117) + b"\n" + b"x" * 1000,
    headers={"Content-Type": "application/x-npy"},
)  # fmt: skip

# -- C14 to C17: sizes and framing -------------------------------------------------------------------------------------
for name, length in (("one-too-many", 32 * 2**20 + 1), ("giant", 10**11), ("beyond-64-bits", 10**20 - 1)):
    add(14, name, 413, "body_too_large", raw=head(b"Host: " + HOST, b"Content-Length: %d" % length), closes=True)
add(
    14, "chunks-over-the-cap", 413, "body_too_large", closes=True,
    raw=head(b"Host: " + HOST, b"Transfer-Encoding: chunked") + b"2000001\r\n" + b"x" * 0x2000001 + b"\r\n0\r\n\r\n",
)  # fmt: skip
add(15, "head-of-17-kib", 431, "headers_too_large", method="GET", headers={"X": "y" * (17 << 10)}, closes=True)
add(15, "ten-thousand-headers", 431, "headers_too_large", raw=head(*[b"X: y"] * 10_000), closes=True)
add(15, "target-of-64-kib", 414, "uri_too_long", method="GET", target="/" + "x" * (64 << 10), closes=True)
PIPELINED = head(b"Host: " + HOST, b"Content-Length: 16") + BODY_CANARY
for name, lines, rest in (
    ("cl-te", [b"Content-Length: 3", b"Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    ("te-te", [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    ("te-list", [b"Transfer-Encoding: chunked, chunked"], b"0\r\n\r\n"),
    ("cl-cl", [b"Content-Length: 1", b"Content-Length: 1"], b"x"),
    ("cl-plus", [b"Content-Length: +5"], b"xxxxx"),
    ("cl-hex", [b"Content-Length: 0x5"], b"xxxxx"),
    ("bare-lf", [b"X: a\nY: b"], b""),
    ("obs-fold", [b"X: a", b" b"], b""),
    ("space-before-colon", [b"X : a"], b""),
    ("chunk-extension", [b"Transfer-Encoding: chunked"], b"1;a=b\r\nx\r\n0\r\n\r\n"),
    ("trailer", [b"Transfer-Encoding: chunked"], b"0\r\nHost: evil\r\n\r\n"),
    ("chunk-without-end", [b"Transfer-Encoding: chunked"], b"1\r\nxy\r\n0\r\n\r\n"),
):
    add(16, name, 400, "malformed", raw=head(b"Host: " + HOST, *lines) + rest + PIPELINED, closes=True)
add(
    17, "seventy-thousand-chunks", 400, "malformed", closes=True,
    raw=head(b"Host: " + HOST, b"Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 70_000,
)  # fmt: skip


# -- C21: pictures -----------------------------------------------------------------------------------------------------
def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width: int, height: int, data: bytes = b"\0" * 100) -> bytes:
    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def picture(mode: str, format_: str, **options: object) -> bytes:
    out = io.BytesIO()
    pixels = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
    image = Image.fromarray(pixels.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    image.save(out, format_, **options)  # type: ignore[arg-type]  # save's own options
    return out.getvalue()


def animated() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("L", (32, 32), tone) for tone in (0, 255)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation (EXIF 2.32, table 4)
    return picture("RGB", "JPEG", exif=exif)


PICTURE = {"Content-Type": "image/png"}
add(21, "empty", 422, "nothing_to_predict", headers=PICTURE)
for name, body, code in (
    ("text", b"hello " + BODY_CANARY, "image_format"),
    ("cut-off", picture("L", "PNG")[:60], "image_invalid"),
    ("bomb", png_that_claims(65_535, 65_535), "image_too_large"),
    ("a-gigabyte-in-one", png_that_claims(30_000, 30_000, b"\0" * (30 << 20)), "image_too_large"),
    ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_format"),
    ("psd", b"8BPS\0\1" + b"\0" * 40, "image_format"),
    ("fits", b"SIMPLE  =                    T" + b" " * 50, "image_format"),
    ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n", "image_format"),
):
    add(21, name, 422, code, body=body, headers=PICTURE)
MODES: dict[str, Callable[[], bytes]] = {
    "one-pixel": lambda: png_that_claims(1, 1),
    "animated": animated,
    "cmyk": lambda: picture("CMYK", "JPEG"),
    "16-bit": lambda: picture("I;16", "PNG"),
    "exif-rotated": rotated,
    "palette": lambda: picture("P", "PNG"),
    "bilevel": lambda: picture("1", "PNG"),
    "transparent": lambda: picture("RGBA", "PNG"),
    "tiff": lambda: picture("RGB", "TIFF"),
}
for name, make in MODES.items():
    add(21, name, 200, body=make(), headers=PICTURE)

# -- C35: keys ---------------------------------------------------------------------------------------------------------
for name, value in (
    ("none", ""), ("wrong", "Bearer wrong"), ("empty-bearer", "Bearer "), ("basic", "Basic d3Jvbmc="),
    ("not-base64", "Basic ???"), ("latin-1", "Bearer \xe9\xff"), ("other-scheme", "Digest x"),
):  # fmt: skip
    headers = {"Authorization": value} if value else {}
    add(35, name, 401, "key_required", body=b"x", headers=headers, keyed=False)
add(35, "in-the-query", 401, "key_required", target=f"{DIGITS}?api_key=@KEY@", body=b"x", keyed=False)
add(
    35,
    "a-megabyte",
    431,
    "headers_too_large",
    headers={"Authorization": "Bearer " + "k" * 10**6},
    keyed=False,
    closes=True,
)

ELSEWHERE: dict[int, tuple[str, ...]] = {
    18: (
        "embedded_server/test_head_checks.py::test_c18_a_head_that_does_not_end_is_408",
        "embedded_server/test_head_checks.py::test_c18_a_body_that_trickles_is_408",
        "embedded_server/test_head_checks.py::test_c18_an_answer_that_nobody_reads_is_cut_off",
    ),
    19: ("trust/test_catalogue.py::test_c19_a_crowd_of_idle_callers_leaves_room",),
    20: (
        "embedded_server/test_tls.py::test_c20_plain_http_is_told_to_speak_https",
        "embedded_server/test_tls.py::test_c20_what_is_neither_tls_nor_http_is_closed",
        "embedded_server/test_tls.py::test_c20_a_handshake_that_stalls_is_closed_in_time",
        "embedded_server/test_tls.py::test_c20_old_tls_is_refused",
        "embedded_server/test_tls.py::test_c20_two_hundred_stalled_handshakes_hold_nobody_up",
    ),
    22: ("trust/test_catalogue.py::test_c22_damaged_pictures_cost_an_error_each",),
    **dict.fromkeys((*range(23, 31), 34), ("trust/test_model_files.py::test_a_hostile_file_costs_one_sentence",)),
    29: (
        "trust/test_model_files.py::test_a_hostile_file_costs_one_sentence",
        "trust/test_saved_model_operations.py::test_what_reaches_past_the_model_is_refused",
    ),
    32: (
        "trust/test_changing_files.py::test_a_file_that_changes_during_its_load_is_not_used",
        "trust/test_changing_files.py::test_a_file_that_changed_after_consent_is_another_model",
        "trust/test_changing_files.py::test_a_model_that_runs_keeps_answering",
    ),
    31: (
        "engine/test_engine_faults.py::test_a_rogue_worker_costs_its_requests_a_503_and_nothing_else",
        "engine/test_engine_faults.py::test_a_worker_that_falls_silent_within_a_frame_is_replaced",
    ),
    33: (
        "engine/test_engine.py::test_one_row_that_does_not_fit_says_so",
        "engine/test_engine.py::test_a_load_without_progress_is_ended",
        "engine/test_engine_faults.py::test_a_model_that_always_crashes_is_given_up_and_can_be_asked_again",
    ),
    36: ("embedded_server/test_controller.py::test_c36_fifty_fast_toggles_end_where_the_last_click_says",),
    37: (
        "gui/test_choosers.py::test_names_from_outside_are_plain_text",
        "gui/test_bad_input.py::test_a_label_of_ten_thousand_characters",
    ),
    38: (
        "gui/test_bad_input.py::test_five_thousand_files_and_more_are_all_accounted_for",
        "gui/test_bad_input.py::test_an_address_is_not_fetched",
        "gui/test_bad_input.py::test_a_picture_of_two_gigabytes_and_a_folder_in_itself",
        "gui/test_bad_input.py::test_a_drawing_in_svg_stays_untouched",
    ),
    39: (
        "e2e/test_serve.py::test_sigterm_answers_what_was_accepted_and_leaves_nothing",
        "embedded_server/test_drain.py::test_the_drain_is_bounded_and_still_answers",
        "gui/test_life.py::test_the_next_start_after_a_kill_says_so",
    ),
    40: (
        "engine/test_files.py::test_a_damaged_file_falls_back_to_the_last_good_copy_and_says_so",
        "engine/test_files.py::test_a_damaged_file_never_becomes_the_last_good_copy",
    ),
}
"""Case -> the tests that hold it, as file and function below ``tests``."""
