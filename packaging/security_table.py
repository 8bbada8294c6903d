"""Writes docs/security.md: incidents of systems like ours, the property that each would meet here, and its tests.

``python packaging/security_table.py`` rewrites it; ``tests/trust/test_security_document.py`` fails where it is old or
names a test that is not there.
"""

from __future__ import annotations

from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "security.md"

PROPERTIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "P1": (
        "Listens on this computer alone until its owner opens the network, then on the chosen networks, on one port.",
        (
            "embedded_server/test_controller.py::test_p1_each_position_listens_where_it_says_and_nowhere_else",
            "embedded_server/test_interfaces.py::test_addresses_come_and_go_and_it_is_never_wider",
        ),
    ),
    "P2": (
        "From the network every route but health and the pages needs a key of 256 random bits, kept as "
        "SHA-256 and compared in constant time.",
        (
            "embedded_server/test_app_door.py::test_every_route_but_the_keyless_ones_needs_a_key",
            "embedded_server/test_access.py::test_no_key_material_is_compared_with_equals",
            "embedded_server/test_keys.py::test_a_made_key_is_kept_as_its_digest_only",
            "embedded_server/test_head_checks.py::test_without_a_key_no_body_is_read_and_with_one_it_is",
        ),
    ),
    "P3": (
        "Host is compared whole with the names this server has, in every mode, before a body is read and"
        " again before routing.",
        (
            "embedded_server/test_access.py::test_c1_c2_c3_other_hosts_are_refused",
            "embedded_server/test_wire.py::test_c2_missing_and_repeated_hosts",
            "embedded_server/test_head_checks.py::test_a_foreign_head_is_refused_without_its_body",
        ),
    ),
    "P4": (
        "No page of another site is answered, whatever its method; no cookie, no cross-origin header "
        "unless the owner named the site.",
        (
            "embedded_server/test_access.py::test_c4_foreign_origins_are_refused",
            "embedded_server/test_access.py::test_c5_cross_site_is_refused_without_an_origin",
            "embedded_server/test_access.py::test_c7_preflights_are_refused_even_from_our_own_origin",
        ),
    ),
    "P5": (
        "The network lists, describes, asks and reads numbers; loading, settings, keys and the end of "
        "the program are the window's.",
        ("embedded_server/test_app.py::test_the_url_map_is_this_one",),
    ),
    "P6": (
        "Nothing that a client sends is opened as a file, fetched or run.",
        ("trust/test_properties.py::test_p6_requests_open_no_file_no_connection_and_no_program",),
    ),
    "P7": (
        "Models are looked up by name in a table, never on the disk; unknown and malformed names read the same.",
        (
            "embedded_server/test_wire.py::test_c9_targets_are_judged_as_sent",
            "trust/test_catalogue.py::test_c9_unknown_and_malformed_names_read_the_same",
        ),
    ),
    "P8": (
        "An error is a code, a sentence and the request's number: no path, no user, no stack, no address.",
        ("trust/test_catalogue.py::test_case",),
    ),
    "P9": (
        "JSON is bounded in size, depth, elements and digits; NaN and Infinity are taken on TensorFlow "
        "Serving's routes alone.",
        ("trust/test_catalogue.py::test_case",),
    ),
    "P10": (
        "Heads, bodies, connections and the memory of all bodies together are bounded; no body is written to disk.",
        (
            "embedded_server/test_wire.py::test_p10_the_settings_waitress_gets",
            "embedded_server/test_head_checks.py::test_bodies_together_have_a_bound",
            "embedded_server/test_head_checks.py::test_the_bound_fits_the_memory_that_is_free",
            "embedded_server/test_wire.py::test_c17_seventy_thousand_chunks_are_refused",
        ),
    ),
    "P11": (
        "Slow clients are ended, addresses have a share of the connections, and who is turned away is told.",
        (
            "embedded_server/test_head_checks.py::test_c18_a_head_that_does_not_end_is_408",
            "embedded_server/test_head_checks.py::test_c18_a_body_that_trickles_is_408",
            "embedded_server/test_head_checks.py::test_c18_an_answer_that_nobody_reads_is_cut_off",
            "embedded_server/test_head_checks.py::test_a_head_in_single_bytes_costs_each_byte_once",
            "trust/test_catalogue.py::test_c19_a_crowd_of_idle_callers_leaves_room",
            "embedded_server/test_tls.py::test_c20_two_hundred_stalled_handshakes_hold_nobody_up",
        ),
    ),
    "P12": (
        "Waiting requests are bounded, the network's share is smaller, and what is late is answered without being run.",
        (
            "embedded_server/test_app_door.py::test_a_full_house_answers_busy_at_once",
            "engine/test_scheduler.py::test_the_network_has_three_quarters_of_the_places",
            "engine/test_engine.py::test_a_request_past_its_deadline_is_answered_at_once_and_never_run",
        ),
    ),
    "P13": (
        "Nothing is pickled between processes or taken so from the network; every frame of a worker is checked.",
        (
            "test_import_rules.py::test_nothing_of_ours_is_pickled",
            "engine/test_engine_faults.py::test_a_rogue_worker_costs_its_requests_a_503_and_nothing_else",
        ),
    ),
    "P14": (
        "PyTorch files are read as weights only; what would run is a program and needs consent, or is "
        "refused. Never from safe to unsafe.",
        ("trust/test_model_files.py::test_a_hostile_file_costs_one_sentence",),
    ),
    "P15": (
        "Keras files are held against a list of classes through the whole nested configuration, before "
        "Keras sees them.",
        ("trust/test_model_files.py::test_a_hostile_file_costs_one_sentence",),
    ),
    "P16": (
        "A SavedModel is a program; operations that reach past the model are refused in every graph of it.",
        (
            "trust/test_saved_model_operations.py::test_what_reaches_past_the_model_is_refused",
            "trust/test_saved_model_operations.py::test_no_way_around",
        ),
    ),
    "P17": (
        "Archives and HDF5 are measured before they are unpacked: entries, sizes, overlaps, names, links.",
        (
            "trust/test_model_files.py::test_a_hostile_file_costs_one_sentence",
            "trust/test_changing_files.py::test_weights_shorter_than_they_say_are_corrupt",
        ),
    ),
    "P18": (
        "Pictures are decoded in the worker or the inspector, from a list of formats and within bounds of pixels.",
        ("trust/test_catalogue.py::test_case", "trust/test_catalogue.py::test_c22_damaged_pictures_cost_an_error_each"),
    ),
    "P19": (
        "A bad input fails alone.",
        (
            "engine/test_engine.py::test_a_row_that_raises_fails_alone",
            "engine/test_engine_faults.py::test_an_input_that_crashes_twice_is_kept_out_and_costs_nobody_else",
        ),
    ),
    "P20": (
        "No scanner's verdict lifts trust: there is none, and consent holds for the very bytes it was given for.",
        (
            "engine/test_consent.py::test_a_changed_program_asks_again",
            "trust/test_model_files.py::test_a_hostile_file_costs_one_sentence",
        ),
    ),
    "P21": (
        "No debugger, no signed cookie, no secret of an application; every answer is uncached and unsniffed.",
        (
            "embedded_server/test_app.py::test_no_static_folder_no_session_no_secret",
            "embedded_server/test_app_door.py::test_every_answer_is_uncached_unsniffed_and_sized",
        ),
    ),
    "P22": (
        "No file is served from a folder: the pages are a fixed table.",
        (
            "embedded_server/test_app.py::test_no_static_folder_no_session_no_secret",
            "embedded_server/test_app.py::test_the_url_map_is_this_one",
        ),
    ),
    "P23": (
        "The window gives no untrusted bytes to Qt's readers of pictures or to SVG, and shows text from "
        "outside as plain text.",
        (
            "trust/test_properties.py::test_p23_qt_reads_no_picture_and_no_drawing_from_outside",
            "gui/test_choosers.py::test_names_from_outside_are_plain_text",
            "gui/test_bad_input.py::test_a_drawing_in_svg_stays_untouched",
        ),
    ),
    "P24": (
        "Nothing is announced on the network, and nothing listens there for announcements.",
        ("trust/test_properties.py::test_p24_nothing_is_announced",),
    ),
    "P25": (
        "Packages are pinned and installed by the hash of their files; too old ones are not served with; an audit "
        "passes only where every one of them was judged.",
        (
            "trust/test_properties.py::test_p25_pins_are_exact_and_above_the_floors",
            "engine/test_floors.py::test_one_below_is_named_with_what_mends_it",
            "test_supply_chain.py::test_every_locked_package_has_hashes",
            "test_supply_chain.py::test_what_is_fetched_is_held_to_its_hash",
            "test_supply_chain.py::test_an_audit_passes_only_where_every_package_was_judged",
        ),
    ),
    "P26": (
        "Keys, bodies and file names stand in no log and no answer.",
        (
            "embedded_server/test_app_door.py::test_p26_keys_and_bodies_are_never_logged",
            "trust/test_catalogue.py::test_no_log_holds_what_was_sent",
        ),
    ),
    "P27": (
        "An answer belongs to its request, across keys and across deaths of the worker, whose "
        "environment holds no secret.",
        (
            "trust/test_properties.py::test_p27_nobody_reads_anybody_elses_answer",
            "trust/test_properties.py::test_p27_ten_thousand_requests",
            "engine/test_policies.py::test_a_child_gets_no_token_proxy_or_home",
            "trust/test_sandbox.py::test_an_act_of_a_hostile_model_fails",
        ),
    ),
}
"""What holds, as a sentence, and the tests (below ``tests``) that fail where it does not."""

