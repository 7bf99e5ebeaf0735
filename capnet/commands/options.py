"""What commands share: the options that name the settings, pairs of a name and a value,
figures in words, how an error ends a command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click


def settings_options(use: str = "") -> Callable[[Any], Any]:
    """A decorator that adds --params and --set, the arguments ``params`` and ``settings``.

    Args:
        use: what the command takes from the settings, for the help text.
    """

    def decorate(command: Any) -> Any:
        help_text = f"Settings file{'; ' if use else ''}{use}."
        changes = click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Override one setting; may be repeated.",
        )
        return click.option("--params", default="params.yaml", show_default=True, help=help_text)(changes(command))

    return decorate


def pairs(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """The callback of an option whose values are NAME=VALUE."""
    for value in values:
        if "=" not in value:
            raise click.BadParameter(f"{value!r}: write {option.metavar}")
    return dict(value.split("=", 1) for value in values)


def figures_in_words(figures: Mapping[str, float]) -> str:
    """`rows 30  mAP 0.9039`."""
    return "  ".join(
        f"{name} {value:.0f}" if float(value).is_integer() else f"{name} {value:.4g}" for name, value in figures.items()
    )


@contextmanager
def exits(name: str) -> Iterator[None]:
    """A CapnetError inside becomes its three-part message, under the ``name`` of the command, and its exit code."""
    from capnet.errors import CapnetError

    try:
        yield
    except CapnetError as error:
        if "--traceback" in sys.argv:
            raise
        click.echo(f"{name}: {error.title} error\n{error}", err=True)
        sys.exit(error.exit_code)
