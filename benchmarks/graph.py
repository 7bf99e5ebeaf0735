"""The label graph against true co-occurrence: which row is nearer, the text tower's, the counted one, or their blend?

    python -m benchmarks graph --labels LISTS --data corel5k=FOLDER ucmerced=FOLDER --page docs/graph.md
    python -m benchmarks graph --labels LISTS --backbone ViT-B-16-quickgelu --pretrained openai --page clip.md

LISTS holds tables image,labels of PASCAL VOC, COCO and NUS-WIDE and their class names (LISTS in benchmarks/graph.py has
the names of the files); every other FOLDER holds labels.csv and images. The command prints its tables; with --page it
puts them between the page's marks as well, with --figure it draws them.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.graph_rows import (
    BINS,
    MEASURES,
    MIN_CLASSES,
    Curve,
    Mean,
    Measured,
    Sample,
    by_chance,
    halved,
    mean,
    measure,
)
from benchmarks.graph_training import ROWS, Result, compare, read_folder, read_set, scores
from capnet.config import Params, parse
from capnet.contracts import label_matrix, replace_file
from capnet.errors import CapnetError, DataError
from capnet.model.backbones import find_backbone, load_towers
from capnet.model.graph import cosine_similarity
from capnet.model.towers import Towers

# VOC writes one word
SPOKEN = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "TV monitor"}
TITLES = {"ndcg": "nDCG@5", "strict": "order", "spearman": "Spearman", "lift": "lift"}
TAIL_CURVE = Curve("exponential", 500, 100.0)  # of a set that has no tail by itself; the product's default
CONTROLS = ("permuted", "uniform", "frequency", "text", "counted", "backed", "blend", "large sample")
COMPARED = ("text", "counted", "blend")
COLOURS = {"text": "#0072b2", "counted": "#e69f00", "blend": "#009e73"}


@dataclass(frozen=True)
class Lists:
    """Files of one published set in the folder of label lists."""

    title: str
    classes: str
    pool: str  # long tails are drawn from half of it
    truth: str = ""  # further images that are truth only
    published: str = ""  # a published long-tailed list
    published_title: str = ""
    curves: tuple[Curve, ...] = ()


LISTS = {
    "voc": Lists(
        "VOC",
        "voc20_classes.txt",
        "voc2012_trainval.csv",
        "voc2007_test.csv",
        "voc_lt_train.csv",
        "VOC-LT's list",
        (Curve("pareto", 800, 1), Curve("exponential", 500, 100)),
    ),
    "coco": Lists(
        "COCO",
        "coco80_classes.txt",
        "coco2017_val.csv",
        "",
        "coco_lt_train.csv",
        "COCO-LT's list",
        (Curve("pareto", 1200, 1), Curve("exponential", 500, 100)),
    ),
    "nus-wide": Lists(
        "NUS-WIDE",
        "nuswide81_classes.txt",
        "nuswide81_test.csv.gz",
        curves=(Curve("pareto", 1200, 1), Curve("exponential", 500, 100)),
    ),
}


def read_list(path: Path, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Image ids [image] and labels bool [image, class] of a table image,labels (indices with spaces between them).

    Raises DataError where the file is missing or holds something else.
    """
    import pandas as pd

    if not path.is_file():
        raise DataError("a label list is missing", str(path), "give the folder of label lists with --labels")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = [[int(index) for index in cell.split()] for cell in table["labels"]]
        return table["image"].to_numpy(), label_matrix(rows, n_classes)
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"not a label list: {error}", str(path), "columns are image, labels (class indices)") from None


def read_names(path: Path) -> list[str]:
    """Class names, one a line, as a text tower should read them."""
    if not path.is_file():
        raise DataError("a list of classes is missing", str(path), "give the folder of label lists with --labels")
    return [SPOKEN.get(name, name) for name in path.read_text(encoding="utf-8").splitlines() if name]


