"""The command line `capnet`: a command for every stage, and the others of capnet/commands."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from capnet import __version__
from capnet.commands.options import COLUMNS, refuse_repeated
from capnet.commands.stage import stage_command
from capnet.errors import stopped
from capnet.stages import STAGES, process_rank

COMMANDS = {
    "demo-data": "Draw the built-in demo images.",
    "preset": "Print a complete settings file.",
    "predict": "Label images with a registered model.",
    "deploy": "Write a KServe manifest of a model version.",
    "promote": "Make a model version the champion if it passes the gate.",
    "export": "Write a model as one ONNX file.",
    "shard": "Write the images as tar shards (WebDataset layout).",
    "label": "Write a page on which people label new images, with the model's labels filled in.",
    "review": "Write the labels that the model doubts, for people to correct.",
    "summary": "Print the results of the last run as a table.",
    "download": "Download a published benchmark.",
    "doctor": "Check the data and its remote, or with --cluster the cluster: what is missing, and what to do.",
    "fetch": "Copy remote images ahead of time.",
}
# command: what replaced it
GONE = {"sync": "run `capnet register`: it completes the run on the tracking server from the stages' files"}
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": COLUMNS}
EPILOG = """\b
Examples:
  capnet demo-data --out data         draw the demo images
  capnet preset own > params.yaml     settings for your own images
  dvc repro                           run all stages that changed
  capnet train --set train.epochs=3   run one stage with another setting"""


class _Lazy(click.Group):
    """Lists every command without importing it, so that --help answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*STAGES, *COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in STAGES:
            return stage_command(name)
        if name in COMMANDS:
            command: click.Command = import_module(f"capnet.commands.{name.replace('-', '_')}").command
            return command
        if name in GONE:
            from capnet.errors import ConfigError

            raise ConfigError(f"the command `capnet {name}` is gone", "command line", GONE[name])
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        near = get_close_matches(args[0], self.list_commands(ctx), n=1)
        if near and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            refuse_repeated(click.Context(command, ctx, name, **command.context_settings), rest)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        from capnet.redaction import redact

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            stopped()
        except click.UsageError as error:  # a mistake on the command line may hold an address
            more = _setting_instead(error) if isinstance(error, click.NoSuchOption) else ""
            raise click.UsageError(redact(error.format_message()) + more, error.ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Stages, in order"):
            formatter.write_dl([(stage.name, stage.summary) for stage in STAGES.values()])
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, epilog=EPILOG, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="capnet")
@click.option("--traceback", is_flag=True, help="Show the Python traceback of an error.")
def main(traceback: bool) -> None:
    """Long-tailed multi-label recognition with CLIP: from images to a registered model."""
    from capnet.runtime import need_docstrings, need_utf8

    need_docstrings()
    need_utf8()


def _setting_instead(error: click.NoSuchOption) -> str:
    """How to change the setting of this name, where the command takes settings; else nothing."""
    takes_settings = error.ctx is not None and any("--set" in option.opts for option in error.ctx.command.params)
    if not takes_settings or error.possibilities:
        return ""
    from capnet.config import setting_names

    last = error.option_name.lstrip("-").replace("-", "_")
    named = [name for name in setting_names() if name.rsplit(".", 1)[-1] == last]
    return f" Settings are changed with --set {named[0] if len(named) == 1 else 'SECTION.KEY'}=VALUE."


def entry() -> None:
    """The command line: turns a CapnetError into its three-part message and exit code."""
    try:
        from capnet.errors import exits
        from capnet.machine_faults import machine_faults
        from capnet.progress import show_lines
        from capnet.redaction import install
        from capnet.state import use_own_temporary_folder
        from capnet.streams import escape_output, name_sudden_end, open_closed_streams

        open_closed_streams()
        name_sudden_end()
        escape_output()
        install()
        use_own_temporary_folder()
        with exits("capnet"), machine_faults():
            if process_rank() == 0:
                show_lines()
            main.main(standalone_mode=True)
    except KeyboardInterrupt:  # before or after click
        stopped()


if __name__ == "__main__":
    entry()
