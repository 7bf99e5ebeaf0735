"""`capnet shard`: the images as tar shards in WebDataset layout, with the tables that ingest reads."""

from __future__ import annotations

from pathlib import Path

import click

from capnet.commands.options import path_option, settings_options
from capnet.errors import counted


@click.command()
@path_option("--out", default="data-shards", help="Folder to write; it must be empty or new.")
@settings_options("data.root and ingest.separator")
@path_option("--manifest", default="outputs/manifest", help="Images that ingest has listed.")
@path_option("--split", help="Only the images of a split, such as outputs/split, each in shards of its own.")
@click.option("--size", default=500, show_default=True, type=click.IntRange(min=1), help="Megabytes of a shard, about.")
@click.option(
    "--shorter",
    default=0,
    metavar="PIXELS",
    type=click.IntRange(min=0),
    help="Store images whose shorter side is longer as JPEGs of this one, quality 95, upright; 0: all as they are.",
)
def command(
    out: Path, params: str, settings: tuple[str, ...], manifest: Path, split: Path | None, size: int, shorter: int
) -> None:
    """Write images as tar shards: fewer files to list, copy and fetch. What it writes is a data folder:
    set data.root to it, data.format to csv and ingest.images to listed.

    \b
    Examples:
      capnet shard --out data-shards
      capnet shard --out data-shards --split outputs/split --size 200
      capnet shard --out data-shards --shorter 512        large photos, for views of 224 px with room to spare
    """
    from capnet.config import load
    from capnet.contracts import read_classes, read_manifest, read_split
    from capnet.contracts.publish import all_or_nothing
    from capnet.data.images.shard_set import write_shard_set
    from capnet.data.sources.root import local_root
    from capnet.progress import bar

    chosen = load(Path(params), settings)
    source = split or manifest
    rows = read_split(source / "split.parquet") if split else read_manifest(source / "manifest.parquet")
    classes = read_classes(source / "classes.json")
    root = local_root(chosen.data, Path(chosen.data.root), rows)
    with all_or_nothing(out, "shards") as folder, bar("writing shards", len(rows)) as advance:
        count = write_shard_set(folder, rows, classes, root, size * 10**6, chosen.ingest.separator, advance, shorter)
    made = f"{counted(len(rows), 'image')} in {counted(count, 'shard')} in {out}"
    click.echo(f"shard: {made}; set data.root: {out}, data.format: csv, ingest.images: listed")
