"""All sections as one frozen model: read, override, check; every unknown key and wrong value is reported at once."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from capnet.config.data import Data, Ingest, Split, Validate
from capnet.config.model import Backbone, Graph, Runtime, Tte
from capnet.config.results import Evaluate, Register
from capnet.config.train import DEFAULT_LOSS, Train
from capnet.errors import ConfigError, Problem
from capnet.model.losses import LOSSES
from capnet.section import Section
from capnet.yaml_text import check_size, read_yaml


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

    model_config = ConfigDict(populate_by_name=True)

    def section(self, name: str) -> Section:
        """The section called ``name`` in params.yaml."""
        section = getattr(self, name if name in type(self).model_fields else name + "_")
        assert isinstance(section, Section)
        return section

    def subset(self, sections: Iterable[str]) -> dict[str, Any]:
        """Plain dict ``{section: {...}}`` of the named sections, as it travels to a pipeline task."""
        return {name: self.section(name).model_dump(mode="json") for name in sections}


LOSS_NAME = "train.loss.name"
FILL = "write settings below it, or remove the line"
RENAMED = {  # settings of earlier versions
    "ingest.pictures": "ingest.images",
    "ingest.bad_pictures": "ingest.bad_images",
    "validate.pictures": "validate.images",
    "train.adapter.place": "train.adapter.location",
    "split.published_train": "ingest.train_list",
    "split.published_test": "ingest.test_list",
}
MAKE = "make one with `capnet preset own > params.yaml`"
SET = "write --set section.key=value"


def _type_hint(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        return _unknown_hint(error["loc"])
    if error["type"] == "string_type" and error.get("input") is None:
        return "write a text; an empty one is ''"
    if error["type"] == "tuple_type":
        return _list_hint(error.get("input"))
    if number := _meant(error["type"], str(error.get("input")).strip()):
        return f"write {number}"
    allowed = context.get("expected", context.get("expected_tags"))
    return f"allowed: {allowed}" if allowed else "see `capnet preset own` for every setting and its meaning"


def _list_hint(value: object) -> str:
    text = str(value).strip()
    if text.startswith("[") and text.endswith("]"):
        return f"write the list without quotes: {text}"
    return f"write a list: [{text}]"


def _meant(kind: str, text: str) -> str:
    """The number in a text that people write, such as 0,2 or 20 % or 1,000; "" where that is not clear."""
    if kind == "int_parsing" and re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", text):
        return text.replace(",", "")
    if kind == "float_parsing" and re.fullmatch(r"0,\d+|\d+,\d{1,2}", text):
        return text.replace(",", ".")
    if kind == "float_parsing" and re.fullmatch(r"\d{1,3} ?%", text):
        return f"{int(text.rstrip(' %')) / 100:g}"
    return ""


def _unknown_hint(loc: tuple[str | int, ...]) -> str:
    """What to do about a setting that does not exist."""
    if loc[:2] == ("train", "loss"):
        loss, key = str(loc[2]), str(loc[3])
        own = ", ".join(name for name in LOSSES[loss].model_fields if name != "name") or "none"
        others = ", ".join(name for name, kind in LOSSES.items() if key in kind.model_fields)
        if others:
            return f"remove it: it is a setting of {others}, and {LOSS_NAME} is {loss}; settings of {loss}: {own}"
        return f"remove it; settings of {loss}: {own}"
    if new := RENAMED.get(".".join(map(str, loc))):
        return f"write {new}: it was renamed"
    near = get_close_matches(str(loc[-1]), _fields(loc[:-1]), n=1)
    guess = f"did you mean {'.'.join(map(str, (*loc[:-1], *near)))}? Else " if near else ""
    listed = "`capnet preset own` prints every setting, and CHANGELOG.md says which are gone"
    return f"{guess}remove it, or look up the name: {listed}"


def _problem(item: Mapping[str, Any], where: str) -> Problem:
    """One finding of pydantic in three parts."""
    loc = tuple(item["loc"])
    keys = (*loc[:2], *loc[3:]) if loc[:2] == ("train", "loss") else loc  # the third is the loss's name, no key
    path, value, message = ".".join(map(str, keys)), item.get("input"), item["msg"]
    if item["type"] == "union_tag_invalid":
        path, value, message = LOSS_NAME, item["ctx"]["tag"], "no loss has this name"
    shown = "" if isinstance(value, Mapping | BaseModel) else f" = {value!r}"
    if item["type"] == "model_type":
        if value is None:
            return Problem(f"section {path} is empty", where, FILL)
        return Problem(f"{path}{shown} is a value, not a section", where, f"write settings below {path}, or remove it")
    message = message.removeprefix("Value error, ").replace("valid tuple", "valid list")
    if item["type"] == "extra_forbidden":
        what = f"unknown setting {path}{shown}"
    else:
        what = f"{path}{shown}: {message}" if path else message
    return Problem(what, where, _type_hint(item))


def parse(raw: Mapping[str, Any], where: str = "params.yaml") -> Params:
    """Check settings and fill in the defaults.

    Args:
        raw: {section: {setting: value}}.
        where: the settings come from, for errors.

    Raises:
        ConfigError: naming every bad key and value at once.
    """
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(problems=[_problem(item, where) for item in error.errors()]) from None


def load(path: Path, overrides: Iterable[str] = ()) -> Params:
    """Read a settings file.

    Args:
        path: the file, as params.yaml.
        overrides: ``section.key=value``, values in YAML.

    Raises:
        ConfigError: the file is missing, a folder, no UTF-8, no YAML, or has unknown or wrong settings, all of which it
            names.
    """
    raw, items = read_sections(path), tuple(overrides)
    return parse(override(raw, items), f"{path}, --set" if items else str(path))


def read_sections(path: Path) -> dict[str, Any]:
    """The sections of a settings file, not yet checked; raises ConfigError where it cannot be read."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder", str(path), f"name a file, or move the folder away and {MAKE}")
    if not path.is_file():
        raise ConfigError(f"no settings file {path}", str(path), MAKE)
    try:
        check_size(path)
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text: {error.reason} at byte {error.start}"
        raise ConfigError(what, str(path), "save the file as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:
        where = f"{path}: {' '.join(str(error).split())}"
        raise ConfigError("not valid YAML", where, "correct the file at that line") from None
    if raw is None:
        raise ConfigError("the settings file is empty", str(path), MAKE)
    if not isinstance(raw, dict):
        raise ConfigError(f"expected sections, got {type(raw).__name__}", str(path), "compare with `capnet preset own`")
    return raw


def override(raw: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``raw`` with each ``a.b=value`` applied; nothing after = is the empty text where the setting is one.

    Another ``train.loss.name`` than that of ``raw`` drops the loss settings of ``raw``: the new loss starts from its
    own defaults and from what is overridden with it.

    Args:
        raw: {section: {setting: value}}.
        overrides: ``section.key=value``, values in YAML.

    Raises:
        ConfigError: an override cannot be read, or leads through a value or an empty section.
    """
    result: dict[str, Any] = copy.deepcopy(dict(raw))
    values = [_override_value(item) for item in overrides]
    names = [value for path, value in values if path == LOSS_NAME]
    train = result.get("train")
    loss = train.get("loss") if isinstance(train, dict) else None
    if names and isinstance(loss, dict) and loss.get("name", DEFAULT_LOSS.name) != names[-1]:
        loss.clear()
    for path, value in values:
        *parents, last = path.split(".")
        node = result
        for depth, parent in enumerate(parents, start=1):
            node = node.setdefault(parent, {})
            if node is None:
                raise ConfigError(f"section {'.'.join(parents[:depth])} is empty", "settings file", FILL)
            if not isinstance(node, dict):
                raise ConfigError(f"{parent} in --set {path} is a value, not a section", "command line", SET)
        node[last] = value
    return result


def _override_value(item: str) -> tuple[str, Any]:
    """``a.b=value`` as the dotted name and the value."""
    path, equals, text = item.partition("=")
    *parents, last = path.split(".")
    if not equals or not parents or not last:
        raise ConfigError(f"cannot read --set {item!r}", "command line", SET)
    if not text.strip() and _is_text(path):
        return path, ""
    try:
        return path, read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        where = f"command line: {' '.join(str(error).split())}"
        todo = "put quotes around it, such as --set 'section.key=\"value\"'"
        raise ConfigError(f"the value in --set {item!r} is not valid YAML", where, todo) from None


def _is_text(path: str) -> bool:
    """Does any text fit the setting with this dotted name?"""
    *parents, last = path.split(".")
    field = _fields(parents).get(last)
    return field is not None and field.annotation is str


def _fields(sections: Iterable[str | int]) -> dict[str, FieldInfo]:
    """The settings of a section, by the names of the sections that lead to it; {} where there is no such section."""
    fields = _fields_of(Params)
    for name in map(str, sections):
        fields = _fields_of(fields[name].annotation) if name in fields else {}
    return fields


def _fields_of(kind: Any) -> dict[str, FieldInfo]:
    """By their names in params.yaml; {} where ``kind`` is no section."""
    is_section = isinstance(kind, type) and issubclass(kind, BaseModel)
    return {field.alias or name: field for name, field in kind.model_fields.items()} if is_section else {}


def setting_names(sections: tuple[str, ...] = ()) -> list[str]:
    """Every setting below these sections, ``train.epochs``; of the losses only the chosen one's name."""
    names: list[str] = []
    for name in _fields(sections):
        path = (*sections, name)
        names += setting_names(path) or [".".join(path)]
    return names


def settings_hash(*sections: Section | Mapping[str, Any]) -> str:
    """sha256 of validated settings; equal settings give equal hashes whatever their order or spelling."""
    plain = [section.model_dump(mode="json") if isinstance(section, Section) else dict(section) for section in sections]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
