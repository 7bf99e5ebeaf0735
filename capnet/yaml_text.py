"""YAML as people mean it: a key that stands twice is an error, and ``off`` is a word."""

from __future__ import annotations

from typing import Any

import yaml


def read_yaml(text: str) -> Any:
    """The content of ``text``; raises yaml.YAMLError or ValueError.

    PyYAML alone keeps the last of two equal keys and says nothing. Only true and false are truth values, as in YAML
    1.2, by which DVC reads the same file.
    """
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in first:
                raise yaml.YAMLError(f"key {name!r} in line {line} is there already in line {first[name]}")
            first[name] = line
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or letter in "tTfF"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
