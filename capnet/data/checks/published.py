"""Are the counts of a benchmark's split the published ones?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capnet.contracts import Classes
from capnet.data.checks.rules import Rule
from capnet.data.checks.tables import class_table
from capnet.data.splits.published import BENCHMARKS

if TYPE_CHECKING:
    import pandas as pd

ALL = "all pictures"
NUMBER = "number of classes"


def published_table(frame: pd.DataFrame, classes: Classes, benchmark: str) -> pd.DataFrame:
    """How far a split is from each published number (train and test pictures, classes, training pictures per class).

    Args:
        frame: split.parquet.
        classes: of the split.
        benchmark: a key of BENCHMARKS.

    Returns:
        One row a number: ``class`` (ALL and NUMBER for what is no class), ``split``, ``published``, ``found``,
        ``difference`` (found less published), and ``value``: both numbers in words.
    """
    import pandas as pd

    expected = BENCHMARKS[benchmark]
    rows_per_split = frame["split"].value_counts()
    rows = [
        (ALL, split, number, int(rows_per_split.get(split, 0)))
        for split, number in (("train", expected.train), ("test", expected.test))
    ]
    rows.append((NUMBER, "train", len(expected.counts), len(classes)))
    if len(classes) == len(expected.counts):
        positives = class_table(frame, classes).query("split == 'train'").set_index("class")["positives"]
        rows += [
            (name, "train", count, int(positives.get(name, 0)))
            for name, count in zip(classes.names, expected.counts, strict=True)
        ]
    table = pd.DataFrame(rows, columns=["class", "split", "published", "found"])
    table["difference"] = table["found"] - table["published"]
    table["value"] = [
        f"{count:,} here, published {published:,}"
        for count, published in zip(table["found"], table["published"], strict=True)
    ]
    return table


def published_rules(benchmark: str) -> list[Rule]:
    """One rule: every number is the published one."""
    return [
        Rule(
            "published_counts",
            "difference",
            "within",
            f"pictures, classes and training pictures per class are those published for {benchmark}",
            f"the split is not the published one of {benchmark}, so its figures do not compare with the papers'",
            "use the published pictures and lists with the preset's settings; or, for a split of your own, set"
            " validate.published: none",
            shown="value",
            minimum=0,
            maximum=0,
        )
    ]
