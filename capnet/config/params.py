"""All sections as one frozen model: read, override, check; every unknown key and wrong value is reported at once."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from capnet.config.base import Section
from capnet.config.data import Data, Ingest, Split, Validate
from capnet.config.model import Backbone, Graph, Runtime, Tte
from capnet.config.results import Evaluate, Register
from capnet.config.train import Train
from capnet.errors import ConfigError, Problem
from capnet.yaml_text import read_yaml

RENAMED = {  # old settings that are refused with the new name
    "ingest.pictures": "ingest.images",
    "ingest.bad_pictures": "ingest.bad_images",
    "validate.pictures": "validate.images",
}


class Params(Section):
    """All of params.yaml."""

    data: Data = Data()
    backbone: Backbone = Backbone()
    tte: Tte = Tte()
    runtime: Runtime = Runtime()
    ingest: Ingest = Ingest()
    split: Split = Split()
    validate_: Validate = Field(Validate(), alias="validate")
    graph: Graph = Graph()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    register_: Register = Field(Register(), alias="register")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def section(self, name: str) -> Section:
        """The section called ``name`` in params.yaml."""
        section = getattr(self, name if name in type(self).model_fields else name + "_")
        assert isinstance(section, Section)
        return section

    def subset(self, sections: Iterable[str]) -> dict[str, Any]:
        """Plain dict ``{section: {...}}`` of the named sections, as it travels to a pipeline task."""
        return {name: self.section(name).model_dump(mode="json") for name in sections}


def _type_hint(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        return "remove it, or look up the name: `capnet preset own` prints every setting"
    if error["type"] == "tuple_type":
        return f"write a list: [{error.get('input')}]"
    return (
        f"allowed: {context['expected']}"
        if "expected" in context
        else "see `capnet preset own` for every setting and its meaning"
    )


def parse(raw: Mapping[str, Any], where: str = "params.yaml") -> Params:
    """Validate ``raw`` ({section: {...}}); raises ConfigError naming every bad key at once."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            path = ".".join(str(part) for part in item["loc"])
            unknown = item["type"] == "extra_forbidden"
            value = item.get("input")
            shown = "" if isinstance(value, Mapping | BaseModel) else f" = {value!r}"
            message = item["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
            if path in RENAMED:
                what, todo = f"unknown setting {path}: it is {RENAMED[path]} now", f"write {RENAMED[path]}"
            elif unknown:
                what, todo = f"unknown setting {path}{shown}", _type_hint(item)
            else:
                what, todo = f"{path}{shown}: {message}" if path else message, _type_hint(item)
            problems.append(Problem(what, where, todo))
        raise ConfigError(problems=problems) from None


def load(path: Path, overrides: Iterable[str] = ()) -> Params:
    """Read params.yaml and apply ``section.key=value`` overrides (values are YAML)."""
    if not path.is_file():
        raise ConfigError(f"no settings file {path}", str(path), "make one with `capnet preset own > params.yaml`")
    try:
        raw = read_yaml(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"not UTF-8 text: {error.reason} at byte {error.start}", str(path), "save the file as UTF-8"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            "not valid YAML", f"{path}: {' '.join(str(error).split())}", "correct the file at that line"
        ) from None
    if not isinstance(raw, dict):
        raise ConfigError(
            f"expected sections, found {type(raw).__name__}", str(path), "compare with `capnet preset own`"
        )
    given = tuple(overrides)
    return parse(override(raw, given), f"{path}, --set" if given else str(path))


def override(raw: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``raw`` with each ``a.b=value`` applied."""
    result: dict[str, Any] = copy.deepcopy(dict(raw))
    for item in overrides:
        path, equals, value = item.partition("=")
        *parents, last = path.split(".")
        if not equals or not parents or not last:
            raise ConfigError(f"cannot read --set {item!r}", "command line", "write --set section.key=value")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(
                    f"{parent} in --set {item!r} is a value, not a section",
                    "command line",
                    "write --set section.key=value",
                )
        try:
            node[last] = read_yaml(value)
        except (yaml.YAMLError, ValueError) as error:
            what = f"the value in --set {item!r} is not valid YAML"
            raise ConfigError(
                what,
                f"command line: {' '.join(str(error).split())}",
                "put quotes around it, such as --set 'section.key=\"value\"'",
            ) from None
    return result


def settings_hash(*sections: Section | Mapping[str, Any]) -> str:
    """sha256 of validated settings; equal settings give equal hashes whatever their order or spelling."""
    plain = [section.model_dump(mode="json") if isinstance(section, Section) else dict(section) for section in sections]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