def similarity(towers: Towers, names: Sequence[str], template: str) -> np.ndarray:
    """Cosines of the class names' text features, float64 [class, class], as stage graph has them."""
    with torch.no_grad():
        features = towers.text([template.format(name) for name in names]).float().cpu()
    return cosine_similarity(features).double().numpy()


def drawn(
    pool: np.ndarray,
    extra: np.ndarray,
    text: np.ndarray,
    curve: Curve,
    draws: int,
    blend_count: float,
) -> Measured:
    """Measure ``draws`` lists drawn from halves of ``pool``; see halved and measure."""
    found, images = [], []
    for seed in range(draws):
        sample, half = halved(pool, extra, curve, seed)
        found.append(measure(text, sample, blend_count, half))
        images.append(sample.train.sum(axis=0))
    return Measured.of(found, images)


def measure_lists(
    folder: Path,
    lists: Lists,
    towers: Towers,
    params: Params,
    draws: int,
    chance: dict[str, dict[str, tuple[float, np.ndarray]]],
) -> dict[str, Measured]:
    """One published set: its published list, if it has one, and draws along each of its curves.

    What chance gives on the published list goes into ``chance``; see by_chance.
    """
    names = read_names(folder / lists.classes)
    text = similarity(towers, names, params.graph.template)
    ids, pool = read_list(folder / lists.pool, len(names))
    extra = read_list(folder / lists.truth, len(names))[1] if lists.truth else pool[:0]
    found = {}
    if lists.published:
        listed, train = read_list(folder / lists.published, len(names))
        truth = np.concatenate([pool[~np.isin(ids, listed)], extra])
        one = measure(text, Sample(train, truth), params.graph.blend_count)
        chance[lists.published_title] = by_chance(text, Sample(train, truth))
        found[lists.published_title] = Measured.of([one], [train.sum(axis=0)])
    for curve in lists.curves:
        title = f"{lists.title}, {curve.kind}"
        found[title] = drawn(pool, extra, text, curve, draws, params.graph.blend_count)
    return found


def curve_of(labels: np.ndarray) -> Curve:
    """Natural where half of the images, labels bool [image, class], have a tail by themselves, else TAIL_CURVE."""
    rare = (labels.sum(axis=0) > 0) & (labels.sum(axis=0) / 2 < 20)
    return Curve("natural") if rare.sum() >= MIN_CLASSES else TAIL_CURVE


def measure_folder(name: str, folder: Path, towers: Towers, params: Params, draws: int) -> dict[str, Measured]:
    """A folder with labels.csv: draws along its curve."""
    _, classes, labels = read_folder(folder)
    text, curve = similarity(towers, classes.prompt_names, params.graph.template), curve_of(labels)
    return {f"{name}, {curve.kind}": drawn(labels, labels[:0], text, curve, draws, params.graph.blend_count)}


# ---------------------------------------------------------------- tables


def value(number: float, sign: bool = False) -> str:
    """Two decimals, empty for NaN."""
    return "" if math.isnan(number) else f"{number:+.2f}" if sign else f"{number:.2f}"


def bracket(pair: tuple[float, float]) -> str:
    """``[low, high]``, empty for NaN."""
    return "" if math.isnan(pair[0]) else f"[{value(pair[0])}, {value(pair[1])}]"


def trio(found: Measured, kind: str, chosen: np.ndarray) -> str:
    """``text / counted / blend`` of one measure over ``chosen`` bool [draw, class]."""
    return " / ".join(value(mean(found.values[kind][name], chosen).value) for name in COMPARED)


def difference(found: Measured, kind: str, one: str, other: str, chosen: np.ndarray) -> Mean:
    """Mean of the paired difference of two sources over ``chosen`` bool [draw, class]."""
    return mean(found.values[kind][one] - found.values[kind][other], chosen)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def tail_table(measured: Mapping[str, Measured], kind: str) -> list[str]:
    """Text, counted and blend in the tail, with both intervals of text minus counted, and blend minus counted."""
    head = ["sample", "classes", "text / counted / blend", "text - counted", "over draws", "blend - counted"]
    rows = []
    for title, found in measured.items():
        tail = found.bucket("tail")
        first = difference(found, kind, "text", "counted", tail)
        if not first.classes:
            continue
        second = difference(found, kind, "blend", "counted", tail)
        rows.append(
            [
                title,
                f"{first.classes:.0f}",
                trio(found, kind, tail),
                f"{value(first.value, True)} {bracket(first.over_classes)}".strip(),
                bracket(first.over_draws),
                f"{value(second.value, True)} {bracket(second.over_classes)}".strip(),
            ]
        )
    return table(head, rows)


