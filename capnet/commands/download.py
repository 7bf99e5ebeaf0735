"""`capnet download NAME`: get a published benchmark."""

from __future__ import annotations

from pathlib import Path

import click

from capnet.commands.options import path_option

NUS_WIDE = """NUS-WIDE cannot be downloaded by a program: its publisher wants to know who uses the images.

  where: https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html
  to do: 1. download Groundtruth and Image List there (free)
         2. fill in the Agreement and Disclaimer Form and send it; the images come by e-mail
         3. put all of it into one folder, and name the folder as data.root in params.yaml"""


@click.command()
@click.argument("name", type=click.Choice(["voc2007", "voc2012", "coco2017", "nus-wide"]))
@path_option("--out", default="data", help="Folder to extract into; benchmarks may share it.")
@click.option("--base-url", default="", help="A mirror that has the same files below it.")
@click.option("--keep-archives", is_flag=True, help="Keep the archives in OUT/.downloads after extraction.")
def command(name: str, out: Path, base_url: str, keep_archives: bool) -> None:
    """Download a benchmark with checksums and extract it. Broken off, it goes on where it was.

    \b
    Examples:
      capnet download voc2012
      capnet download voc2007 --out /data/voc
      capnet download coco2017 --base-url https://mirror.example.org/coco
    """
    if name == "nus-wide":
        click.echo(NUS_WIDE)
        return
    from capnet.data.sources.downloads import BENCHMARKS, fetch_benchmark

    benchmark = BENCHMARKS[name]
    for line in fetch_benchmark(benchmark, out, base_url, keep_archives):
        click.echo(f"download: {line}")
    click.echo(f"download: {name} is in {out / benchmark.holds}")
