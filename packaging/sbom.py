"""Writes the list of what is inside the application (SBOM, CycloneDX 1.6) into build/deskside.cdx.json: ``make sbom``.

Versions and hashes are those of the lock files; licences and who needs whom are read from what is installed, so a
package that is not installed stands there without them. Ends with 1 where the schema is not met.

    python packaging/sbom.py [--torch cuda] [--output FILE]
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_supported_id
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "deskside.cdx.json"
ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+?)(?: ; ([^\\\n]*?))? \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.MULTILINE)


def locked(torch: str) -> Iterator[tuple[str, str, list[str]]]:
    """Name, version and SHA-256 of its files, for what an installation on this system takes."""
    for name in ("app", torch):
        text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
        for package, version, marker, hashes in ENTRY.findall(text):
            if not marker or Marker(marker).evaluate():
                yield package, version, re.findall(r"sha256:([0-9a-f]{64})", hashes)


def licences(name: str) -> list[License]:
    """As the installed package states them: in SPDX's words, else by its classifiers, else in its own short words."""
    try:
        stated = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    lines = [line.split(" :: ")[-1] for line in stated.get_all("Classifier", []) if line.startswith("License :: ")]
    classified = sorted(set(lines) - {"OSI Approved"})
    words = stated.get("License-Expression") or ""
    own = stated.get("License") or ""
    if not words and (is_supported_id(own) or (not classified and len(own) < 80 and "\n" not in own)):
        words = own
    make = LicenseFactory()
    found = [make.make_from_string(text) for text in ([words] if words else classified)]
    for licence in found:
        licence.acknowledgement = LicenseAcknowledgement.DECLARED
    return found


def needs(name: str, extras: frozenset[str] = frozenset()) -> Iterator[Requirement]:
    """What an installed package needs on this system."""
    try:
        stated = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        stated = []
    for line in stated:
        requirement = Requirement(line)
        if not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield requirement


def build(torch: str) -> Bom:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    root = Component(
        name=project["name"], version=project["version"], type=ComponentType.APPLICATION, bom_ref=project["name"],
        licenses=[LicenseFactory().make_from_string(project["license"])],
    )  # fmt: skip
    bom = Bom()
    bom.metadata.component = root
    components = {}
    for name, version, hashes in locked(torch):
        url = PackageURL("pypi", None, name, version)
        # One of these files is what was installed: which one is the machine's affair, so they are not the component's.
        files = ExternalReference(
            type=ExternalReferenceType.DISTRIBUTION, url=XsUri(str(url)), comment="each of its files that is accepted",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=value) for value in hashes],
        )  # fmt: skip
        components[name] = Component(
            name=name, version=version, type=ComponentType.LIBRARY, bom_ref=str(url), purl=url,
            licenses=licences(name), external_references=[files],
        )  # fmt: skip
        bom.components.add(components[name])
    # Extras are walked from the top, for only who asks for one gets it.
    asked: dict[str, frozenset[str]] = {}
    todo = [(root, [Requirement(line) for line in project["dependencies"]])]
    if torch == "cuda":
        todo[0][1].extend(Requirement(line) for line in project["optional-dependencies"]["gpu"])
    while todo:
        component, requirements = todo.pop()
        for requirement in requirements:
            name = canonicalize_name(requirement.name)
            if name not in components:
                continue
            bom.register_dependency(component, [components[name]])
            extras = asked.get(name, frozenset()) | requirement.extras
            if name not in asked or extras != asked[name]:
                asked[name] = extras
                todo.append((components[name], list(needs(name, extras))))
    return bom


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    bom = build(asked.torch)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        print(f"The list is not what CycloneDX's schema wants: {error}", file=sys.stderr)
        return 1
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(text + "\n", encoding="utf-8")
    licensed = sum(1 for component in bom.components if component.licenses)
    print(f"{asked.output}: {len(bom.components)} packages, {licensed} with a licence")
    return 0


if __name__ == "__main__":
    sys.exit(main())
