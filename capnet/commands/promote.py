"""`capnet promote`: move the alias `champion` behind the gate, take it back, copy a version to another registered
model, audit.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capnet.commands.options import settings_options
from capnet.errors import CapnetError, ConfigError, DataError, GateError, counted, one_line

if TYPE_CHECKING:
    from capnet.promotion.promote import Audit, Outcome
    from capnet.promotion.verdict import Verdict

EPILOG = """\b
Examples:
  capnet promote                                  the challenger, if the gate lets it pass
  capnet promote --version 7 --yes                although the gate cannot decide
  capnet promote --version 7 --force --reason "the old model mislabels the new camera"
  capnet promote --to capnet-production           copy it there and promote it there
  capnet promote --rollback
  capnet promote --audit                          what happened to the alias, also elsewhere"""


@click.command("promote", epilog=EPILOG)
@settings_options("section register names store, model and policy")
@click.option(
    "--version",
    "number",
    default=None,
    metavar="N",
    help="Version to promote; without it the one under register.alias.",
)
@click.option(
    "--to",
    "target",
    default=None,
    metavar="NAME",
    help="Another registered model: the version is copied there and promoted there.",
)
@click.option("--rollback", is_flag=True, help="Back to the champion before the present one.")
@click.option(
    "--audit",
    is_flag=True,
    help="Print the history, record moves made elsewhere; exit code 5 where readers refuse the champion.",
)
@click.option("--force", is_flag=True, help="Promote although the verdict is red; needs --reason.")
@click.option("--reason", default="", help="One sentence for the history; see above when it is needed.")
@click.option("--yes", is_flag=True, help="Do not ask where the gate cannot decide.")
@click.option(
    "--data",
    default="",
    metavar="FOLDER",
    help="Images, to score with the champion what it was not tested on (with --split).",
)
@click.option(
    "--split",
    "split",
    default="outputs/split",
    show_default=True,
    metavar="FOLDER",
    help="Split that says where those images are.",
)
def command(
    params: str,
    settings: tuple[str, ...],
    number: str | None,
    target: str | None,
    rollback: bool,
    audit: bool,
    force: bool,
    reason: str,
    yes: bool,
    data: str,
    split: str,
) -> None:
    """Make a version the champion of its registered model, if it holds what mlflow/promotion.yaml asks for.

    The gate compares it with the present champion on the same test pictures: each rule passes, fails or cannot be
    decided. A version that fails is refused unless --force gives a reason; where nothing can be decided you are asked.
    --reason must say why a version may serve that is probably worse than what is allowed; that is compared on too few
    of the champion's test pictures, or not at all: its classes are others, the champion's scores are gone, it is the
    first champion of another registered model (--to), or the last champion was deleted; whose thresholds were
    chosen for another objective than the champion's; or that comes back by another policy. A policy that asks for less
    than the one that the champion passed counts as a failed rule.
    """
    from capnet.config import load
    from capnet.promotion import promote as promotion
    from capnet.promotion.copies import copy
    from capnet.promotion.policy import read_policy
    from capnet.serving.rescore import rescorer
    from capnet.tracking.store import store

    if rollback + audit + (number is not None or target is not None) > 1:
        raise click.UsageError("--rollback, --audit, and --version or --to exclude each other")
    check_names(number, target)
    if data and not Path(data).is_dir():
        raise DataError("there is no such folder", f"--data {data}", "give the folder on this machine with the images")
    reason = one_line(reason)  # a store takes no letters of another encoding, and not any length
    loaded = load(Path(params), settings)
    register = loaded.register_
    policy = read_policy(register.policy)
    with store(register, "move the champion" if not audit else "read the history", reads=True) as client:
        if audit:
            show_audit(promotion.audit(client, register.name), register.name)
            return
        if rollback:
            show_move(promotion.rollback(client, register.name, force, reason), " again")
            return
        number = number or client.get_model_version_by_alias(register.name, register.alias).version
        version = client.get_model_version(register.name, number)
        if target and target != register.name:
            version = copy(client, version, target)
        rescore = None if not data else lambda champion: rescorer(champion, loaded.runtime, Path(data), Path(split))
        try:
            done = promotion.promote(
                client, version, policy, lambda verdict: yes or ask(verdict), force, reason, rescore
            )
        except CapnetError:
            click.echo(f"champion of {version.name}: not moved", err=True)
            raise
    if done.event is None:
        click.echo(f"champion of {done.name}: version {done.after} already")
        return
    is_shown = done.verdict is not None and done.verdict.colour == "inconclusive" and not (yes or force)
    if done.verdict is not None and not is_shown:  # ask has shown it
        show_verdict(done.verdict)
    show_move(done)


def show_move(done: Outcome, again: str = "") -> None:
    """Print the champion and the one before it, if any; and what took its place at the same time, if anything."""
    before = f", was version {done.before}" if done.before not in ("", done.after) else ""
    click.echo(f"champion of {done.name}: version {done.after}{again}{before}")
    if done.now != done.after:
        moved = f"another promotion moved it to version {done.now}" if done.now else "it or its alias was deleted"
        click.echo(f"but {moved} at the same time", err=True)


def check_names(number: str | None, target: str | None) -> None:
    """Raise ConfigError for a version or a registered model that cannot be, such as a variable without a value."""
    from pydantic import ValidationError

    from capnet.config import Register

    if number is not None and not re.fullmatch("[1-9][0-9]{0,8}", number):
        raise ConfigError(f"{number!r} is no version", "--version", "give its number, such as 3, or leave it out")
    try:
        Register() if target is None else Register(name=target)
    except ValidationError:  # only a name that can be set has a way back
        todo = "give a name that register.name may have (`capnet preset own` says which), or leave it out"
        raise ConfigError(f"{target!r} is no name of a registered model", "--to", todo) from None


def show_verdict(verdict: Verdict) -> None:
    lines = (*verdict.causes, *map(str, verdict.rules), *verdict.asks, *verdict.notes, *verdict.fell_most)
    for line in dict.fromkeys(lines):
        click.echo(one_line(line))
    click.echo(f"verdict: {verdict.colour}, on {counted(verdict.rows, 'test picture')}")


def ask(verdict: Verdict) -> bool:
    """A person's answer; no where nobody can be asked."""
    if not sys.stdin.isatty():
        return False
    show_verdict(verdict)
    worse = ", ".join(rule.name for rule in verdict.likely)
    question = f"Probably below what is allowed: {worse}. Promote all the same?" if worse else ""
    return click.confirm(question or "The gate cannot decide. Promote?", default=False)


def show_audit(history: Audit, name: str) -> None:
    """Print the history; GateError where readers refuse the present champion."""
    from capnet.promotion.champion import identity

    for event in history.events:
        for line in event.lines():
            click.echo(one_line(line))
    if not history.events:
        click.echo(f"{name} has no history yet")
    if history.new is not None:
        click.echo(
            "new: the alias was moved outside capnet promote, to"
            f" {'version ' + history.champion if history.champion else 'none'}"
        )
    if history.refused:
        raise GateError(
            f"the champion is refused by its readers: {identity(name, history.champion)} has {history.refused}",
            f"models:/{name}@champion",
            "`capnet promote --rollback`, or promote a version that passes, or `--force --reason ...`",
        )
