"""`capnet STAGE` for every row of the stage table, and the commands of capnet/commands."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from capnet import __version__
from capnet.commands.options import COLUMNS, in_order, local_pairs, pairs, settings_options
from capnet.errors import stopped
from capnet.stages import STAGES, figures_in_words, process_rank, run

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
# stage: a setting that its help shows as an example
EXAMPLES = {
    "train": "train.epochs=3",
    "split": "split.method=pareto",
    "validate": "validate.images=full",
    "evaluate": "evaluate.bootstrap=200",
    "register": "register.name=birds",
}
# stage: what --save-reference does there
REFERENCES = {
    "split": "Write which images are in test to the file split.reference, for later splits to keep.",
    "validate": "Write the file validate.reference from this split, for later runs to compare with.",
}
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
            return _stage_command(name)
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
        return super().resolve_command(ctx, args)

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


def _stage_command(name: str) -> click.Command:
    stage = STAGES[name]

    def execute(params: str, **options: Any) -> None:
        from capnet.commands.dvc_stage import refusing_changes

        with refusing_changes(name, Path(params), options.get("save_reference", False)):
            run_stage(params, **options)

    def run_stage(
        params: str, settings: tuple[str, ...], inputs: dict[str, str], outputs: dict[str, str], **options: Any
    ) -> None:
        from capnet.config import load

        loaded = load(Path(params), settings)
        unread = sorted({item.partition(".")[0] for item in settings} - set(stage.sections))
        if unread and process_rank() == 0:
            click.echo(f"{name}: reads no settings of {', '.join(unread)}: --set changes nothing there", err=True)
        sources = {**stage.inputs, **({"data": loaded.data.root} if "data" in stage.inputs else {}), **inputs}
        targets = {**stage.outputs, **outputs}
        if options.get("check"):
            from capnet.registry.register import registered

            paths = (targets["registration"], sources["model"], sources["evaluation"])
            if registered(loaded.register_, *map(Path, paths)):
                click.echo("register: the store has this model version")
                return
        if options.get("save_reference"):
            from capnet.commands.save_reference import split_and_save, validate_and_save

            save = split_and_save if name == "split" else validate_and_save
            folders = {key: Path(path) for key, path in {**sources, **targets}.items()}
            metrics = save(loaded, folders, lambda params: run(name, params, sources, targets))
        else:
            metrics = run(name, loaded, sources, targets)
        if process_rank() == 0:
            click.echo(f"{name}: {figures_in_words(metrics) or 'done'}")

    options = [
        settings_options(),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            callback=pairs,
            metavar="NAME=PATH",
            help=f"Another path of an input ({', '.join(stage.inputs)}).",
        ),
        click.option(
            "--output",
            "outputs",
            multiple=True,
            callback=local_pairs,
            metavar="NAME=PATH",
            help=f"Another path of an output ({', '.join(stage.outputs)}).",
        ),
    ]
    if name == "register":
        options.append(
            click.option("--check", is_flag=True, help="Register again only where the store lacks this version.")
        )
    if name in REFERENCES:
        options.append(click.option("--save-reference", is_flag=True, help=REFERENCES[name]))
    epilog = f"\b\nExamples:\n  capnet {name}"
    if name in EXAMPLES:
        epilog += f"\n  capnet {name} --set {EXAMPLES[name]}"
    reads, writes = ", ".join(stage.inputs.values()), ", ".join(stage.outputs.values())
    text = f"{stage.summary}\n\nReads {reads}; writes {writes}. Settings: {', '.join(stage.sections)}."
    return click.command(name, help=text, epilog=epilog)(in_order(*options)(execute))


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
