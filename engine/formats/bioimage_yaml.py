"""YAML of a model description, read within bounds.

A few hundred bytes of YAML can stand for gigabytes: by aliases of aliases, and by merge keys (``<<``), which are copied
where they are used. Aliases share what they name and cost nothing as long as nobody walks through all of it; merge keys
are refused. Only plain values are made (``yaml.SafeLoader``).
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_BYTES = 256 << 10
MAX_NODES = 20_000
MAX_DEPTH = 50


class YamlProblem(ValueError):
    """The text is no YAML that is read here; the message says why."""


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES or self._depth > MAX_DEPTH:
            raise YamlProblem("it holds too many values, or is nested too deeply")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise YamlProblem("it uses merge keys (<<)")


def read_mapping(data: bytes) -> dict[str, Any]:
    """The mapping a YAML file holds. Raises YamlProblem."""
    try:
        loader = _Loader(data.decode("utf-8-sig"))
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except YamlProblem:
        raise
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, OverflowError, TypeError, RecursionError) as error:
        raise YamlProblem("it is not readable YAML") from error
    if not isinstance(value, dict):
        raise YamlProblem("it is no mapping")
    return value
