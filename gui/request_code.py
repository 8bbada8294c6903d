"""The same question as a command or a program that somebody else can run."""

from __future__ import annotations

import shlex

NO_KEY, NO_FILE = "YOUR_KEY", "FILE"


def as_curl(
    url: str, model: str, *, file: str = NO_FILE, content_type: str = "", keyed: bool = False, key: str = NO_KEY
) -> str:
    """One line for a shell. Where no ``key`` is given its place says so: what is copied is often pasted where others
    read it."""
    words = ["curl", "--data-binary", shlex.quote(f"@{file}")]
    for header in _headers(content_type, keyed, key):
        words += ["-H", shlex.quote(header)]
    return " ".join([*words, shlex.quote(f"{url}/predict/{model}")])


def as_python(
    url: str, model: str, *, file: str = NO_FILE, content_type: str = "", keyed: bool = False, key: str = NO_KEY
) -> str:
    """A program of Python's standard library alone."""
    headers = dict(header.split(": ", 1) for header in _headers(content_type, keyed, key))
    return (
        "import json\n"
        "import urllib.request\n"
        "\n"
        f"with open({file!r}, 'rb') as handle:\n"
        f"    request = urllib.request.Request({f'{url}/predict/{model}'!r}, handle.read(), {headers!r})\n"
        "with urllib.request.urlopen(request) as answer:\n"
        "    print(json.load(answer))\n"
    )


def _headers(content_type: str, keyed: bool, key: str) -> list[str]:
    headers = [f"Content-Type: {content_type or 'application/octet-stream'}"]
    if keyed:
        headers.append(f"Authorization: Bearer {key}")
    return headers
