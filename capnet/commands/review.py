"""`capnet review`: labels that the model doubts, for people to look at; what they say goes into corrections.csv."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capnet.commands.options import path_option, settings_options
from capnet.errors import ContractError, DataError, counted

if TYPE_CHECKING:
    from capnet.config import Params
    from capnet.contracts import Classes
    from capnet.data.annotations.corrections import Corrections
    from capnet.evaluation.split_rows import SplitRows

COLUMNS = ("path", "class", "label", "given", "probability", "split")
TABLE, PAGE = "corrections.csv", "review.html"


@click.command(
    "review",
    epilog="\b\nExamples:\n  capnet review\n  capnet review --most 500 --out review/second\n"
    "  cp review/corrections.csv data && dvc repro     once column label is filled in",
)
@settings_options()
@path_option("--out", default="review", help="Folder to write.")
@click.option(
    "--most", type=click.IntRange(1, 5000), default=200, show_default=True, help="Labels to look at, at most."
)
@path_option("--outputs", default="outputs", help="Folder of the stages' outputs.")
@click.option(
    "--test",
    is_flag=True,
    help="Ask about test images, too. To correct them only where the model is sure makes it look better than it is.",
)
def command(params: str, settings: tuple[str, ...], out: Path, most: int, outputs: Path, test: bool) -> None:
    """Write the labels that the model doubts most: those that may be missing, and those that may be wrong.

    Scores are those of models that have not seen the image: of validation images, and out of fold where `capnet train`
    wrote such scores. Open review.html, choose yes, no or unknown, and save corrections.csv; or fill in column label of
    the table in a spreadsheet. Put it into the data folder: stage ingest lays it over the annotations, whatever their
    format, and leaves them as they are. Earlier corrections are in the table again.
    """
    from capnet.commands.save_reference import first_step
    from capnet.config import load
    from capnet.contracts import csv_text, replace_file
    from capnet.data.annotations.corrections import read_corrections
    from capnet.data.annotations.paths import DataFolder
    from capnet.data.sources.root import local_root

    chosen = load(Path(params), settings)
    data = DataFolder(local_root(chosen.data, Path(chosen.data.root)), chosen.data.links)
    corrections = data.path(chosen.ingest.corrections)
    before, _, problems = read_corrections(corrections)
    filled_in, _, mistakes = read_corrections(out / TABLE)
    if problems or mistakes:
        raise DataError(problems=[*problems, *mistakes])
    new = filled_in.keys() - before.keys()
    if differing := {key for key in filled_in.keys() & before.keys() if filled_in[key] != before[key]}:
        base, is_older = _written(out / PAGE), (out / TABLE).stat().st_mtime < corrections.stat().st_mtime
        for key in differing:  # where people changed both, what was written last counts; equal times say nothing
            if filled_in[key] != base.get(key) and (not is_older or before[key] == base.get(key)):
                new.add(key)
    if new:
        lost = counted(len(new), "label")
        what = f"{lost} filled in here would be lost: not in {chosen.ingest.corrections} of the data"
        todo = f"put the table into {chosen.data.root} first, name another folder with --out, or remove the table"
        todo += " (where you took the label back there)"
        raise DataError(what, str(out / TABLE), todo)
    questions = doubts(outputs, before, most, test)
    before_that = first_step(chosen.split, outputs / "split")  # a drawn test set depends on the labels
    rows = [(path, name, label, "", "", "") for (path, name), label in sorted(before.items())]
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / PAGE, page(questions, before, chosen, out))
    replace_file(out / TABLE, csv_text(COLUMNS, [*rows, *questions]))
    click.echo(f"review: {counted(len(questions), 'label')} to look at, {len(before)} corrected before")
    click.echo(f"Open {out / PAGE}, or fill in column label of {out / TABLE}.")
    for line in before_that:
        click.echo(line)
    click.echo(f"Then put the table into {chosen.data.root} as {chosen.ingest.corrections}, and run `dvc repro`.")


def _written(path: Path) -> Corrections:
    """The corrections that an earlier call wrote into its page and its table; {} where there is no such page."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        text = path.read_text(encoding="utf-8").partition('id="table">')[2].partition("</script>")[0]
        return {(image, name): label for image, name, label in json.loads(text)["corrections"]}
    return {}


