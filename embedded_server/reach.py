"""Can others reach this computer? What can be found out from here: its own addresses and its firewall's rules.

Neither proves it. Only a caller from elsewhere does, and that is the door's to see.
"""

from __future__ import annotations

import http.client
import logging
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from embedded_server.addresses import DEFAULT_PORTS
from embedded_server.own_connection import connect_to_self
from engine.serving_types import ReachReport

log = logging.getLogger(__name__)

ASK_S = 3.0
UFW = Path("/etc/ufw")


def check_reach(urls: Iterable[str], port: int, pin: str | None = None) -> ReachReport:
    """Ask for the health of this server at each of ``urls``, and read what the firewall says of TCP ``port``.

    ``pin`` is that of its certificate where it speaks https."""
    failed = tuple(url for url in urls if not _answers(url, pin))
    firewall, let_in = read_firewall(port)
    return ReachReport(failed, firewall, let_in)


def _answers(url: str, pin: str | None) -> bool:
    parts = urlsplit(url)
    connection = connect_to_self(parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme], ASK_S, pin)
    try:
        connection.request("GET", "/health/live", headers={"Host": parts.netloc, "Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException) as error:
        log.info("this computer does not answer at %s: %s", url, error)
        return False
    finally:
        connection.close()


def read_firewall(port: int, ufw: Path = UFW) -> tuple[str, bool | None]:
    """The firewall that is on ("" where none was found) and whether it lets the port in (None: cannot be read).

    Read without asking for more rights: ufw's files (its rules are root's, as a rule) and firewalld's own question. The
    firewalls of Windows and macOS ask the person themselves when a program first listens, and are not read.
    """
    try:
        on = any(line.strip().lower() == "enabled=yes" for line in (ufw / "ufw.conf").read_text().splitlines())
    except OSError:
        on = False
    if on:
        return "ufw", _ufw_lets_in(ufw, port)
    command = shutil.which("firewall-cmd")
    if command is None:
        return "", None
    state = _asked(command, "--state")
    if state is None or not state:
        return "", None
    return "firewalld", _asked(command, f"--query-port={port}/tcp")


def _ufw_lets_in(ufw: Path, port: int) -> bool | None:
    """``### tuple ### allow tcp 8765 0.0.0.0/0 any 0.0.0.0/0 in`` (action, protocol, port, to, its port, from, perhaps
    two profiles, direction, perhaps a comment) is how ufw keeps a rule in ``user.rules``; the first that fits decides,
    else the default policy. A rule for some callers or one interface only leaves the others unknown."""
    try:
        lines = (ufw / "user.rules").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = [w for w in line.removeprefix("### tuple ###").split() if not w.startswith("comment=")]
        if not line.startswith("### tuple ###") or len(words) < 7 or words[1] not in ("any", "tcp"):
            continue
        direction = words[-1]
        if not direction.startswith("in") or ":" in words[5]:  # out, or of IPv6, which is not served
            continue
        if words[2] == "any" or any(_holds(part, port) for part in words[2].split(",")):
            to_all = words[5] == "0.0.0.0/0" and words[3] == "0.0.0.0/0" and direction == "in"
            return words[0].partition("_")[0] in ("allow", "limit") if to_all else None
    return _default_lets_in(ufw.parent / "default" / "ufw")


def _default_lets_in(defaults: Path) -> bool | None:
    try:
        lines = defaults.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, policy = line.partition("=")
        if name.strip() == "DEFAULT_INPUT_POLICY":
            return policy.strip().strip('"').upper() == "ACCEPT"
    return None


def _holds(ports: str, port: int) -> bool:
    first, _, last = ports.partition(":")
    return first.isdecimal() and int(first) <= port <= (int(last) if last.isdecimal() else int(first))


def _asked(command: str, question: str) -> bool | None:
    """firewall-cmd's answer by its exit status (0 yes, 1 no, else not known)."""
    try:
        status = subprocess.run([command, question], capture_output=True, timeout=ASK_S, check=False).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        log.info("the firewall could not be asked: %s", error)
        return None
    return {0: True, 1: False}.get(status)
