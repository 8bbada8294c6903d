"""Asks an advisory database about every package of the lock files: ``make audit``.

Ends with 0 only where all of them were judged and none has a known hole; 1: some have (they are named, with the version
that mends them); 2: the database did not answer, or not about all of them. pip-audit alone ends with 0 there, for it
leaves out what its database does not know: behind a package mirror without advisories that is everything.

    python packaging/audit.py [--service osv]     osv: another database; without it that of PyPI
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOCKS = Path(__file__).resolve().parent.parent / "locks"
PIN = re.compile(r"^([a-z0-9-]+)==([^\s;+]+)", re.MULTILINE)


def pins(locks: Path = LOCKS) -> list[str]:
    """``name==version`` of every lock, for whichever system. Advisories know no CPU builds, only their versions."""
    found = {pin for path in locks.glob("*.txt") for pin in PIN.findall(path.read_text(encoding="utf-8"))}
    return [f"{name}=={version}" for name, version in sorted(found)]


def verdict(wanted: Sequence[str], report: dict[str, Any]) -> tuple[int, list[str]]:
    """The exit status, and what to say."""
    judged = {entry["name"]: entry for entry in report["dependencies"] if "skip_reason" not in entry}
    said = []
    for name, entry in sorted(judged.items()):
        for hole in entry["vulns"]:
            mended = ", ".join(hole["fix_versions"]) or "no version yet"
            said.append(f"{name} {entry['version']}: {hole['id']}; mended in {mended}")
    left = [pin for pin in wanted if pin.split("==")[0] not in judged]
    if left:
        named = ", ".join(left[:5]) + (" and others" if len(left) > 5 else "")
        said.append(f"The advisory database said nothing about {len(left)} of {len(wanted)} packages: {named}.")
        said.append("So it is not known whether they have holes. Ask where the database can be reached.")
        return 2, said
    return (1, said) if said else (0, [f"None of the {len(wanted)} locked packages has a known hole."])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", choices=["pypi", "osv"], default="pypi")
    service = parser.parse_args().service
    wanted = pins()
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "pins.txt"
        listed.write_text("\n".join(wanted))
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off", "--vulnerability-service", service]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)
    except ValueError:  # it ends with 1 for a hole and for a network that does not answer
        reason = (done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"])[-1]
        print(f"The advisory database could not be asked, so nothing is known about the packages.\n{reason}")
        return 2
    status, said = verdict(wanted, report)
    print("\n".join(said))
    return status


if __name__ == "__main__":
    sys.exit(main())
