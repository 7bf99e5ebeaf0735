"""`capnet STAGE`: one command for every row of the stage table."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from capnet.commands.options import in_order, local_pairs, pairs, settings_options
from capnet.stages import STAGES, Stage, figures_in_words, process_rank, run

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


def stage_command(name: str) -> click.Command:
    """The command of stage ``name``: its settings, other paths of its inputs and outputs, and what only some have."""
    stage = STAGES[name]

    def execute(params: str, **options: Any) -> None:
        from capnet.commands.dvc_stage import refusing_changes

        with refusing_changes(name, Path(params), options.get("save_reference", False)):
            _execute(name, params, **options)

    epilog = f"\b\nExamples:\n  capnet {name}"
    if name in EXAMPLES:
        epilog += f"\n  capnet {name} --set {EXAMPLES[name]}"
    reads, writes = ", ".join(stage.inputs.values()), ", ".join(stage.outputs.values())
    text = f"{stage.summary}\n\nReads {reads}; writes {writes}. Settings: {', '.join(stage.sections)}."
    return click.command(name, help=text, epilog=epilog)(in_order(*_options(name, stage))(execute))


def _options(name: str, stage: Stage) -> list[Callable[..., Any]]:
    inputs, outputs = ", ".join(stage.inputs), ", ".join(stage.outputs)
    result = [
        settings_options(),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            callback=pairs,
            metavar="NAME=PATH",
            help=f"Another path of an input ({inputs}).",
        ),
        click.option(
            "--output",
            "outputs",
            multiple=True,
            callback=local_pairs,
            metavar="NAME=PATH",
            help=f"Another path of an output ({outputs}).",
        ),
    ]
    if name == "register":
        result.append(
            click.option("--check", is_flag=True, help="Register again only where the store lacks this version.")
        )
    if name in REFERENCES:
        result.append(click.option("--save-reference", is_flag=True, help=REFERENCES[name]))
    return result


def _execute(
    name: str,
    params: str,
    settings: tuple[str, ...],
    inputs: dict[str, str],
    outputs: dict[str, str],
    check: bool = False,
    save_reference: bool = False,
) -> None:
    """Run the stage with the command's options, and print its figures in a line."""
    from capnet.config import load

    stage, loaded = STAGES[name], load(Path(params), settings)
    unread = sorted({item.partition(".")[0] for item in settings} - set(stage.sections))
    if unread and process_rank() == 0:
        click.echo(f"{name}: reads no settings of {', '.join(unread)}: --set changes nothing there", err=True)
    sources = {**stage.inputs, **({"data": loaded.data.root} if "data" in stage.inputs else {}), **inputs}
    targets = {**stage.outputs, **outputs}
    if check:
        from capnet.registry.register import registered

        paths = (targets["registration"], sources["model"], sources["evaluation"])
        if registered(loaded.register_, *map(Path, paths)):
            click.echo("register: the store has this model version")
            return
    if save_reference:
        from capnet.commands.save_reference import split_and_save, validate_and_save

        save = split_and_save if name == "split" else validate_and_save
        folders = {key: Path(path) for key, path in {**sources, **targets}.items()}
        figures = save(loaded, folders, lambda params: run(name, params, sources, targets))
    else:
        figures = run(name, loaded, sources, targets)
    if process_rank() == 0:
        click.echo(f"{name}: {figures_in_words(figures) or 'done'}")
        if name == "register":
            click.echo(_next_step(Path(sources["evaluation"]) / "report.html", params, settings))


def _next_step(report: Path, params: str, settings: tuple[str, ...]) -> str:
    """Where the report of the registered version is, and the command that makes this version champion."""
    command = ["capnet", "promote"]
    if params != "params.yaml":
        command += ["--params", params]
    for item in settings:
        if item.startswith("register."):
            command += ["--set", item]
    return f"register: report {report}; `{shlex.join(command)}` compares this version with the champion"
