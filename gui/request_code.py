"""The same question as a command or a program that somebody else can run."""

from __future__ import annotations

import shlex

from engine.serving_types import CertificateInfo

NO_KEY, NO_FILE = "YOUR_KEY", "FILE"


def as_curl(
    url: str,
    model: str,
    *,
    file: str = NO_FILE,
    content_type: str = "",
    keyed: bool = False,
    key: str = NO_KEY,
    certificate: CertificateInfo | None = None,
) -> str:
    """One line for a shell. Where no ``key`` is given its place says so: what is copied is often pasted where others
    read it. A ``certificate`` that no authority knows is known by the pin of its key."""
    words = ["curl", "--data-binary", shlex.quote(f"@{file}")]
    if certificate is not None and certificate.self_signed:
        words += ["--insecure", "--pinnedpubkey", shlex.quote(certificate.pin)]
    for header in _headers(content_type, keyed, key):
        words += ["-H", shlex.quote(header)]
    return " ".join([*words, shlex.quote(f"{url}/predict/{model}")])


def as_python(
    url: str,
    model: str,
    *,
    file: str = NO_FILE,
    content_type: str = "",
    keyed: bool = False,
    key: str = NO_KEY,
    certificate: CertificateInfo | None = None,
) -> str:
    """A program of Python's standard library alone. Of a ``certificate`` that no authority knows the fingerprint is
    compared before anything is sent."""
    headers = dict(header.split(": ", 1) for header in _headers(content_type, keyed, key))
    if certificate is not None and certificate.self_signed:
        return _pinned_python(url, model, file, headers, certificate)
    return (
        "import json\n"
        "import urllib.request\n"
        "\n"
        f"with open({file!r}, 'rb') as handle:\n"
        f"    request = urllib.request.Request({f'{url}/predict/{model}'!r}, handle.read(), {headers!r})\n"
        "with urllib.request.urlopen(request) as answer:\n"
        "    print(json.load(answer))\n"
    )


def _pinned_python(url: str, model: str, file: str, headers: dict[str, str], certificate: CertificateInfo) -> str:
    return (
        "import hashlib\n"
        "import http.client\n"
        "import json\n"
        "import ssl\n"
        "\n"
        "context = ssl.create_default_context()\n"
        "context.check_hostname, context.verify_mode = False, ssl.CERT_NONE\n"
        f"connection = http.client.HTTPSConnection({url.partition('://')[2]!r}, context=context)\n"
        "connection.connect()\n"
        "fingerprint = hashlib.sha256(connection.sock.getpeercert(True)).hexdigest()\n"
        f"if fingerprint != {certificate.fingerprint.replace(':', '').lower()!r}:\n"
        "    raise SystemExit('Another certificate answers: it was renewed, or this is not that computer.')\n"
        f"with open({file!r}, 'rb') as handle:\n"
        f"    connection.request('POST', {f'/predict/{model}'!r}, handle.read(), {headers!r})\n"
        "print(json.load(connection.getresponse()))\n"
    )


def _headers(content_type: str, keyed: bool, key: str) -> list[str]:
    headers = [f"Content-Type: {content_type or 'application/octet-stream'}"]
    if keyed:
        headers.append(f"Authorization: Bearer {key}")
    return headers
