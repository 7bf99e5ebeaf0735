"""`capnet demo-data`: draw the built-in demo images, and see that they are the ones data.dvc describes."""

from __future__ import annotations

from pathlib import Path

import click

from capnet.commands.options import path_option
from capnet.errors import DataError


def compare_with_record(folder: Path, out: Path) -> tuple[str, str]:
    """What the last line says about the bytes drawn into ``folder`` for ``out``, and a warning; either may be empty.

    Raises DataError where the bytes are not those that ./data.dvc has for ``out`` although this machine should draw
    those.
    """
    from capnet.contracts import tree_hash
    from capnet.data.demo.image_set import differences_from_tested, recorded_hash

    recorded = recorded_hash(out)
    if not recorded:
        return "", ""
    drawn = tree_hash(folder)
    if drawn == recorded:
        return ", byte for byte as data.dvc describes them", ""
    differences = differences_from_tested()
    if differences:
        yours = f"`dvc repro` or `dvc add {out}` records yours"
        return "", f"the bytes are not those of data.dvc: {'; '.join(differences)}; {yours}"
    raise DataError(
        f"the demo images have the tree hash {drawn}, data.dvc says {recorded}; nothing was written",
        "data.dvc",
        "if data.dvc describes your own images, fetch them: dvc pull data.dvc; to draw the demo elsewhere: capnet"
        " demo-data --out demo; if it should describe the demo: git checkout data.dvc",
    )


@click.command()
@path_option("--out", default="data", help="Folder to draw into; it must be empty or new.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Another seed draws other images of the same kind.",
)
def command(out: Path, seed: int) -> None:
    """Draw the demo set: scenes of OpenMoji pictograms with labels.csv, classes.csv and the attribution.

    \b
    Examples:
      capnet demo-data --out data
      capnet demo-data --out /tmp/other-scenes --seed 1
    """
    from capnet.contracts.publish import all_or_nothing
    from capnet.data.demo.catalogue import KINDS, SCENES
    from capnet.data.demo.image_set import SEED, total, write_set
    from capnet.progress import bar

    with all_or_nothing(out, "demo pictures") as folder:
        with bar("drawing", total()) as advance:
            write_set(folder, seed, advance)
        note, warning = compare_with_record(folder, out) if seed == SEED else ("", "")
    if warning:
        click.echo(f"demo-data: warning: {warning}", err=True)
    click.echo(f"demo-data: {total()} images of {len(KINDS)} classes in {len(SCENES)} kinds of scenes in {out}{note}")
