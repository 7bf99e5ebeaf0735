"""`capnet label`: new images with the model's labels filled in, for people to correct; the result is added.csv."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capnet.commands.options import model_option, path_option, settings_options
from capnet.errors import ConfigError, DataError, counted, shown, some

if TYPE_CHECKING:
    import pandas as pd

    from capnet.config import Ingest, Params
    from capnet.data.annotations.paths import DataFolder
    from capnet.serving.engine import Served
    from capnet.serving.predict import Source

PAGE, PREDICTIONS = "label.html", "label.parquet"
COLUMNS = ["path", "labels", "unknown", "split", "group"]  # of a new table
SUGGESTED = 6  # classes shown with an image, at least: those above their threshold, then the most probable
SIDE = 360  # pixels of an image on the page
NAMED = 20  # classes in a message
EPILOG = """\b
Examples:
  capnet label --input data/july                      100 images, drawn at random
  capnet label --input data/july --class lynx         those in which the model suspects a lynx most
  capnet label --input data/site12 --group "site 12"  images that belong together
  mv ~/Downloads/added.csv data && dvc repro          train on their labels, too"""


@dataclass(frozen=True)
class AddedTable:
    """A table of added images as it is: its columns and those that the page needs, and the cells of its rows, which may
    have fewer.
    """

    header: list[str]
    rows: list[list[str]]


@click.command("label", epilog=EPILOG)
@click.option("--input", "location", required=True, metavar="FOLDER", help="Folder of images, in the data folder.")
@model_option
@settings_options()
@path_option("--out", default="label", help="Folder to write.")
@click.option("--most", type=click.IntRange(1, 2000), default=100, show_default=True, help="Images, at most.")
@click.option("--class", "suspect", default="", metavar="NAME", help="Images in which this class is most probable.")
@click.option("--group", default="", metavar="NAME", help="Group of these images, such as their camera or patient.")
def command(
    location: str,
    address: str,
    params: str,
    settings: tuple[str, ...],
    out: Path,
    most: int,
    suspect: str,
    group: str,
) -> None:
    """Write a page on which people label new images, with the model's labels filled in.

    Open label.html, correct the labels of each image, tick it as looked at, and save added.csv. Put it into the data
    folder: stage ingest reads it beside the annotations, whatever their format. Images that have labels are left out;
    rows of an earlier added.csv are in the new one again.

    Images are drawn at random: a fair sample, which may become test images. With --class they are none, and rows say
    split = train; with --group, too, they go where their group is.
    """
    from capnet.commands.predict import model
    from capnet.config import load
    from capnet.contracts import replace_file
    from capnet.data.annotations.paths import DataFolder
    from capnet.data.sources.root import local_root
    from capnet.evaluation.report.thumbnails import thumbnail
    from capnet.progress import track
    from capnet.serving.predict import ENDINGS, Source, predict

    loaded = load(Path(params), settings)
    folder = DataFolder(local_root(loaded.data, Path(loaded.data.root)), loaded.data.links)
    source, prefix, is_inside = images_of(location, loaded.data.root)
    if source.passed_over:
        click.echo(f"label: {source.passed_over}; {ENDINGS}", err=True)
    before, labelled, classes, has_groups = labelled_before(folder, loaded)
    names = [name for name in source.names if prefix + name not in labelled]
    if not names:
        raise DataError(f"all {len(source.names)} images have labels already", location, "name a folder of new ones")
    for name in names:
        if folder.leads_out(prefix + name):  # ingest would refuse it, once people have labelled it
            folder.path(prefix + name)
    drawn = names if suspect else sorted(names, key=lambda name: _draw(prefix + name))[:most]
    out.mkdir(parents=True, exist_ok=True)
    with model(address, loaded) as (served, key, _):
        common = common_classes(served.names, classes, suspect, key)
        done = predict(served, key, Source(drawn, source.root), out / PREDICTIONS)
        for path, fault in done.faults:
            click.echo(shown(f"not read: {path}: {fault}"), err=True)
        if done.images == done.not_read:
            raise DataError(f"none of {counted(done.images, 'image')} can be read", location, "replace the files")
        table = chosen_rows(out / PREDICTIONS, suspect, most)
        items = suggestions(table, served, common)
    for item in track(items, "reading images", len(items)):
        item["source"] = thumbnail(source.root / item["path"], SIDE)
        item |= {"path": prefix + item["path"], "split": "train" if suspect and not group else "", "group": group}
    replace_file(out / PAGE, page(items, classes, before, loaded.ingest, key))
    click.echo(
        f"label: {counted(len(items), 'image')} of {len(names)} without labels, {len(before.rows)} labelled before"
    )
    if has_groups and not group:
        click.echo("Other images have groups: if these belong to one, name it with --group, before people label them.")
    click.echo(f"Open {out / PAGE}, and save {Path(loaded.ingest.added).name}.")
    if not is_inside:
        click.echo(f"Copy {location} into {loaded.data.root}, as {prefix}: paths in the table begin so.")
    click.echo(f"Then put the table into {loaded.data.root} as {loaded.ingest.added}, and run `dvc repro`.")


def images_of(location: str, data_root: str) -> tuple[Source, str, bool]:
    """The images of a folder.

    Args:
        location: the folder.
        data_root: setting ``data.root``.

    Returns:
        The images; what their paths begin with in the data folder, "" or with / at its end; and whether they are in it
        already.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    from capnet.serving.predict import list_images

    if not Path(location).is_dir():
        raise DataError("there is no such folder", location, "name a folder of images")
    folder, root = Path(os.path.abspath(location)), Path(os.path.abspath(data_root))
    if not folder.is_relative_to(root):  # by name, as annotations have it, it may still be reached through a link
        folder, root = folder.resolve(), root.resolve()
    is_inside = folder.is_relative_to(root)
    name = folder.relative_to(root).as_posix() if is_inside else folder.name
    return list_images(location), "" if name in ("", ".") else f"{name}/", is_inside