def doubts(outputs: Path, before: Corrections, most: int, test: bool) -> list[tuple[str, ...]]:
    """Rows of COLUMNS with an empty label.

    Args:
        outputs: folder with split, model and evaluation.
        before: earlier corrections, which are not asked for again.
        most: at most so many rows.
        test: ask about test images too.

    Raises:
        ContractError: outputs are missing, damaged or of different runs, or only test images have such scores.
    """
    import numpy as np

    from capnet.contracts import read_classes
    from capnet.evaluation.calibration import calibrate
    from capnet.evaluation.doubtful import doubtful_labels
    from capnet.evaluation.split_rows import concatenated
    from capnet.evaluation.thresholds_file import read_thresholds, thresholds_and_calibration

    classes = read_classes(outputs / "split" / "classes.json")
    thresholds = read_thresholds(outputs / "evaluation" / "thresholds.json", classes)
    splits = _unseen_rows(outputs, classes, test)
    scored = concatenated(splits)
    number = {name: c for c, name in enumerate(classes.names)}
    position = {path: row for row, path in enumerate(scored.rows["path"])}
    for path, name in before:
        if path in position and name in number:
            scored.known[position[path], number[name]] = False
    scores = np.concatenate([split.scores["capnet"] for split in splits])
    probabilities = calibrate(thresholds_and_calibration(thresholds)[1], scores)
    return [
        (
            str(scored.rows["path"].iloc[doubt.row]),
            classes.names[doubt.column],
            "",
            "yes" if doubt.labelled else "no",
            f"{doubt.probability:.3f}",
            str(scored.rows["split"].iloc[doubt.row]),
        )
        for doubt in doubtful_labels(scored.labels, scored.known, probabilities, most)
    ]


def _unseen_rows(outputs: Path, classes: Classes, test: bool) -> list[SplitRows]:
    """Images with scores of models that have not seen them: out of fold, or else of the validation rows; and where
    ``test`` says so, the test rows. Errors as in ``doubts``.
    """
    import numpy as np

    from capnet.contracts import SPLITS, read_predictions, read_split
    from capnet.contracts.stage_json import read_evaluation, read_model_config
    from capnet.evaluation.belonging import require_fitted_rows, require_measured
    from capnet.evaluation.split_rows import (
        check_scores,
        held_out_rows,
        make_split,
        served_predictions,
        served_test_scores,
    )

    evaluation, held_out = outputs / "evaluation", outputs / "model" / "out_of_fold.parquet"
    if (evaluation / "evaluation.json").is_file():
        require_measured(read_evaluation(evaluation), outputs / "model", evaluation / "evaluation.json")
    table = read_split(outputs / "split" / "split.parquet")
    require_fitted_rows(read_model_config(outputs / "model"), table, outputs / "model" / "config.json")
    train, val, tested = (make_split(table, name, classes, {}) for name in SPLITS)
    result = []
    if held_out.is_file():
        result.append(held_out_rows([train, val], read_predictions(held_out)))
    elif len(val.rows):
        result.append(held_out_rows([val], served_predictions(evaluation / "predictions.parquet", "val")))
    if test:
        tested.scores["capnet"] = np.stack(served_test_scores(evaluation / "predictions.parquet", tested.rows))
        check_scores(tested)
        result.append(tested)
    if not result:
        todo = "set train.out_of_fold: true and train again, or review test images: --test"
        raise ContractError("no training image has a score of a model that has not seen it", str(held_out), todo)
    return result


def page(questions: list[tuple[str, ...]], before: Corrections, params: Params, out: Path) -> str:
    """A page in the folder ``out`` with small images, which saves corrections.csv by itself."""
    import pandas as pd

    from capnet.data.annotations.paths import DataFolder
    from capnet.data.sources.root import local_root
    from capnet.evaluation.report.thumbnails import link_to, thumbnail
    from capnet.pages import page_templates
    from capnet.progress import track

    paths = list(dict.fromkeys(row[0] for row in questions))
    root = local_root(params.data, Path(params.data.root), pd.DataFrame({"path": paths}), strict=False)
    folder = DataFolder(root, params.data.links)
    shown = {
        path: "" if folder.leads_out(path) else thumbnail(root / path)
        for path in track(paths, "reading images", len(paths))
    }
    corrections = [[path, name, label] for (path, name), label in sorted(before.items())]
    table = {"asked": [row[:2] for row in questions], "corrections": corrections}
    rows = [
        dict(zip(COLUMNS, row, strict=True)) | {"source": shown[row[0]], "link": link_to(root / row[0], out)}
        for row in questions
    ]
    return page_templates(Path(__file__).parent).get_template("review.html").render(rows=rows, table=table, name=TABLE)
