"""What each part of the method is worth, over several data sets and seeds, on stored features.

    python -m benchmarks ablation --sets corel5k=../corel5k aerial=../aerial --seeds 0 1 2 --out ablation.md
    python -m benchmarks ablation --sets corel5k=../corel5k --shares 0.05 0.25 1 --rows served "linear probe"

The backbone of preset own is CLIP; for the offline one add
--set backbone.name=lit-efflite0-minilm --set backbone.pretrained=wheels.

A set is a folder with labels.csv, its images and optionally settings.yaml (how it is divided). All rows see the same
images, the same test-time views and the same draws. Differences are means over seeds; each bootstrap draw measures all
seeds and both rows on the same images. "All sets" is the mean over sets, each drawn on its own.

The rule by which a part is on in the presets `own` and `recommended`, written down before the last run: without it, the
mean over sets falls, in total or in the tail, and neither rises with an interval above 0. A part that costs more than
half of the training time needs an interval above 0.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation_sets import Set, Trained, settings_of
from benchmarks.ablation_thresholds import table as thresholds_table
from benchmarks.differences import Compare, Draws, bounds, difference
from benchmarks.graph_training import read_folder
from benchmarks.numbers import from_one
from capnet.commands.preset import read
from capnet.config import override, parse
from capnet.data.images.views import centre_index
from capnet.errors import ConfigError, DataError, counted, some
from capnet.training.scoring import combine

ON, OFF = {"enabled": True}, {"enabled": False}
BCE = {"loss": {"name": "bce"}}
WITHOUT_STAGES = {"backbone": {"stages": False}}
PAPER = {**WITHOUT_STAGES, "train": {"prompt": ON, "gcn": ON, "class_head": OFF}}
# what preset own trained before it had a class head, refitted, without the prompts, which 260 classes make too slow
BEFORE: dict[str, Any] = {
    **WITHOUT_STAGES,
    "train": {
        "refit": True,
        "out_of_fold": False,
        "gcn": ON,
        "class_head": OFF,
        "loss": {"name": "db_focal"},
        "head": {"start": "settings"},
    },
}


@dataclass(frozen=True)
class Row:
    """``change``: settings over the preset's; ``weights`` of members, where not those that validation rows chose;
    ``single``: one view.
    """

    change: Mapping[str, Any]
    weights: Mapping[str, float] | None = None
    single: bool = False


FIVE, HEAD = {"capnet": 1.0}, {"class_head": 1.0}
ROWS: dict[str, Row] = {
    "served": Row({}),
    "zero-shot": Row({}, {"zero_shot": 1.0}),
    "linear probe": Row({}, {"linear_probe": 1.0}),
    "trained parts": Row({}, FIVE),
    "class head": Row({}, HEAD),
    "mean of trained parts and class head": Row({}, {"capnet": 0.5, "class_head": 0.5}),
    "chosen on validation rows": Row({"train": {"out_of_fold": False}}),
    "mean of all three": Row({}, {"capnet": 1 / 3, "class_head": 1 / 3, "linear_probe": 1 / 3}),
    "with refit": Row({"train": {"refit": True}}),
    "without refit": Row({"train": {"refit": False}}),
    "linear probe, with refit": Row({"train": {"refit": True}}, {"linear_probe": 1.0}),
    "linear probe, without refit": Row({"train": {"refit": False}}, {"linear_probe": 1.0}),
    "paper's five parts": Row(PAPER, FIVE),
    "before the class head": Row(BEFORE, FIVE),
    "before the class head, without refit": Row({**BEFORE, "train": {**BEFORE["train"], "refit": False}}, FIVE),
    "served, single view": Row({}, single=True),
    "with prompts": Row({"train": {"prompt": ON}}),
    "with GCN": Row({"train": {"gcn": ON}}),
    "without adapter": Row({"train": {"adapter": OFF}}),
    "without class head": Row({"train": {"class_head": OFF}}),
    "without earlier stages": Row(WITHOUT_STAGES),
    "class head, without earlier stages": Row(WITHOUT_STAGES, HEAD),
    "without logit bias": Row({"train": {"head": {"bias": False, "start": "settings"}}}),
    "loss: BCE": Row({"train": BCE}),
    "loss: ASL": Row({"train": {"loss": {"name": "asl"}}}),
    "loss: DB-focal": Row({"train": {"loss": {"name": "db_focal"}}}),
    "trained parts, with prompts": Row({"train": {"prompt": ON}}, FIVE),
    "trained parts, with GCN": Row({"train": {"gcn": ON}}, FIVE),
    "trained parts, without adapter": Row({"train": {"adapter": OFF}}, FIVE),
    "trained parts, without logit bias": Row({"train": {"head": {"bias": False, "start": "settings"}}}, FIVE),
    "trained parts, start from settings": Row({"train": {"head": {"start": "settings"}}}, FIVE),
    "trained parts, BCE": Row({"train": BCE}, FIVE),
    "trained parts, ASL": Row({"train": {"loss": {"name": "asl"}}}, FIVE),
}
# rows of which thresholds and calibration are looked at
THRESHOLDS = ("served", "chosen on validation rows", "linear probe", "before the class head")
BASE = ("served", "zero-shot", "linear probe")


def scores_of(data: Set, row: Row, trained: Trained, seed: int) -> np.ndarray:
    """Served scores float32 [test image, class] of a row."""
    members = trained.members
    if row.single:
        centre = centre_index(data.trainer({}, seed).params.tte.views)
        members = {name: logits[:, centre : centre + 1] for name, logits in members.items()}
    average = data.trainer(row.change, seed).params.tte.average
    return combine(members, row.weights or trained.blend.weights, average)


def table(measured: Mapping[str, Draws], seconds: Mapping[str, float], against: Sequence[str]) -> list[str]:
    """Markdown rows: the means, differences in mAP and tail to each row of ``against``, seconds a seed."""
    names = [name for name in ("mAP", "head", "medium", "tail") if name in next(iter(measured.values()))]
    pairs = [(other, name) for other in against for name in ("mAP", "tail") if name in names]
    lines = [
        f"| row | {' / '.join(names)} | " + " | ".join(f"{name} minus {other}" for other, name in pairs) + " | s |"
    ]
    lines.append("|---" * (len(pairs) + 3) + "|")
    for row, values in measured.items():
        cells = [difference(values[name], measured[other][name]) if row != other else "" for other, name in pairs]
        figures = " / ".join(f"{100 * values[name][0]:.1f}" for name in names)
        lines.append(f"| {row} | {figures} | {' | '.join(cells)} | {seconds[row]:.0f} |")
    return lines


def together(sets: Sequence[Mapping[str, Draws]]) -> dict[str, Draws]:
    """The mean over sets, of the means that all of them have."""
    names = set.intersection(*(set(next(iter(rows.values()))) for rows in sets))
    rows = [row for row in sets[0] if all(row in measured for measured in sets)]
    return {
        row: {
            name: np.mean([measured[row][name] for measured in sets], axis=0)
            for name in ("mAP", "head", "medium", "tail")
            if name in names
        }
        for row in rows
    }


def measure(
    data: Set, rows: Mapping[str, Row], seeds: Sequence[int], draws: int, objectives: Sequence[str]
) -> tuple[dict[str, Draws], dict[str, float], dict[str, Any], list[str]]:
    """Train what the rows need, each change and seed once; means and draws, seconds of a training, chosen blends,
    tables of thresholds for the objectives.
    """
    labels, buckets = data.trainer({}, 0).labels(data.rows["test"]), data.classes.buckets
    compare = Compare(labels.targets.numpy(), labels.known.numpy(), buckets, data.units, draws)
    done: dict[str, tuple[Trained, float]] = {}
    measured, seconds, blends = {}, {}, {}
    kept: dict[str, list[tuple[Trained, Mapping[str, float]]]] = {}

    def trained(row: Row, seed: int) -> tuple[Trained, float]:
        """The training of a change and a seed, and its seconds."""
        key = json.dumps([row.change, seed])
        if key not in done:
            started = time.monotonic()
            done[key] = data.train(row.change, seed), time.monotonic() - started
        return done[key]

    for name, row in rows.items():
        runs, taken = zip(*(trained(row, seed) for seed in seeds), strict=True)
        measured[name] = compare.means([scores_of(data, row, run, seed) for run, seed in zip(runs, seeds, strict=True)])
        seconds[name] = float(np.mean(taken))
        if row.weights is None:
            blends[name] = [run.blend.weights for run in runs]
        if name in THRESHOLDS:
            kept[name] = [(run, row.weights or run.blend.weights) for run in runs]
        print(
            f"{data.name}: {name}: {100 * measured[name]['mAP'][0]:.1f}, tail"
            f" {100 * measured[name].get('tail', [np.nan])[0]:.1f}",
            flush=True,
        )
    tables = [[*thresholds_table(data, kept, "served", draws, objective), ""] for objective in objectives]
    return measured, seconds, blends, [line for lines in tables for line in lines]


def read_sets(items: Sequence[str], base: Mapping[str, Any]) -> dict[str, Path]:
    """Folders by the names of their sets, with tables and settings that can be read: before hours of training.

    Args:
        items: NAME=FOLDER, of the command line.
        base: settings of the preset that is measured.

    Raises:
        ConfigError: an item cannot be read or names a set twice, or a folder's settings are wrong.
        DataError: a folder's tables are missing or wrong, or images are missing.
    """
    folders: dict[str, Path] = {}
    for item in items:
        name, _, folder = item.partition("=")
        if not name or not folder or name in folders:
            raise ConfigError(f"cannot use --sets {item}", "command line", "write --sets NAME=FOLDER, each name once")
        folders[name] = Path(folder)
        settings = parse(settings_of(folders[name], base), folder)
        rows = read_folder(folders[name], settings.ingest)[0]
        if missing := [path for path in rows["path"] if not (folders[name] / path).is_file()]:
            what = f"{counted(len(missing), 'image')} of {len(rows):,} missing: {some(missing)}"
            raise DataError(what, folder, "put them there, or take their rows out of the table")
    return folders


def refuse_rows(rows: Mapping[str, Row], folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError where a row is of the class head and its settings train none."""
    heads = [name for name, row in rows.items() if "class_head" in (row.weights or {})]
    if heads and not parse(settings).train.class_head.enabled:
        what = f"train.class_head.enabled = false trains no class head; these rows are of one: {some(heads)}"
        raise ConfigError(what, str(folder), "set it to true, or name other rows with --rows")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--preset", default="own", help="whose settings are measured (default: own)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="another setting, for all sets"
    )
    parser.add_argument(
        "--rows",
        nargs="*",
        default=list(ROWS),
        choices=list(ROWS),
        metavar="ROW",
        help="default: all; served, zero-shot and probe always",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--shares",
        nargs="+",
        type=float,
        default=[1.0],
        help="shares of the training and validation rows, each a set of its own",
    )
    parser.add_argument(
        "--against", nargs="+", default=["linear probe", "zero-shot"], choices=list(ROWS), metavar="ROW"
    )
    parser.add_argument("--objectives", nargs="+", default=["recall>=0.9"], help="of thresholds (recall>=0.9)")
    parser.add_argument("--draws", type=from_one, default=1000)
    parser.add_argument("--out", type=Path, default=Path("ablation.md"))
    arguments = parser.parse_args(argv)
    base = override(read(arguments.preset).model_dump(mode="json", by_alias=True), arguments.set)
    folders = read_sets(arguments.sets, base)
    rows_to_run = {name: row for name, row in ROWS.items() if name in (*BASE, *arguments.rows, *arguments.against)}
    for folder in folders.values():
        refuse_rows(rows_to_run, folder, settings_of(folder, base))
    parse(override(base, [f"train.seeds={arguments.seeds}"]), "--seeds")
    for objective in arguments.objectives:
        parse(override(base, [f"evaluate.threshold.objective={objective}"]), "--objectives")
    if not all(0 < share <= 1 for share in arguments.shares):
        what = f"--shares {' '.join(map(str, arguments.shares))}"
        raise ConfigError(what, "command line", "give shares above 0, up to 1")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    every_set, lines, gaps = [], [], {}
    total: Counter[str] = Counter()  # seconds of a training on each set
    for name, folder in folders.items():
        for share in arguments.shares:
            data = Set(name, folder, base, share)
            measured, seconds, blends, cuts = measure(
                data, rows_to_run, arguments.seeds, arguments.draws, arguments.objectives
            )
            every_set.append(measured)
            total.update(seconds)
            sizes = ", ".join(f"{len(rows)} {part}" for part, rows in data.rows.items())
            buckets = data.classes.buckets
            kinds = ", ".join(f"{buckets.count(kind)} {kind}" for kind in ("head", "medium", "tail"))
            lines += [
                f"**{data.name}** ({sizes}; {len(data.classes)} classes: {kinds}; {len(arguments.seeds)} seeds)",
                "",
                *table(measured, seconds, arguments.against),
                "",
                f"Chosen blends: {json.dumps(blends['served'])}",
                "",
                *cuts,
            ]
            against = measured[arguments.against[0]]
            gaps[data.name] = {
                row: {mean: bounds(values[mean], against[mean]) for mean in values} for row, values in measured.items()
            }
            # differences to the first of --against
            arguments.out.with_suffix(".json").write_text(json.dumps(gaps, indent=1))
            # after each set: a run of hours that is cut off keeps what it has
            arguments.out.write_text("\n".join(lines))
    if len(every_set) > 1:
        every = together(every_set)
        lines += [f"**all {len(every_set)} sets**", "", *table(every, total, arguments.against), ""]
        arguments.out.write_text("\n".join(lines))
    print("\n".join(lines))
