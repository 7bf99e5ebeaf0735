"""`capnet predict`: a registered model over a folder or a table of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from capnet.commands.open_model import open_model
from capnet.commands.options import model_option, path_option, settings_options
from capnet.errors import ContractError, DataError, GateError, counted, shown, some
from capnet.evaluation.report.words import near, score

SHOWN = 10  # drifted classes
EPILOG = """\b
Examples:
  capnet predict --input new-images                          the champion, into predictions.parquet
  capnet predict --input new.csv --out labels.csv            images named in a table
  capnet predict --input camera7 --out camera7.json          MegaDetector JSON for camera-trap viewers
  capnet predict --model models:/capnet/7 --input folder     one version
  capnet predict --model outputs --input folder              what was trained last, without a registry
  capnet predict --input tonight --fail-on-drift             exit code 5 where images differ: for cron and CI"""


@click.command("predict", epilog=EPILOG)
@click.option(
    "--input",
    "source_address",
    required=True,
    metavar="LOCATION",
    help="Folder of images, table (.csv, .parquet; column path), s3://BUCKET/PREFIX or an image.",
)
@path_option("--out", default="predictions.parquet", help="Output: .parquet, .csv, or .json for MegaDetector's format.")
@model_option
@click.option(
    "--fail-on-drift",
    "fails",
    is_flag=True,
    help="Exit code 5, after everything is written, where a class differs from the reference.",
)
@settings_options("sections register and runtime are used, and data for s3://", ("register", "runtime", "data"))
def command(source_address: str, out: Path, address: str, fails: bool, params: str, settings: tuple[str, ...]) -> None:
    """Label images with a registered model.

    An interrupted call continues where it stopped. Images that are missing or damaged are named in the output and do
    not stop it; an error of the disk or the network that they are on does.
    Label rates and scores are compared with those of the model's test images, where there are 50 of both:
    OUT.drift.json. Without --fail-on-drift a difference changes no exit code.
    """
    from capnet.progress import waiting

    with waiting("predict: loading libraries"):
        from capnet.config import load
        from capnet.contracts import write_json
        from capnet.serving import predict as prediction
        from capnet.serving.drift import Drift
        from capnet.serving.image_source import ENDINGS, list_images

    loaded = load(Path(params), settings)
    prediction.format_of(out)
    source = list_images(source_address, loaded.data)
    prediction.check_out(out, source_address)
    if source.passed_over:
        click.echo(f"predict: {source.passed_over}; {ENDINGS}", err=True)
    with open_model(address, loaded) as (served, key, reference):
        if fails and not reference:
            todo = "register the model and name its version, or leave out --fail-on-drift"
            raise ContractError("the model has no reference to compare images with", key, todo)
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        drift = Drift(reference, served.class_thresholds) if reference else None
        done = prediction.predict(served, key, source, out, drift)
    file = prediction.drift_file(out)
    for path, fault in done.faults:
        click.echo(shown(f"not read: {path or '(no path)'}: {fault}"), err=True)
    labelled = counted(done.images - done.not_read, "image")
    click.echo(f"predict: {labelled} labelled by {key}, {done.not_read} not read, in {out}")
    if done.not_read and done.not_read == done.images:
        raise DataError(
            f"none of {counted(done.images, 'image')} could be read",
            source_address,
            f"{out} says for each what is wrong with it",
        )
    if drift is not None:
        report = drift.report()
        write_json(file, report)
        show_drift(report, file)
        if fails:
            refuse_drift(report, file)


def drifted_classes(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The classes that have drifted, whose rates moved most first."""
    return sorted((item for item in report["classes"] if item["drifted"]), key=lambda item: -abs(item["z"]))


def show_drift(report: Mapping[str, Any], file: Path) -> None:
    """Print the classes whose rate differs most; ``file`` has all."""
    if not report["enough_pictures"]:
        from capnet.serving.drift import FEWEST

        sizes = f"{report['pictures']:,} now, {report['reference_pictures']:,} in the reference"
        click.echo(f"drift: too few images to tell: {sizes}; {FEWEST} of each are needed")
        return
    drifted = drifted_classes(report)
    for item in drifted[:SHOWN]:
        now, before = (score(100 * item[key], 1) for key in ("decided_rate", "reference_rate"))
        rates = f"{now} % of the images, {before} % in the reference"
        psi = near(item["psi"], report["psi_limit"], 2)
        click.echo(shown(f"drift: {item['name']} on {rates}, PSI of its scores {psi}"))
    how = f", by their rate or by their scores (PSI above {report['psi_limit']:.2f})" if drifted else ""
    click.echo(f"drift: {len(drifted)} of {len(report['classes'])} classes differ from the reference{how}; see {file}")


def refuse_drift(report: Mapping[str, Any], file: Path) -> None:
    """Raise GateError where a class has drifted; ``file`` has the report."""
    drifted = [item["name"] for item in drifted_classes(report)]
    if drifted:
        raise GateError(
            f"{len(drifted)} of {len(report['classes'])} classes differ from the reference: {some(drifted)}",
            str(file),
            "compare these images with those of training; where they are as they should be, label some with"
            " capnet label and train again",
        )
