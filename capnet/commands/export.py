"""`capnet export`: a registered model as one ONNX file."""

from __future__ import annotations

import re
from mmap import ACCESS_READ, mmap
from pathlib import Path

import click

from capnet.commands.options import model_option, path_option, settings_options
from capnet.errors import ConfigError, ContractError, counted

# how ONNX stores the metadata that every export has: their name, the length of their text, and the text
WRITTEN = re.compile(rb"\n\x06capnet\x12[\x80-\xff]*[\x00-\x7f]\{", re.DOTALL)
EPILOG = """\b
Examples:
  capnet export --out model.onnx                              the champion
  capnet export --model outputs --out model.onnx              what was trained last, without a registry
  capnet export --model models:/capnet/7 --check data/images  compared on images of your own"""


@click.command("export", epilog=EPILOG)
@path_option(
    "--out",
    default="model.onnx",
    help="ONNX file; what else a program must know goes into a .json of the same name.",
)
@model_option
@click.option(
    "--check",
    default="",
    metavar="LOCATION",
    help="Images to compare both on, at most 100 of them, as for predict; default: eight of noise.",
)
@settings_options("sections register and runtime are used, and data for s3://", ("register", "runtime", "data"))
def command(out: Path, address: str, check: str, params: str, settings: tuple[str, ...]) -> None:
    """Write the image tower and the class matrix as one ONNX graph: images in, logits out, for programs without
    Python.

    The file is compared with capnet's own scores before it is written, with one view and with the averaged views.
    Decoding, views, their average and thresholds stay outside the graph: the JSON file of the same name says how.
    """
    from capnet.commands.open_model import open_model
    from capnet.config import load
    from capnet.serving import onnx_export
    from capnet.serving.image_source import list_images

    check_graph(out)
    check_description(out.with_suffix(".json"))
    # the graph has one precision
    loaded = load(Path(params), (*settings, "runtime.device=cpu", "runtime.precision=fp32"))
    images = []
    if check:
        source = list_images(check, loaded.data)
        images = [source.root / name for name in source.names]
    with open_model(address, loaded) as (served, key, _):
        measured = onnx_export.export(served, key, out, images)
    on = counted(measured.pictures, "image") if measured.pictures else "images of noise"
    click.echo(f"export: {key} in {out}, {measured.megabytes:.1f} MB; how to use it in {out.with_suffix('.json')}")
    differences = f"{measured.single:.1g} (one view) and {measured.averaged:.1g} (averaged views)"
    click.echo(f"scores on {on} differ by at most {differences}")
    click.echo(
        f"one view takes {measured.onnx_ms:.1f} ms in ONNX Runtime, {measured.capnet_ms:.1f} ms in capnet, on"
        f" {loaded.runtime.threads} threads"
    )


def check_graph(path: Path) -> None:
    """A graph replaces that of an earlier export, and nothing else.

    Args:
        path: of the graph.

    Raises:
        ConfigError: a folder is there, or a file of another kind.
    """
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return
    if path.is_file():
        with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            if WRITTEN.search(content):
                return
    what = "the output is a folder" if path.is_dir() else "there is a file that no earlier export wrote"
    raise ConfigError(what, str(path), "name another output, or move the file")


def check_description(path: Path) -> None:
    """The JSON file of a graph replaces that of an earlier export, and nothing else.

    Args:
        path: of the JSON file, which nobody named.

    Raises:
        ConfigError: another file is there.
    """
    from capnet.contracts import read_json

    try:
        is_free = not path.exists() or read_json(path).keys() >= {"weight_hash", "output"}
    except (ContractError, AttributeError):  # no JSON, or no object
        is_free = False
    if not is_free:
        todo = "name another output, or move the file"
        raise ConfigError(
            "the description would take the place of a file that no earlier export wrote", str(path), todo
        )
