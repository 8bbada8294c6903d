"""The reference on the page for programs, made of the OpenAPI document: plain HTML, no script."""

from __future__ import annotations

from html import escape
from typing import Any

HEADINGS = {
    "native": "Native routes",
    "open-inference": "Open Inference Protocol (V2)",
    "tensorflow-serving": "TensorFlow Serving",
}


def reference_html(document: dict[str, Any]) -> str:
    """A section for each protocol, a folded block for each operation."""
    sections: dict[str, list[str]] = {name: [] for name in HEADINGS}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            sections[operation["tags"][0]].append(_operation(method.upper(), path, operation))
    return "\n".join(
        f"<h3>{escape(HEADINGS[name])}</h3>\n" + "\n".join(blocks) for name, blocks in sections.items() if blocks
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"<details><summary><code>{method} {escape(path)}</code> {escape(operation['summary'])}</summary>"]
    if operation["parameters"]:
        items = "".join(
            f"<li><code>{escape(p['name'])}</code> ({escape(p['in'])}, {escape(_kind(p['schema']))}) "
            f"{escape(p['description'])}</li>"
            for p in operation["parameters"]
        )
        lines.append(f"<ul>{items}</ul>")
    if body := operation.get("requestBody"):
        kinds = ", ".join(
            f"<code>{escape(kind)}</code>" + _named(content["schema"]) for kind, content in body["content"].items()
        )
        lines.append(f"<p>Body: {kinds}</p>")
    answers = ", ".join(
        f"{escape(status)}"
        + (_named(content["schema"]) if (content := answer["content"].get("application/json")) else "")
        for status, answer in operation["responses"].items()
    )
    lines.append(f"<p>Answers: {answers}</p></details>")
    return "\n".join(lines)


def _named(schema: dict[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return f" {escape(name)}" if name else ""


def _kind(schema: dict[str, Any]) -> str:
    bounds = [str(schema[key]) for key in ("minimum", "maximum") if key in schema]
    return str(schema.get("type", "")) + (f" {' to '.join(bounds)}" if bounds else "")
