"""`capnet validate --save-reference`: write what later splits are compared with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click

from capnet.config import Params
from capnet.contracts import read_classes, read_split, write_json
from capnet.errors import ConfigError
from capnet.inline import TEXT, content_of, text_and_path


def validate_and_save(params: Params, split: Path, validate: Callable[[Params], dict[str, float]]) -> dict[str, float]:
    """Run stage validate against the reference that the split itself gives, and write that to the file
    ``validate.reference`` once the stage has accepted the split.

    Args:
        params: all settings.
        split: the folder of the split.
        validate: runs the stage with settings.

    Returns:
        The stage's figures.

    Raises:
        ConfigError: ``validate.reference`` names no file, or one of another kind.
    """
    from capnet.data.checks.drift import measure

    setting = params.validate_.reference
    if not setting or content_of(setting) is not None:
        raise ConfigError(
            "validate.reference names no file", "params.yaml", "write a path there, such as reference/validation.json"
        )
    _, path = text_and_path(setting, "validate.reference")
    if path.suffix != ".json":
        what = "a reference is a JSON file, and this name has another ending"
        raise ConfigError(what, f"validate.reference = {setting!r}", "end it in .json")
    content = measure(read_split(split / "split.parquet"), read_classes(split / "classes.json"))
    own = params.validate_.model_copy(update={"reference": TEXT + json.dumps(content)})
    figures = validate(params.model_copy(update={"validate_": own}))
    write_json(path, content)
    click.echo(f"validate: wrote {path}; commit it, so that later data is compared with it")
    return figures