def bucket_table(measured: Mapping[str, Measured]) -> list[str]:
    """Head and medium classes: text / counted / blend by every measure."""
    rows = []
    for title, found in measured.items():
        for bucket in ("head", "medium"):
            chosen = found.bucket(bucket)
            classes = mean(found.values["ndcg"]["text"], chosen).classes
            if classes:
                cells = (trio(found, kind, chosen) for kind in ("ndcg", "strict", "spearman"))
                rows.append([title, bucket, f"{classes:.0f}", *cells])
    return table(["sample", "bucket", "classes", *(TITLES[kind] for kind in ("ndcg", "strict", "spearman"))], rows)


def image_table(measured: Mapping[str, Measured]) -> list[str]:
    """Text / counted / blend by the number of training images."""
    rows = []
    for title, found in measured.items():
        for first, last in BINS:
            chosen = found.within(first, last)
            classes = mean(found.values["ndcg"]["text"], chosen).classes
            if classes:
                cells = (trio(found, kind, chosen) for kind in ("ndcg", "strict", "spearman"))
                rows.append([title, bin_title(first, last), f"{classes:.1f}", *cells])
    return table(["sample", "images", "classes", *(TITLES[kind] for kind in ("ndcg", "strict", "spearman"))], rows)


def bin_title(first: int, last: int) -> str:
    """``5-9``, or ``100+`` for the last one."""
    return f"{first}-{last}" if last < 10**9 else f"{first}+"


def control_table(measured: Mapping[str, Measured]) -> list[str]:
    """Every source in the tail, controls first and the best that counts can do last."""
    rows = []
    for title, found in measured.items():
        tail = found.bucket("tail")
        for kind in ("ndcg", "strict"):
            values = found.values[kind]
            if mean(values["text"], tail).classes:
                cells = (value(mean(values[name], tail).value) if name in values else "" for name in CONTROLS)
                rows.append([title, TITLES[kind], *cells])
    return table(["sample", "measure", *CONTROLS], rows)


def chance_table(chance: Mapping[str, Mapping[str, tuple[float, np.ndarray]]]) -> list[str]:
    """Text against its own class names mixed up, in the tail of each published list."""
    rows = []
    for title, found in chance.items():
        for kind, (own, mixed) in found.items():
            low, high = np.quantile(mixed, [0.025, 0.975]).tolist()
            rows.append([title, TITLES[kind], value(own), value(float(mixed.mean())), bracket((low, high))])
    return table(["sample", "measure", "text", "mixed up", "middle 95 % of them"], rows)


def percent(triple: tuple[float, float, float]) -> str:
    """``+1.2 [0.3, 2.1]`` in points."""
    return f"{100 * triple[0]:+.1f} [{100 * triple[1]:.1f}, {100 * triple[2]:.1f}]"