INCIDENTS: tuple[tuple[str, str, str], ...] = (
    (
        "TorchServe CVE-2023-43654 (ShellTorch)",
        "Model registration fetched any URL by default (`allowed_urls` = all): SSRF + file write",
        "P5 P6",
    ),
    (
        "TorchServe management API",
        "Bound to all interfaces against its docs; chained with SnakeYAML deserialisation (CVE-2022-1471) to RCE",
        "P1 P5 P13",
    ),
    (
        "TorchServe CVE-2024-35198 / 35199",
        "`allowed_urls` check bypassed by name resolution; gRPC ports on all interfaces. Project now unmaintained",
        "P6 P1",
    ),
    (
        "Ollama CVE-2024-28224",
        "DNS rebinding gave web pages the full API",
        "P3",
    ),
    (
        "Ollama CVE-2024-37032",
        "Digest format not validated, `../` in blob path: write/RCE",
        "P7 P5",
    ),
    (
        "Ollama CVE-2024-39720",
        "4-byte GGUF: out-of-bounds read, SIGSEGV of server",
        "P17",
    ),
    (
        "Ollama CVE-2024-39721",
        "User path `/dev/random` read forever, also after client abort",
        "P6 P12",
    ),
    (
        "Ollama CVE-2024-39722 / 39719",
        "File-existence oracle via push path / via error text",
        "P7 P8",
    ),
    (
        "Ollama CVE-2024-45436",
        "Zip slip in model import",
        "P17",
    ),
    (
        "Ollama 2025 set",
        "Gzip-bomb reply OOM (<=0.3.14), GGUF divide-by-zero (<=0.3.14), manifest index crash (0.5.11), token"
        " sent to attacker realm CVE-2025-51471, no auth on management (GHSA-f6mr-38g8-39rg), path in error "
        "(ollama#13223)",
        "P17 P6 P2 P5 P8",
    ),
    (
        "Ollama CVE-2026-7482",
        "Declared tensor size larger than file: heap leak of other users' data and env; ~300k hosts exposed",
        "P17 P5 P27",
    ),
    (
        "LM Studio",
        "API unauthenticated by default, CORS switch (V docs); CVE-2026-119979 backslash traversal in "
        "downloader to RCE",
        "P2 P4 P5 P7",
    ),
    (
        "Jan CVE-2024-36857",
        "`/v1/app/readFileSync` on the local API read any file",
        "P5 P6",
    ),
    (
        "Jan CVE-2024-36858, 37273",
        "File write via API",
        "P5",
    ),
    (
        "GPT4All gpt4all#3681, #3587",
        "Hard-coded `Access-Control-Allow-Origin: *`, added for a feature request; rebinding fix still open",
        "P3 P4",
    ),
    (
        "llama.cpp#25606",
        "Reflected any Origin with credentials",
        "P4",
    ),
    (
        "Triton CVE-2025-23310 / 23311",
        "Many tiny chunks, `alloca` per chunk: stack overflow",
        "P10 P11",
    ),
    (
        "Triton CVE-2025-23319 -> 23320 -> 23334",
        "Error text leaked internal shm name; client could register it; OOB write/read: RCE chain",
        "P8 P13",
    ),
    (
        "Triton CVE-2025-23316, CVE-2023-31036",
        "Model name in control API: RCE; path traversal in model load",
        "P5 P7",
    ),
    (
        "Triton CVE-2026-24173 / 24208",
        "Integer overflow in request; path traversal DoS",
        "P9 P7",
    ),
    (
        "TF Serving CVE-2025-0649",
        "Unbounded recursion on nested JSON kills server; parse-side still open in #4137, #4138, #4146",
        "P9",
    ),
    (
        "Gradio CVE-2023-51449, CVE-2024-1561",
        "`/file` traversal; `/component_server` called any method and copied any file",
        "P6 P22",
    ),
    (
        "Gradio CVE-2024-1727, 47084, 47165; CVE-2025-5320",
        "Origin check skipped when a cookie is present, `null` accepted, later parse bypass",
        "P4",
    ),
    (
        "Gradio CVE-2024-47167, CVE-2026-28414",
        "SSRF in URL inputs; Python 3.13 changed `isabs` on Windows and broke path guard",
        "P6 P7",
    ),
    (
        "MLflow CVE-2023-1177, 2023-2780, 2024-1560, 2024-1593",
        "Traversal re-opened by backslash, double decode and `;` after each fix",
        "P7",
    ),
    (
        "MLflow CVE-2024-27132; CVE-2026-2611; CVE-2026-64849",
        "Template XSS to RCE; origin check bypass to local command run; SSRF via redirect/rebinding",
        "P23 P4 P6",
    ),
    (
        "MLflow rebinding CVE-2025-14279",
        "No Origin/Host check; middleware since 3.5.0, *not available with waitress* (V docs)",
        "P3 P4",
    ),
    (
        "MLflow CVE-2024-37052..37060",
        "Pickled flavours run code on load",
        "P13 P14",
    ),
    (
        "BentoML CVE-2024-2912, CVE-2025-27520, CVE-2025-32375",
        "Request body (in 32375 chosen by headers) reaches `pickle.loads`: RCE, same flaw three times",
        "P13",
    ),
    (
        "BentoML CVE-2025-54381, CVE-2024-9056, CVE-2026-27905",
        "Upload field may be URL: SSRF; multipart boundary DoS; tar symlink write",
        "P6 P17",
    ),
    (
        "Ray CVE-2023-48022",
        "Unauthenticated job API; vendor: only for strictly controlled networks; exploited in the wild (MITRE"
        " ATLAS AML.CS0023)",
        "P2 P5",
    ),
    (
        "Ray CVE-2025-62593, CVE-2026-27482",
        'Browser guard by User-Agent "Mozilla" forgeable in fetch; later DELETE forgotten',
        "P3 P4",
    ),
    (
        "LitServe",
        "No CVE found; #340 one bad row failed the batch",
        "P19",
    ),
    (
        "vLLM CVE-2026-22773",
        "One 1x1 image raised a shape error and ended the engine for all",
        "P18 P19",
    ),
    (
        "vLLM CVE-2025-59425",
        "API key compared with `==`: timing leak",
        "P2",
    ),
    (
        "Keras CVE-2024-3660",
        "Lambda bytecode in pre-2.13 formats",
        "P15",
    ),
    (
        "Keras CVE-2025-1550, 8747, 9906",
        "`config.json` names any module/function; then gadgets inside keras; then config calls "
        "`enable_unsafe_deserialization`",
        "P15",
    ),
    (
        "Keras CVE-2025-9905",
        "`.h5` silently ignores `safe_mode`",
        "P15",
    ),
    (
        "Keras CVE-2025-49655; CVE-2026-1462; CVE-2026-12481",
        "TorchModuleWrapper calls `torch.load`; TFSMLayer loads outside SavedModel; `safe_mode=None` skips "
        "Lambda guard (3.14.0; no fixed version seen)",
        "P15",
    ),
    (
        "Keras CVE-2025-12058, 12060",
        "StringLookup vocabulary path/URL: file read, SSRF; `get_file` tar traversal",
        "P15",
    ),
    (
        "Keras CVE-2026-0897",
        "Tiny HDF5 declares huge shape: memory exhaustion",
        "P17",
    ),
    (
        "Keras 3.14-3.15 public PoCs (dead-op call, Orbax asset write)",
        "Allowed keras functions with side effects; traversal in directory format",
        "P15",
    ),
    (
        "PyTorch CVE-2025-32434",
        "`weights_only=True` still dispatched TorchScript archives to `jit.load`",
        "P14",
    ),
    (
        "PyTorch CVE-2026-24747",
        "weights_only unpickler memory corruption, fixed 2.10.0",
        "P14",
    ),
    (
        "PyTorch CVE-2024-5480, 2024-48063 (disputed)",
        "`torch.distributed.rpc` runs what peers send; docs: never on untrusted networks",
        "P14",
    ),
    (
        "TorchScript",
        "Vendor: treat as executable code; even inspection utilities may run it",
        "P14",
    ),
    (
        '"Safe then unsafe" fallback (Stanza 1.12)',
        "On `UnpicklingError` it retried with `weights_only=False`",
        "P14",
    ),
    (
        "TF SavedModel",
        'Vendor: "models are programs", may read/write files and network. Scanner denied 2 ops while '
        "`PrintV2`, `SaveV2`, `WholeFileReader` do the same; `.pbtxt` skipped; init op runs *at load*",
        "P16",
    ),
    (
        "TF CVE-2022-23591, 23586, 23590",
        "Crafted GraphDef crashes loader",
        "P16",
    ),
    (
        "HDF5 CVE-2026-26200, 2026-29043, 2025-2915",
        "Heap overflows in the C parser; bundled copy may lag",
        "P17",
    ),
    (
        "CPython CVE-2024-0450",
        "Overlapping-entry zip bomb",
        "P17 P25",
    ),
    (
        "safetensors",
        "Audited 2023 (Trail of Bits); 100 MB header cap; huge tensor count still costs CPU",
        "P17",
    ),
    (
        "picklescan CVE-2025-1716/1889/1944/1945, 10155/10156/10157",
        "Extension, zip flag/CRC and subclass tricks hide payloads",
        "P20",
    ),
    (
        "Pillow CVE-2026-25990, CVE-2026-40192; libwebp CVE-2023-4863",
        "PSD OOB write; FITS gzip bomb; WebP heap overflow. Format chosen by content, not name",
        "P18",
    ),
    (
        "waitress CVE-2024-49768, 49769, 2022-31015",
        "Pipelining race served a request on a closing channel; half-open socket busy loop; uncaught close "
        "race ended the process",
        "P25 P10",
    ),
    (
        "Werkzeug CVE-2023-25577, 46136, 2024-49767",
        "Multipart parts/CRLF/memory DoS",
        "P10",
    ),
    (
        "Werkzeug CVE-2024-34069; 49766; 2025-66221, 2026-21860, 2026-27199",
        "Debugger RCE via browser; Windows `safe_join` drive/device names (3 fixes)",
        "P21 P22 P7",
    ),
    (
        "Flask CVE-2025-47278, CVE-2026-27205",
        "Key order in rotation; missing `Vary: Cookie`",
        "P21",
    ),
    (
        "Qt CVE-2025-10729, 2026-6210, 2025-5683, 2025-14576",
        "SVG use-after-free; SVG type confusion; crafted-image crash; QML injection through vector image",
        "P23",
    ),
    (
        "zeroconf CVE-2026-47180, 47183, 47184, 48045, 48487",
        "LAN packet: recursion, unbounded logs/queues, cache poisoning; mDNS trusts the whole LAN",
        "P24",
    ),
)
"""What happened to whom, how, and the properties that it would meet here."""

HEAD = """# Security, incident by incident

Written by `packaging/security_table.py`; change that. [SECURITY.md](../SECURITY.md) says what is promised and how to
report. Every test named here is in `tests/` and runs in `make test` or `make test-all`; a test of its own fails where
one is missing. The acceptance catalogue, C1 to C40, is `tests/trust/catalogue.py`.
"""


def document() -> str:
    """The whole text of docs/security.md."""
    lines = [HEAD, "## What holds", "", "| | property | tests |", "|---|---|---|"]
    for name, (sentence, tests) in PROPERTIES.items():
        lines.append(f"| {name} | {sentence} | {'<br>'.join(f'`{test}`' for test in tests)} |")
    lines += ["", "## What happened elsewhere", ""]
    lines += ["CVE numbers resolve at cve.org, GHSA numbers at github.com/advisories.", ""]
    lines += ["| incident | how | held by |", "|---|---|---|"]
    lines += [f"| {name} | {how} | {properties} |" for name, how, properties in INCIDENTS]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
