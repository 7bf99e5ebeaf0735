"""What commands share: the options that name settings, secrets and volumes, pairs of a name and a value, and the width
of tables.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from capnet.cluster import names

COLUMNS = 120  # of a table where the output is no terminal
FEWEST = 40


def in_order(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A decorator that adds ``options``, which --help lists in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def settings_options(use: str = "", sections: Sequence[str] = ()) -> Callable[[Any], Any]:
    """A decorator that adds --params and --set, the arguments ``params`` and ``settings``.

    Args:
        use: what the command takes from the settings, for the help text.
        sections: the only ones that --set may change; () for all.
    """
    help_text = f"Settings file{'; ' if use else ''}{use}."
    params = click.option("--params", default="params.yaml", show_default=True, help=help_text)

    def with_effect(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if sections and value.partition(".")[0] not in sections:
                raise click.BadParameter(f"{value!r} has no effect here, where only {', '.join(sections)} are used")
        return values

    changes = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        callback=with_effect,
        help="Override one setting; may be repeated.",
    )
    return in_order(params, changes)


# an option that is empty by default: its help says what that means
text_option = partial(click.option, default="", show_default=False)
secret_options = in_order(  # and the volume claims that pods of a pipeline use
    click.option("--s3-secret", default=names.S3_SECRET, help="Secret with the bucket's credentials."),
    click.option("--mlflow-secret", default=names.MLFLOW_SECRET, help="Secret with the MLflow server's credentials."),
    click.option("--git-secret", default=names.GIT_SECRET, help="Secret with git's credentials."),
    click.option("--state-claim", default=names.STATE_CLAIM, help="Volume claim for state."),
    click.option("--data-claim", default=names.DATA_CLAIM, help="Volume claim with images."),
    text_option("--pull-secret", help="Secret of a private registry that holds the images."),
)


class _LocalPath(click.Path):
    """A file or a folder of this machine: s3://bucket/out.csv would become a folder of the name ``s3:``; and pyarrow
    opens no name that is no UTF-8.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(f"{value!r} is no path on this machine: write a file or folder here, and copy it", param, ctx)
        if re.search("[\ud800-\udfff]", str(value)):
            self.fail(f"{value!r} is no UTF-8: name another file or folder", param, ctx)
        return super().convert(value, param, ctx)


LOCAL_PATH = _LocalPath(path_type=Path)
path_option = partial(click.option, show_default=True, type=LOCAL_PATH)

model_option = click.option(
    "--model",
    "address",
    default="",
    metavar="MODEL",
    help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder of outputs; default: the champion.",
)


def refuse_repeated(context: click.Context, arguments: Sequence[str]) -> None:
    """Refuse an option that takes one value and is given several times: the last would count, without a word."""
    _, _, given = context.command.make_parser(context).parse_args([*arguments])
    for option, count in Counter(given).items():
        single = isinstance(option, click.Option) and not (option.multiple or option.is_flag or option.count)
        if single and count > 1:
            times = "twice" if count == 2 else f"{count} times"
            context.fail(f"{option.opts[0]} is given {times}: give one")


class OneValueEach(click.Command):
    """A command that stands alone, with ``refuse_repeated``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            refuse_repeated(ctx, args)
        return super().parse_args(ctx, args)


def pairs(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """The callback of an option whose values are NAME=VALUE."""
    for value in values:
        if "=" not in value:
            raise click.BadParameter(f"{value!r}: write {option.metavar}")
    return dict(value.split("=", 1) for value in values)


def local_pairs(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """As ``pairs``; every value is the path of a file or folder of this machine."""
    result = pairs(context, option, values)
    for path in result.values():
        LOCAL_PATH.convert(path, option, context)
    return result


def columns() -> int:
    """Width of a table: what COLUMNS says, else that of the terminal, else COLUMNS of this file; FEWEST or more."""
    return max(FEWEST, shutil.get_terminal_size((COLUMNS, 24)).columns)