def training_table(against: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Rows of one set: means, and differences to each row in ``against``, which has the results by that row."""
    first = next(iter(against.values()))
    names = list(next(iter(first.values())).means)
    last = names[-1]
    head = ["graph", " / ".join(names)]
    head += [f"{what} - {other}" for other in against for what in ("mAP", last)]
    rows = []
    for row, result in first.items():
        cells = []
        for other, found in against.items():
            cells += ["" if row == other else percent(found[row].differences[what]) for what in ("mAP", last)]
        rows.append([row, " / ".join(f"{100 * result.means[what]:.1f}" for what in names), *cells])
    return table(head, rows)


def put(page: str, name: str, lines: Sequence[str]) -> str:
    """``page`` with ``lines`` between the marks of table ``name``; a page without the mark gets them at its end."""
    block = f"<!-- table: {name} -->\n" + "\n".join(lines) + "\n<!-- end -->"
    found = re.compile(rf"<!-- table: {re.escape(name)} -->\n.*?<!-- end -->", re.DOTALL)
    return found.sub(lambda _: block, page) if found.search(page) else f"{page.rstrip()}\n\n{block}\n".lstrip()


# ---------------------------------------------------------------- the figure


def figure(measured: Mapping[str, Measured]) -> str:
    """An SVG: nDCG@5 above, order below, over training images; one column a sample, one line a source."""
    wide, tall, left, top, gap = 150, 120, 60, 44, 18
    width, height = left + len(measured) * (wide + gap), top + 2 * (tall + 34) + 22
    font = 'font-family="sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {font}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, name in enumerate(COMPARED):
        parts.append(f'<text x="{left + 110 * index}" y="16" fill="{COLOURS[name]}" font-weight="bold">{name}</text>')
    for column, (title, found) in enumerate(measured.items()):
        x0 = left + column * (wide + gap)
        parts.append(f'<text x="{x0 + wide / 2:g}" y="36" text-anchor="middle">{title}</text>')
        for row, kind in enumerate(("ndcg", "strict")):
            y0 = top + row * (tall + 34)
            parts.append(f'<rect x="{x0}" y="{y0}" width="{wide}" height="{tall}" fill="none" stroke="#ccc"/>')
            if not column:
                for tick in (0, 0.5, 1):
                    y = y0 + tall * (1 - tick) + 4
                    parts.append(f'<text x="{x0 - 6}" y="{y:g}" text-anchor="end">{tick:g}</text>')
                middle = y0 + tall / 2
                turned = f'transform="translate(14 {middle:g}) rotate(-90)"'
                parts.append(f'<text {turned} text-anchor="middle">{TITLES[kind]}</text>')
            for place, (first, last) in enumerate(BINS):
                x = x0 + wide * (place + 0.5) / len(BINS)
                label = bin_title(first, last)
                spot = f'x="{x:.1f}" y="{y0 + tall + 13}"'
                parts.append(f'<text {spot} text-anchor="middle" font-size="8">{label}</text>')
            for name in COMPARED:
                points = []
                for place, (first, last) in enumerate(BINS):
                    point = mean(found.values[kind][name], found.within(first, last)).value
                    if not math.isnan(point):
                        x = x0 + wide * (place + 0.5) / len(BINS)
                        points.append(f"{x:.1f},{y0 + tall * (1 - min(max(point, 0.0), 1.0)):.1f}")
                look = f'fill="none" stroke="{COLOURS[name]}" stroke-width="2"'
                parts.append(f'<polyline points="{" ".join(points)}" {look}/>')
    middle = left + (width - left) / 2
    parts.append(f'<text x="{middle:g}" y="{height - 6}" text-anchor="middle">training images of the class</text>')
    return "\n".join([*parts, "</svg>", ""])


# ---------------------------------------------------------------- the command


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks graph",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--labels", type=Path, help="folder of label lists; without it only --data is measured")
    result.add_argument("--sets", nargs="*", default=list(LISTS), choices=list(LISTS), help="default all")
    result.add_argument("--data", nargs="*", default=[], metavar="NAME=FOLDER", help="folders with labels.csv")
    result.add_argument("--parts", nargs="*", default=["rows", "training"], choices=["rows", "training"])
    result.add_argument("--backbone", default="lit-efflite0-minilm")
    result.add_argument("--pretrained", default="", help="open_clip tag or file; default the backbone's usual one")
    result.add_argument("--template", default=Params().graph.template)
    result.add_argument("--draws", type=int, default=20, help="long tails drawn from each set")
    result.add_argument("--train", nargs="*", metavar="NAME", help="sets of --data to train on; default all")
    result.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    result.add_argument("--steps", type=int, default=280, help="training steps of every row, at least")
    result.add_argument("--batch", type=int, default=128)
    result.add_argument("--threads", type=int, default=Params().runtime.threads)
    result.add_argument("--page", type=Path, help="Markdown page whose tables are replaced")
    result.add_argument("--figure", type=Path, help="SVG to draw")
    return result


def main(argv: Sequence[str]) -> int:
    """Measure, train, print and write.

    Args:
        argv: the command line without ``python -m benchmarks graph``.

    Returns:
        0; 2 for a wrong command line; the error's own exit code where data or weights are missing or wrong.
    """
    arguments = parser().parse_args(argv)
    folders = dict(item.partition("=")[::2] for item in arguments.data)
    wrong = [name for name in arguments.train or [] if name not in folders]
    if wrong or not all(folders.values()) or not (folders or arguments.labels):
        reason = "give --labels FOLDER or --data NAME=FOLDER"
        if wrong:
            reason = f"--train names {wrong[0]}, which --data lacks"
        print(f"graph: {reason}", file=sys.stderr)
        return 2
    try:
        tables = run(arguments, {name: Path(folder) for name, folder in folders.items()})
    except CapnetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if arguments.page:
        page = arguments.page.read_text(encoding="utf-8") if arguments.page.is_file() else ""
        for name, lines in tables.items():
            page = put(page, name, lines)
        replace_file(arguments.page, page)
    for name, lines in tables.items():
        print(f"\n{name}\n\n" + "\n".join(lines))
    return 0


def run(arguments: argparse.Namespace, folders: Mapping[str, Path]) -> dict[str, list[str]]:
    """All tables that the command line asks for, by name; draws the figure too."""
    pretrained = arguments.pretrained or find_backbone(arguments.backbone).pretrained
    settings = {
        "backbone": {"name": arguments.backbone, "pretrained": pretrained},
        "graph": {"template": arguments.template},
        "runtime": {"threads": arguments.threads},
    }
    params = parse(settings)
    tables: dict[str, list[str]] = {}
    if "rows" in arguments.parts:
        torch.set_num_threads(arguments.threads)
        for name in arguments.sets if arguments.labels else ():
            read_names(arguments.labels / LISTS[name].classes)  # what is missing is told before weights are read
        towers = load_towers(params.backbone)
        measured: dict[str, Measured] = {}
        chance: dict[str, dict[str, tuple[float, np.ndarray]]] = {}
        if arguments.labels:
            for name in arguments.sets:
                measured |= measure_lists(arguments.labels, LISTS[name], towers, params, arguments.draws, chance)
        for name, folder in folders.items():
            measured |= measure_folder(name, folder, towers, params, arguments.draws)
        many = {title: found for title, found in measured.items() if len(found.images) > 1 and shown(title)}
        tables |= {f"tail {TITLES[kind]}": tail_table(measured, kind) for kind in MEASURES}
        tables |= {"controls": control_table(measured), "buckets": bucket_table(measured), "images": image_table(many)}
        tables["chance"] = chance_table(chance)
        if arguments.figure:
            replace_file(arguments.figure, figure(many))
    if "training" in arguments.parts:
        for name in arguments.train if arguments.train is not None else folders:
            started = time.process_time()
            data = read_set(name, folders[name], curve_of(read_folder(folders[name])[2]))
            epochs = math.ceil(arguments.steps / math.ceil(len(data.train) / arguments.batch))
            train = {"prompt": {"enabled": False}, "epochs": epochs, "batch_size": arguments.batch, "select": "last"}
            found = scores(data, {**settings, "train": train}, arguments.seeds, ROWS)
            against = {other: compare(data, found, other) for other in ("none", "text")}
            tables[f"training {name}"] = training_table(against)
            print(f"{name}: {time.process_time() - started:.0f} s of processor time", file=sys.stderr)
    return tables


def shown(title: str) -> bool:
    """Is a sample in the figure? Of two draws from one published set the Pareto one is."""
    return title not in {f"{lists.title}, exponential" for lists in LISTS.values()}