def labelled_before(folder: DataFolder, params: Params) -> tuple[AddedTable, set[str], list[str], bool]:
    """What there is already.

    Args:
        folder: the data folder.
        params: all settings.

    Returns:
        The table of added images, the paths of all images with labels, the names of the classes, and whether any image
        has a group.

    Raises:
        ConfigError: the table is one that the page cannot continue.
        DataError: mistakes in the annotations or in the table.
    """
    from capnet.data.annotations.added import add_images
    from capnet.data.annotations.reading import read_annotations
    from capnet.data.annotations.tables import open_table

    settings, before = params.ingest, AddedTable(list(COLUMNS), [])
    if not settings.added.endswith(".csv"):
        raise ConfigError(f"ingest.added = {settings.added!r}", "params.yaml", "name a .csv file: the page saves one")
    annotations, added = add_images(read_annotations(folder, params), folder, settings)
    if annotations.problems:
        raise DataError(problems=annotations.problems)
    if added:
        table = open_table(folder.path(settings.added), (), ())
        if "labels" not in table.header:
            what, todo = "it has one column a class, which the page does not write", "write it with a column labels"
            raise ConfigError(what, str(folder.path(settings.added)), todo)
        header = [*table.header, *(name for name in COLUMNS if name not in table.header)]
        before = AddedTable(header, [[str(cell) for cell in cells] for _, cells in table])
    rows = annotations.rows
    return before, set(rows["path"]), annotations.classes.names, bool(rows["group"].notna().any())


def common_classes(of_model: Sequence[str], classes: Sequence[str], suspect: str, model: str) -> set[str]:
    """The classes that the model knows and people may give.

    Args:
        of_model: classes of the model.
        classes: those of the annotations.
        suspect: the class whose images are asked for, or "".
        model: its name.

    Raises:
        ConfigError: there are none, or ``suspect`` is none of them.
    """
    common = [name for name in of_model if name in set(classes)]
    if not common:
        raise ConfigError("the model knows no class of the annotations", model, "name another model: --model")
    if suspect and suspect not in common:
        what = f"no class {suspect!r} in both the model and the annotations"
        raise ConfigError(what, "--class", f"in both are {some(common, NAMED)}")
    return set(common)


def chosen_rows(path: Path, suspect: str, most: int) -> pd.DataFrame:
    """Rows of a table of predictions, those of images that could be read.

    Args:
        path: of the table, in Parquet.
        suspect: name of the class whose highest scores are chosen; "" for the first rows.
        most: rows, at most.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from capnet.serving.output import SCORE

    columns = ["path", "fault", *([f"{SCORE}{suspect}"] if suspect else [])]
    listed = pq.read_table(path, columns=columns).filter(pc.field("fault") == "")
    if suspect:
        listed = listed.sort_by([(columns[-1], "descending")])
    chosen = listed["path"][:most]
    rows = pq.read_table(path, filters=pc.field("path").isin(chosen)).to_pandas()
    order = pc.index_in(pa.array(rows["path"]), chosen.combine_chunks()).to_numpy()
    return rows.iloc[order.argsort()].reset_index(drop=True)


def suggestions(table: pd.DataFrame, served: Served, common: Container[str]) -> list[dict[str, Any]]:
    """What the page shows of each image.

    Args:
        table: predictions.
        served: the model, whose thresholds decide.
        common: classes of the model that may be given.

    Returns:
        ``path`` and ``labels``: name, probability as text and whether it is decided; decided ones first, then the most
        probable, SUGGESTED at least.
    """
    from capnet.serving.output import SCORE

    scores = table[[f"{SCORE}{name}" for name in served.names]].to_numpy()
    probabilities, decided = served.probabilities(scores), scores >= served.limits
    items = []
    for path, row, is_decided in zip(table["path"], probabilities, decided, strict=True):
        order = [int(c) for c in (-row - is_decided).argsort(kind="stable") if served.names[c] in common]
        count = max(SUGGESTED, int(is_decided.sum()))
        labels = [(served.names[c], f"{row[c]:.2f}", bool(is_decided[c])) for c in order[:count]]
        items.append({"path": path, "labels": labels})
    return items


def _draw(path: str) -> str:
    """A random order that stays, whatever else is in the folder."""
    return hashlib.sha256(path.encode()).hexdigest()


def page(
    items: Sequence[Mapping[str, Any]], classes: Sequence[str], before: AddedTable, settings: Ingest, model: str
) -> str:
    """A page that saves the table by itself.

    Args:
        items: of each image path, labels (see ``suggestions``), source, split and group.
        classes: names that may be given.
        before: the table as it is.
        settings: the section ``ingest``.
        model: name of the model.
    """
    from capnet.evaluation.report.render import templates

    table = {"header": before.header, "rows": before.rows, "classes": classes, "separator": settings.separator}
    name = Path(settings.added).name
    return templates().get_template("label.html").render(items=items, table=table, name=name, model=model)
