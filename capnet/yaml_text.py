"""YAML as people mean it: a key that stands twice is an error, and ``off`` is a word."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

MOST_LETTERS = 2**20
MOST_NODES = 20_000  # params.yaml has 400
DEEPEST = 32
MOST_BITS = 1024  # of a whole number: beyond 4,300 digits, which 0xfff... has soon, Python does not even print one


def check_size(path: Path) -> None:
    """Raise ValueError where a file of settings has more bytes than its letters can take: before it is read."""
    if (size := path.stat().st_size) > 4 * MOST_LETTERS:
        raise ValueError(f"{size:,} bytes: settings have at most {MOST_LETTERS:,} letters")


def read_yaml(text: str) -> Any:
    """The content of ``text``; raises yaml.YAMLError or ValueError.

    PyYAML alone keeps the last of two equal keys and says nothing. Only true and false are truth values, as in YAML
    1.2, by which DVC reads the same file.
    """
    if len(text) > MOST_LETTERS:
        raise ValueError(f"{len(text):,} letters: settings have at most {MOST_LETTERS:,}")
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} levels deep")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _nodes(node, {}) > MOST_NODES:
            raise ValueError(f"more than {MOST_NODES:,} values, counting those that aliases (*name) repeat")
        return loader.construct_document(node)
    except (AttributeError, LookupError, OverflowError, TypeError) as error:  # of a value that its tag does not fit
        raise ValueError(f"a value that its tag does not fit: {type(error).__name__}: {error}") from None
    finally:
        loader.dispose()


def _nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for once its aliases are written out; each is counted once and then known."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES  # of one that contains itself
        parts: Iterable[yaml.Node] = ()
        if isinstance(node, yaml.MappingNode):
            parts = chain.from_iterable(node.value)  # keys and values
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_nodes(part, known) for part in parts)
    return known[id(node)]


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in first:
                raise yaml.YAMLError(f"key {name!r} in line {line} is there already in line {first[name]}")
            first[name] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        digits = str(node.value).replace("_", "").lstrip("+-")
        if ":" in digits or (len(digits) > 1 and digits[0] == "0" and digits.isdigit()):
            raise _other_in_dvc(node, value)
        if value.bit_length() > MOST_BITS:
            raise ValueError(f"line {node.start_mark.line + 1}: a whole number of more than {MOST_BITS} bits")
        return value

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value = super().construct_yaml_float(node)
        if ":" in str(node.value):
            raise _other_in_dvc(node, value)
        return value


def _other_in_dvc(node: yaml.ScalarNode, value: float) -> ValueError:
    return ValueError(
        f"line {node.start_mark.line + 1}: {node.value[:40]} is {value} in YAML 1.1, and not in YAML 1.2, by which DVC"
        " reads this: write it without leading zeros or colons"
    )


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or letter in "tTfF"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
