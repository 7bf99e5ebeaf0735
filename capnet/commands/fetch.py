"""`capnet fetch`: copy remote images ahead of time, with the same checks as the stages."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import click

from capnet.commands.options import settings_options
from capnet.errors import ContractError, counted
from capnet.redaction import redact


@click.command()
@settings_options()
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(["train", "val", "test"]),
    help="Only these rows of outputs/split; may be repeated.",
)
def command(params: str, settings: tuple[str, ...], splits: tuple[str, ...]) -> None:
    """Copy the images of a remote data.root into the state folder, so that stages find them there.

    Which ones: those of outputs/split, else those of outputs/manifest, else (before ingest) the label files.

    \b
    Examples:
      capnet fetch
      capnet fetch --split train --split val
      capnet fetch --set data.root=s3://bucket/birds
    """
    from capnet.config import load
    from capnet.contracts import read_manifest, read_split
    from capnet.data.sources.root import is_remote, local_root

    data = load(Path(params), settings).data
    root = Path(data.root)
    if not is_remote(data, root):
        click.echo(
            f"fetch: data.root is the folder {data.root}, nothing is copied. Versions under DVC come with:"
            f" dvc pull {quote(f'{root}.dvc')}"
        )
        return
    split, manifest = Path("outputs/split/split.parquet"), Path("outputs/manifest/manifest.parquet")
    rows = None
    if split.is_file():
        rows = read_split(split)
    elif manifest.is_file():
        rows = read_manifest(manifest)
    if splits:
        if rows is None or "split" not in rows:
            raise ContractError(
                "there is no split yet",
                str(split),
                "run `capnet ingest` and `capnet split` first, or leave out --split",
            )
        rows = rows[rows["split"].isin(splits)]
    copies = local_root(data, root, rows)
    what = "label files" if rows is None else counted(len(rows), "image")
    click.echo(redact(f"fetch: {what} of {data.root} in {copies}"))
