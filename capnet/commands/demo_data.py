"""`capnet demo-data`: draw the built-in demo pictures, and see that they are the ones data.dvc describes."""

from __future__ import annotations

from pathlib import Path

import click

from capnet.contracts import tree_hash
from capnet.errors import DataError


@click.command()
@click.option("--out", default="data", show_default=True, type=click.Path(path_type=Path), help="Folder to draw into; it must be empty or new.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Another seed draws other pictures of the same kind.")
def command(out: Path, seed: int) -> None:
    """Draw the demo set: scenes of OpenMoji pictograms with labels.csv, classes.csv and the attribution.

    \b
    Examples:
      capnet demo-data --out data
      capnet demo-data --out /tmp/other-scenes --seed 1
    """
    from capnet.data.scene_catalogue import KINDS, SCENES
    from capnet.data.scene_set import SEED, all_or_nothing, differences_from_tested, recorded_hash, total, write_set
    from capnet.progress import bar

    with all_or_nothing(out) as folder:
        with bar("drawing", total()) as advance:
            write_set(folder, seed, advance)
        wanted = recorded_hash(out) if seed == SEED else ""
        found = tree_hash(folder) if wanted else ""
        differences = differences_from_tested() if found != wanted else []
        if found != wanted and not differences:
            raise DataError(
                f"the pictures drawn have the tree hash {found}, data.dvc says {wanted}; nothing was written",
                "data.dvc",
                "if data.dvc describes your own pictures, fetch them with `dvc pull`; if it should describe the demo, "
                "`git checkout data.dvc`, and install what constraints.txt pins: pip install -c constraints.txt -e '.[dev]'",
            )
    if differences:
        click.echo(f"demo-data: warning: other bytes than data.dvc describes ({'; '.join(differences)}); `dvc add {out}` records yours", err=True)
    same = ", as data.dvc describes them" if wanted and found == wanted else ""
    click.echo(f"demo-data: {total()} pictures of {len(KINDS)} classes in {len(SCENES)} kinds of scenes in {out}{same}")
