"""`capnet sync`: send to the tracking server what was written while it was not there."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "sync", epilog="\b\nExamples:\n  capnet sync\n  MLFLOW_TRACKING_URI=https://mlflow.example.org capnet sync"
)
@click.option(
    "--params", default="params.yaml", show_default=True, help="Settings file; section register names the store."
)
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated."
)
def command(params: str, settings: tuple[str, ...]) -> None:
    """Send spooled tracking records, in order and once.

    Training never waits for the tracking server: its records lie in the state folder ($CAPNET_STATE, usually .capnet/)
    and are sent beside it. What could not be sent goes out with this command, or with the next `capnet register` of
    that model.
    """
    from capnet.config import load
    from capnet.errors import Problem
    from capnet.registry.run import takes_records
    from capnet.tracking.client_store import ClientStore
    from capnet.tracking.sender import send
    from capnet.tracking.spool import spools
    from capnet.tracking.store import StoreError, masked, store, tracking_uri

    register = load(Path(params), settings).register_
    uri = tracking_uri(register)
    waiting = [(spool, len(spool.records(int(spool.sent(uri)["sent"])))) for spool in spools()]
    waiting = [(spool, count) for spool, count in waiting if count]
    if not waiting:
        click.echo(f"sync: nothing to send to {masked(uri)}")
        return
    problems: list[Problem] = []
    with store(register, "send the spooled records") as client:
        for spool, count in waiting:
            if not takes_records(client, spool, uri):
                what = f"records of a run that was deleted, or is not in this store: {count}"
                problems.append(
                    Problem(what, str(spool.folder), "restore it (`mlflow runs restore`), or remove that folder")
                )
                continue
            try:
                run_id = send(ClientStore(client, register), spool)
            except StoreError as error:  # of this run alone: its experiment was deleted
                problems += error.problems
                continue
            click.echo(
                f"sync: {count} records to run {run_id}" if run_id else "sync: another process is sending this run"
            )
    if problems:
        raise StoreError(problems=problems)
