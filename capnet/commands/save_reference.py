"""`--save-reference` of the stages split and validate: files in git that later splits are held to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from capnet.config import Params, Split
from capnet.contracts import read_classes, read_json, read_manifest, read_split, replace_file, write_json
from capnet.errors import ConfigError, ContractError, counted
from capnet.inline import MOST_TABLE, TEXT, content_of, text_and_path

Run = Callable[[Params], dict[str, float]]


def validate_and_save(params: Params, folders: Mapping[str, Path], validate: Run) -> dict[str, float]:
    """Run stage validate against the reference that the split itself gives, and write that to the file
    ``validate.reference`` once the stage has accepted the split.

    Args:
        params: all settings.
        folders: ``split``.
        validate: runs the stage with settings.

    Returns:
        The stage's figures.

    Raises:
        ConfigError: ``validate.reference`` names no file, or one of another kind.
    """
    from capnet.data.checks.drift import drift_counts

    path = reference_file("validate.reference", params.validate_.reference, "reference/validation.json")
    split = folders["split"]
    content = drift_counts(read_split(split / "split.parquet"), read_classes(split / "classes.json"))
    own = params.validate_.model_copy(update={"reference": TEXT + json.dumps(content)})
    figures = validate(params.model_copy(update={"validate_": own}))
    write_json(path, content)
    click.echo(f"validate: wrote {path}; commit it, so that later data is compared with it")
    return figures


def split_and_save(params: Params, folders: Mapping[str, Path], split: Run) -> dict[str, float]:
    """Run stage split, and write which images are in test, and which are not, to the file ``split.reference``.

    Args:
        params: all settings.
        folders: ``manifest``, which also has the images that a draw leaves over, and ``split``, which the stage writes.
        split: runs the stage with settings.

    Returns:
        The stage's figures.

    Raises:
        ConfigError: ``split.reference`` names no file, or one that is no such table.
    """
    from capnet.data.splits.reference import read_split_reference, reference_text

    path = reference_file("split.reference", params.split.reference, "reference/split.csv")
    before = read_split_reference(str(path))  # another table is not written over
    figures = split(params)
    images = read_manifest(folders["manifest"] / "manifest.parquet")
    splits = read_split(folders["split"] / "split.parquet").set_index("image_id")["split"]
    replace_file(path, reference_text(images.assign(split=images["image_id"].map(splits)), before))
    click.echo(f"split: wrote {path}; commit it, so that test images stay test images when others are added")
    return figures


def unrecorded(settings: Split, folder: Path) -> str:
    """How many of the drawn test images are not in the file ``split.reference``.

    Args:
        settings: the section ``split``.
        folder: what stage split wrote.

    Returns:
        "16 of 46 test images"; "" where all are recorded or none is to be, test was not drawn, or no split can be read.
    """
    from capnet.data.splits.reference import TEST, read_split_reference

    try:
        if not settings.reference or not (folder / "split.json").is_file():
            return ""
        if read_json(folder / "split.json")["test_source"] != "share":
            return ""
        table = read_split(folder / "split.parquet")
    except ContractError:  # the next stage says so
        return ""
    known = read_split_reference(settings.reference).images
    test = table["image_id"][table["split"] == TEST]
    count = sum(known.get(image) != TEST for image in test)
    return f"{count} of {counted(len(test), 'test image')}" if count else ""


def first_step(settings: Split, folder: Path) -> list[str]:
    """The line that says to record the test images before the data changes; none where there is nothing to record."""
    images = unrecorded(settings, folder)
    line = f"First: capnet split --save-reference; {images} are not recorded and may become training images."
    return [line] if images else []


def reference_file(name: str, setting: str, usual: str) -> Path:
    """The file that the setting ``name`` says, with the ending of the ``usual`` one; raises ConfigError otherwise."""
    if not setting or content_of(setting) is not None:
        raise ConfigError(f"{name} names no file", "params.yaml", f"write a path there, such as {usual}")
    _, path = text_and_path(setting, name, MOST_TABLE)
    ending = Path(usual).suffix
    if path.suffix != ending:
        what = f"a reference is a {ending[1:].upper()} file, and this name has another ending"
        raise ConfigError(what, f"{name} = {setting!r}", f"end it in {ending}")
    return path
