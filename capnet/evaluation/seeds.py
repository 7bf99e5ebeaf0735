"""Several seeds of one run: mean and standard deviation of every figure, and the table in the report."""

from __future__ import annotations

import html
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capnet.errors import ContractError

ANCHOR = "<main>"
NAMES = {
    "mAP": "mAP",
    "head": "head",
    "medium": "medium",
    "tail": "tail",
    "zero_shot_mAP": "zero-shot mAP",
    "linear_probe_mAP": "linear probe mAP",
}


@dataclass(frozen=True)
class SeedTable:
    """``values``: per figure one number a seed, as fractions of 1, in the order of the seeds."""

    values: Mapping[str, tuple[float, ...]]

    def mean(self, name: str) -> float:
        return statistics.fmean(self.values[name])

    def deviation(self, name: str) -> float:
        """Sample standard deviation; 0 for a single seed."""
        return statistics.stdev(self.values[name]) if len(self.values[name]) > 1 else 0.0

    def figures(self) -> dict[str, float]:
        """Means, and with several seeds the deviations as NAME_sd."""
        several = any(len(values) > 1 for values in self.values.values())
        means = {name: self.mean(name) for name in self.values}
        return means | ({f"{name}_sd": self.deviation(name) for name in self.values} if several else {})


def figures_of(first: Sequence[Any], others: Sequence[Any], seeds: Sequence[float]) -> list[Mapping[str, float]]:
    """Put what evaluate gave for each seed in order.

    Args:
        first: of the first seed: a list of one mapping, its figures and its ``seed``.
        others: of the other seeds, from a loop: servers of KFP give its turns in any order, and some put no list around
            what a single turn gave.
        seeds: in the order of the result.

    Returns:
        Figures by name, one mapping a seed.

    Raises:
        ContractError: a seed is missing.
    """
    runs = [*first, *(run for figures in others for run in (figures if isinstance(figures, list) else [figures]))]
    by_seed = {int(run["seed"]): {name: value for name, value in run.items() if name != "seed"} for run in runs}
    if len(runs) != len(seeds) or any(int(seed) not in by_seed for seed in seeds):
        raise ContractError(
            f"figures of the seeds {sorted(by_seed)}, expected were {[int(seed) for seed in seeds]}",
            "report",
            "run the whole pipeline again",
        )
    return [by_seed[int(seed)] for seed in seeds]


def summarise(runs: Sequence[Mapping[str, float]]) -> SeedTable:
    """Put the figures of all seeds together.

    Args:
        runs: figures as fractions of 1 by name, one mapping a seed.

    Raises:
        ContractError: there is no seed, or one lacks a figure that another has.
    """
    if not runs:
        raise ContractError("no seed was evaluated", "report", "look at the task evaluate")
    names = {name for run in runs for name in run}
    missing = sorted(name for name in names if any(name not in run for run in runs))
    if missing:
        raise ContractError(
            f"not every seed has {', '.join(missing)}", "report", "were all seeds evaluated with the same settings?"
        )
    order = [name for name in NAMES if name in names] + sorted(names - NAMES.keys())
    return SeedTable({name: tuple(float(run[name]) for run in runs) for name in order})


def with_seeds(page: str, table: SeedTable, seeds: Sequence[float]) -> str:
    """The report with a table of seeds under its heading; unchanged for one seed.

    Args:
        page: HTML of the report of the first seed.
        table: from ``summarise``.
        seeds: in the table's order.

    Raises:
        ContractError: ``page`` is no report of stage evaluate.
    """
    if len(seeds) == 1:
        return page
    if page.count(ANCHOR) != 1:
        raise ContractError(
            "this is no report that capnet evaluate wrote", "report.html", "run the component evaluate again"
        )
    return page.replace(ANCHOR, ANCHOR + _section(table, [int(seed) for seed in seeds]))


def _section(table: SeedTable, seeds: Sequence[int]) -> str:
    note = (
        f"{len(seeds)} seeds, fixed before the run, on the same split. Everything below and what was registered is seed"
        f" {seeds[0]}, whatever its result."
    )
    titles = ["in percent", "mean", "deviation", *(f"seed {seed}" for seed in seeds)]
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    rows = "".join(_row(table, name) for name in table.values)
    return (
        f'<section id="seeds"><h2>Over {len(seeds)} seeds</h2><p>{note}</p>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _row(table: SeedTable, name: str) -> str:
    figures = [table.mean(name), table.deviation(name), *table.values[name]]
    cells = "".join(f"<td>{100 * figure:.2f}</td>" for figure in figures)
    return f'<tr><th scope="row">{html.escape(NAMES.get(name, name))}</th>{cells}</tr>'
