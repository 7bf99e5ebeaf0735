"""`capnet validate --save-reference`: write what later splits are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from capnet.contracts import read_classes, read_split, replace_file, write_json
from capnet.errors import CapnetError, ConfigError
from capnet.inline import content_of


@contextmanager
def saved_reference(split: Path, reference: str) -> Iterator[None]:
    """Write the file ``reference`` from the split in folder ``split``; where the body raises CapnetError, what was
    there before comes back.

    Raises ConfigError where ``validate.reference`` names no file, or one of another kind.
    """
    from capnet.data.checks.drift import measure

    if not reference or content_of(reference) is not None:
        raise ConfigError(
            "validate.reference names no file", "params.yaml", "write a path there, such as reference/validation.json"
        )
    path = Path(reference)
    if path.suffix != ".json":
        what = "a reference is a JSON file, and this name has another ending"
        raise ConfigError(what, f"validate.reference = {reference!r}", "end it in .json")
    before = path.read_bytes() if path.is_file() else None
    classes = read_classes(split / "classes.json")
    write_json(path, measure(read_split(split / "split.parquet"), classes))
    try:
        yield
    except CapnetError:
        if before is None:
            path.unlink()
        else:
            replace_file(path, before)
        raise
    click.echo(f"validate: wrote {path}; commit it, so that later data is compared with it")
