"""`capnet summary`: the results of the last evaluation as a table, without loading a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from capnet.commands.options import columns
from capnet.contracts import VARIANTS, number, read_csv_rows, tree_hash
from capnet.contracts.stage_json import read_evaluation
from capnet.errors import ContractError, counted, shown, some
from capnet.evaluation.report.intervals import group_notes, is_of_one_group
from capnet.evaluation.report.promises import promises
from capnet.evaluation.report.words import interval, percent

COLUMNS = {  # figure of a variant: its heading
    "mAP": "mAP",
    "head": "head",
    "medium": "medium",
    "tail": "tail",
    "CF1_chosen": "CF1",
    "OF1_chosen": "OF1",
}
WIDTH = 200  # in which tables are measured: more than any needs
NARROWEST = 2
SHOWN = 40  # classes of a list, at most
NO_INTERVALS = "There are no intervals, because all test pictures are of one group."
Titled = partial(Table, box=SIMPLE_HEAD, title_justify="left", title_style="bold")


@click.command("summary", epilog="\b\nExamples:\n  capnet summary\n  capnet summary --evaluation outputs/evaluation")
@click.option(
    "--evaluation", default="outputs/evaluation", show_default=True, help="Folder that `capnet evaluate` wrote."
)
def command(evaluation: str) -> None:
    """Print the results of the last run as a table.

    Rows are the variants, columns the means in percent with their 95 % bootstrap intervals; then each slice of the test
    pictures, the tail classes and the path of the report.
    """
    folder = Path(evaluation)
    metrics = read_evaluation(folder)
    if "capnet" not in metrics:
        where = str(folder / "evaluation.json")
        raise ContractError("no results of the variant capnet", where, "run `capnet evaluate` again")
    plain = partial(Console, highlight=False, markup=False, emoji=False)  # names of classes are no markup
    console = plain()
    if not console.is_terminal:
        console = plain(width=columns())
    tables = {f"Results on {counted(metrics.get('test_rows', 0), 'test picture')}, in percent": metrics}
    for name, values in metrics.get("slices", {}).items():
        pictures = metrics.get("slice_info", {}).get(name, {}).get("test_rows")
        size = "? test pictures" if pictures is None else counted(pictures, "test picture")
        tables[shown(f"Slice {name}: {size}")] = values
    room = console.options.update_width(WIDTH)  # rich measures no table as wider than its room
    narrow = 0
    while narrow < NARROWEST and any(
        console.measure(results(values, "", narrow), options=room).maximum > console.width for values in tables.values()
    ):
        narrow += 1
    for title, values in tables.items():
        console.print(results(values, title, narrow))
    classes = tail_classes(folder / "per_class.csv")
    if classes.row_count:
        console.print(classes)
    for line in [*notes(metrics), *metrics.get("threshold", {}).get("notes", [])]:
        console.print(shown(line))
    model = folder.parent / "model"
    if model.is_dir() and metrics.get("model_md5") not in (None, tree_hash(model)):
        console.print(f"The model in {model} is another one: `capnet evaluate` measures it.", soft_wrap=True)
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True)


def results(metrics: Mapping[str, Any], title: str, narrow: int) -> Table:
    """One row a variant, one column a mean; only columns that some variant has. ``narrow``: 1 has intervals under their
    values, 2 also a name in two lines.
    """
    table = Titled(title=title, pad_edge=False, padding=(0, 0 if narrow == NARROWEST else 1))
    present = [variant for variant in VARIANTS if variant in metrics]
    columns = [name for name in COLUMNS if any(name in metrics[variant] for variant in present)]
    table.add_column("variant", overflow="fold")
    for name in columns:
        table.add_column(COLUMNS[name], justify="right", overflow="fold")
    for variant in present:
        style = "bold" if variant == "capnet" else ""
        name = variant.replace("zero_shot_single", "zero_shot\n_single") if narrow == NARROWEST else variant
        table.add_row(name, *(cell(metrics[variant], name, narrow) for name in columns), style=style)
    return table


def cell(values: Mapping[str, float], name: str, narrow: int) -> str:
    """Value and interval in percent, "-" where the mean does not exist."""
    if name not in values:
        return "-"
    text, span = percent(values[name]), interval(values, name).replace(" to ", "-")
    if not span:
        return text
    return f"{text}\n{span}" if narrow else f"{text} ({span})"


def tail_classes(path: Path) -> Table:
    """Average precision of every tail class, most training images first."""
    rows = [
        row for row in read_csv_rows(path, ("class", "bucket", "train_count", "positives")) if row["bucket"] == "tail"
    ]
    table = Titled(title="Tail classes, average precision in percent")
    table.add_column("class", overflow="fold")
    for name in ("train pictures", "test positives", "capnet", "zero_shot", "linear_probe"):
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))
    for row in rows[:SHOWN]:
        precisions = (percent(number(row.get(name))) for name in ("ap", "ap_zero_shot", "ap_linear_probe"))
        table.add_row(shown(row["class"]), row["train_count"], row["positives"], *precisions)
    if len(rows) > SHOWN:
        table.caption = f"and {len(rows) - SHOWN} more in {path.name}"
    return table


def notes(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader of the table must know."""
    lines = [NO_INTERVALS if is_of_one_group(metrics) else "Intervals are 95 % bootstrap intervals."]
    if "CF1_chosen" in metrics["capnet"]:
        lines[0] += " CF1 (the mean of per-class F1) and OF1 are at the chosen thresholds."
    if not is_of_one_group(metrics):
        lines += group_notes(metrics)
    lines += promises(metrics)
    if metrics.get("left_out"):
        named = some(metrics["left_out"], SHOWN)
        lines.append(f"Without test positives or test negatives, so without average precision: {named}.")
    for name, about in metrics.get("slice_info", {}).items():
        if name not in metrics.get("slices", {}):
            images = counted(about["test_rows"], "test picture")
            lines.append(f"Slice {name}: no class has a positive and a negative on its {images}, so no figures.")
    return lines
