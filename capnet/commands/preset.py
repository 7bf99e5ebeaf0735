"""`capnet preset NAME`: a complete settings file, every setting with its meaning.

A file in capnet/presets holds what the preset decides; all else, and the help texts, come from capnet/config, so that
neither can fall behind. Of the losses only the chosen one's settings are printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from textwrap import fill, wrap
from typing import Any, Literal, get_args, get_origin

import click
import yaml
from pydantic.fields import FieldInfo

from capnet.commands.options import FEWEST, columns
from capnet.config import Params, Section, override, parse
from capnet.errors import ConfigError
from capnet.model.backbones import BACKBONES

_FOLDER = files("capnet").joinpath("presets")
_HELP_COLUMN = 34
_WIDTH = 120  # of a settings file, whatever the terminal: equal settings give equal bytes
_NAME = 12  # columns of a preset's name in the list


def names() -> list[str]:
    """The presets, in alphabetical order."""
    return sorted(item.name.removesuffix(".yaml") for item in _FOLDER.iterdir() if item.name.endswith(".yaml"))


def source(name: str) -> str:
    """The text of capnet/presets/NAME.yaml: a comment of one line, then what differs from the defaults.

    Raises:
        ConfigError: no preset has this name.
    """
    if name not in names():
        raise ConfigError(f"unknown preset {name!r}", "command line", f"choose one of: {', '.join(names())}")
    return _FOLDER.joinpath(f"{name}.yaml").read_text()


def heading(name: str) -> str:
    """What the preset is for, in one sentence."""
    return source(name).splitlines()[0].removeprefix("#").strip()


def read(name: str) -> Params:
    """The settings of a preset, complete."""
    return parse(yaml.safe_load(source(name)), f"preset {name}")


def render(params: Params, title: str) -> str:
    """A complete settings file: every setting with its help text behind it."""
    lines = _comment("", title)
    for name, field in Params.model_fields.items():
        lines += ["", f"{field.alias or name}:", *_lines(getattr(params, name), "  ")]
    return "\n".join(lines) + "\n"


def _lines(section: Section, indent: str, union: FieldInfo | None = None) -> list[str]:
    """A line for each setting; ``union`` is the field of ``section`` where a discriminator chooses its type."""
    lines = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ", field if field.discriminator else None)]
            continue
        meaning = field.description
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        if union is not None and name == union.discriminator:
            meaning = union.description
            choices = tuple(kind.model_fields[name].default for kind in get_args(union.annotation))
        listed = f"one of: {', '.join(map(str, choices))}" if len(choices) > 1 else ""
        text = "; ".join(part for part in (meaning or "", listed) if part)
        lines += _comment(f"{indent}{name}: {_scalar(value)}".ljust(_HELP_COLUMN) + "  ", text)
    return lines


def _comment(before: str, text: str) -> list[str]:
    """A comment behind what it is about, continued below itself where a line has no room for all of it."""
    parts = wrap(text, max(FEWEST, _WIDTH - len(before) - 2), break_long_words=False, break_on_hyphens=False)
    return [f"{' ' * len(before) if number else before}# {part}" for number, part in enumerate(parts or [""])]


def _scalar(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


def _with_weights(settings: Sequence[str]) -> tuple[str, ...]:
    """The settings, and the usual weights of a registered backbone that is named without any."""
    values = dict(item.split("=", 1) for item in settings if "=" in item)
    entry = BACKBONES.get(values.get("backbone.name", ""))
    if entry is None or "backbone.pretrained" in values:
        return tuple(settings)
    return (*settings, f"backbone.pretrained={entry.pretrained}")


@click.command()
@click.argument("name", required=False)
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated."
)
def command(name: str | None, settings: tuple[str, ...]) -> None:
    """Print the complete settings file of a preset; without NAME, list the presets.

    \b
    Examples:
      capnet preset
      capnet preset own > params.yaml
      capnet preset own --set train.epochs=3 > params.yaml
      capnet preset own --set backbone.name=lit-efflite0-minilm > params.yaml   # no download
    """
    if name is None:
        if settings:
            raise click.UsageError("--set changes a preset: name one")
        for known in names():
            line, below = f"{known:<{_NAME}}{heading(known)}", " " * _NAME
            click.echo(fill(line, columns(), subsequent_indent=below, break_on_hyphens=False))
        return
    settings = _with_weights(settings)
    where = f"preset {name} with --set" if settings else f"preset {name}"
    params = parse(override(yaml.safe_load(source(name)), settings), where)
    title = "; ".join([heading(name).removesuffix("."), f"with {', '.join(settings)}"]) if settings else heading(name)
    click.echo(render(params, title), nl=False)
