"""`capnet label`: new images with the model's labels filled in, for people to correct; the result is a table."""

from __future__ import annotations

import shlex
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capnet.commands.label_images import draw, images_of, labelled_before, prefix_of, unlabelled
from capnet.commands.label_page import (
    NAMED,
    chosen_rows,
    common_classes,
    folder_group,
    page,
    require_class,
    row_of,
    stem_of,
    suggestions,
)
from capnet.commands.options import model_option, path_option, settings_options
from capnet.errors import ConfigError, DataError, counted, shown, some

if TYPE_CHECKING:
    from capnet.config import Params

PAGE, PREDICTIONS = "label.html", "label.parquet"
SIDE = 360  # pixels of an image on the page
EPILOG = """\b
Examples:
  capnet label --input data/july                      100 images, drawn at random
  capnet label --input data/july --class lynx         those in which the model suspects a lynx most
  capnet label --input data/site12 --group "site 12"  images that belong together
  mkdir -p data/added && mv ~/Downloads/july-*.csv data/added/ && dvc repro    train on their labels, too"""


@click.command("label", epilog=EPILOG)
@click.option(
    "--input",
    "location",
    required=True,
    metavar="LOCATION",
    help="Folder of images, in the data folder; or s3://BUCKET/PREFIX.",
)
@model_option
@settings_options()
@path_option("--out", default="label", help="Folder to write.")
@click.option("--most", type=click.IntRange(1, 2000), default=100, show_default=True, help="Images, at most.")
@click.option("--class", "suspect", default="", metavar="NAME", help="Images in which this class is most probable.")
@click.option("--group", default="", metavar="NAME", help="Group of these images, such as their camera or patient.")
@click.option("--group-from-folder", is_flag=True, help="Group of each image: its first folder below --input.")
def command(
    location: str,
    address: str,
    params: str,
    settings: tuple[str, ...],
    out: Path,
    most: int,
    suspect: str,
    group: str,
    group_from_folder: bool,
) -> None:
    """Write a page on which people label new images, with the model's labels filled in.

    Open label.html, correct the labels of each image, tick it as looked at, and save the table. Put it into the folder
    "added" of the data folder: stage ingest reads all tables there beside the annotations, whatever their format.
    Images that have labels are left out.

    Images are drawn at random: a fair sample, which may become test images. Those that --class chooses are no fair
    sample, so the table gives them the split train; images with a group get no split, and go where their group is.
    """
    from capnet.commands.open_model import open_model
    from capnet.config import load
    from capnet.contracts import replace_file
    from capnet.data.annotations.paths import DataFolder
    from capnet.data.sources.root import local_root
    from capnet.evaluation.report.thumbnails import link_to, thumbnail
    from capnet.progress import track
    from capnet.serving.predict import predict

    if group and group_from_folder:
        raise ConfigError("--group and --group-from-folder", "arguments", "give one of them")
    loaded = load(Path(params), settings)
    folder = DataFolder(local_root(loaded.data, Path(loaded.data.root)), loaded.data.links)
    before = labelled_before(folder, loaded)
    require_class(suspect, before.classes)
    prefix, is_inside = prefix_of(location, loaded.data.root)
    new, option_groups = list[str](), list[str]()

    def choose(names: Sequence[str]) -> list[str]:
        new.extend(unlabelled(names, prefix, folder, before.paths))
        return new if suspect else sorted(new, key=lambda name: draw(prefix + name))[:most]

    source = images_of(location, loaded.data, choose)
    with open_model(address, loaded) as (served, key, _):
        common = common_classes(served.names, before.classes, suspect, key)
        out.mkdir(parents=True, exist_ok=True)
        done = predict(served, key, source, out / PREDICTIONS)
        for path, fault in done.faults:
            click.echo(shown(f"not read: {path}: {fault}"), err=True)
        if done.images == done.not_read:
            raise DataError(f"none of {counted(done.images, 'image')} can be read", location, "replace the files")
        table = chosen_rows(out / PREDICTIONS, suspect, most)
        items = suggestions(table, served, common)
    for item in track(items, "reading images", len(items)):
        image = source.root / item["path"]
        item |= {"source": thumbnail(image, SIDE), "link": link_to(image, out)}
        path = prefix + item["path"]
        name = folder_group(item["path"], prefix) if group_from_folder else group
        keeps_group = before.keeps_group(path, name)
        item |= row_of(path, name, suspect, keeps_group)
        option_groups += [] if keeps_group else [name]
    stem = stem_of(prefix)
    not_in_model = [name for name in before.classes if name not in common]
    replace_file(out / PAGE, page(items, before.classes, not_in_model, stem, loaded.ingest.separator, key))
    click.echo(f"label: {counted(len(items), 'image')} of {len(new)} without labels, {before.added} added before")
    if not_in_model:
        click.echo(shown(f"The model does not know {some(not_in_model, NAMED)}: type such labels yourself."))
    if (group or group_from_folder) and (kept := len(items) - len(option_groups)):
        click.echo(f"label: {counted(kept, 'image')} with the group that the annotations have, whatever --group says")
    _print_groups(option_groups, before.groups)
    click.echo(f"Open {out / PAGE}, and save the table.")
    if not is_inside:
        click.echo(f"Copy {location} into {loaded.data.root}, as {prefix}: paths in the table begin so.")
    click.echo("\n".join(next_steps(loaded, stem)))


def next_steps(params: Params, stem: str) -> list[str]:
    """What to do with the saved table, a line each.

    Args:
        params: all settings.
        stem: what the table's file name begins with.
    """
    from capnet.commands.save_reference import first_step

    steps = first_step(params.split, Path("outputs/split"))
    added = f"{params.data.root.rstrip('/')}/{params.ingest.added}"
    if "://" in added:
        return [*steps, f"Then put it into {added}, and run `dvc repro`."]
    folder = shlex.quote(added)
    return [*steps, f"Then: mkdir -p {folder}; mv ~/Downloads/{stem}-*.csv {folder}; dvc repro"]


def _print_groups(of_images: Sequence[str], known: Set[str]) -> None:
    """Print which groups of the images on the page are new, and whether some lack one.

    Args:
        of_images: a group or "" for each image whose group the annotations do not have.
        known: groups of all other images.
    """
    if groups := set(of_images) - {""}:
        new = sorted(groups - known)
        more = f"{len(new)} new: {some(new, NAMED)}" if new else "none new"
        click.echo(shown(f"label: {counted(len(groups), 'group')}, {more}"))
    if known and "" in of_images:
        click.echo("Other images have groups: if these belong to some, name them with --group or --group-from-folder.")
