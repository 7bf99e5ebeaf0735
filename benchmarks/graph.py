"""The label graph against true co-occurrence: which row is nearer, the text tower's, the counted one, or their blend?

    python -m benchmarks graph --labels LISTS --data corel5k=FOLDER ucmerced=FOLDER --page docs/graph-tables.md
    python -m benchmarks graph --labels LISTS --backbone ViT-B-16-quickgelu --pretrained openai --page clip.md

LISTS holds tables image,labels of PASCAL VOC, COCO and NUS-WIDE and their class names (benchmarks/graph_lists.py has
the names of the files). Every other FOLDER holds labels.csv and images. The command prints its tables; with --page it
also puts them between the page's marks, with --figure it draws them.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.graph_lists import LISTS, curve_of, measure_folder, measure_lists, read_names
from benchmarks.graph_means import Measured
from benchmarks.graph_rows import MEASURES
from benchmarks.graph_tables import (
    TITLES,
    chance_table,
    control_table,
    cut_table,
    figure,
    tail_table,
    training_table,
)
from benchmarks.graph_training import compare, read_folder, read_set, scores
from benchmarks.numbers import from_one
from capnet.config import Params, parse
from capnet.contracts import replace_file
from capnet.errors import ConfigError
from capnet.model.backbones import find_backbone, load_towers


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
    result.add_argument("--draws", type=from_one, default=20, help="long tails drawn from each set")
    result.add_argument("--train", nargs="*", metavar="NAME", help="sets of --data to train on; default all")
    result.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    result.add_argument("--steps", type=from_one, default=280, help="training steps of every row, at least")
    result.add_argument("--batch", type=from_one, default=128)
    result.add_argument("--threads", type=from_one, default=Params().runtime.threads)
    result.add_argument("--page", type=Path, help="Markdown page whose tables are replaced")
    result.add_argument("--figure", type=Path, help="SVG to draw")
    return result


def main(argv: Sequence[str]) -> None:
    """Measure, train, print and write; raises ConfigError for a wrong command line."""
    arguments = parser().parse_args(argv)
    folders = dict(item.partition("=")[::2] for item in arguments.data)
    if len(folders) < len(arguments.data):
        raise ConfigError(f"--data {' '.join(arguments.data)} names a set twice", "command line", "name each set once")
    parse({"train": {"seeds": arguments.seeds}}, "--seeds")
    if not all(folders.values()) or not (folders or arguments.labels):
        raise ConfigError("no labels are named", "command line", "give --labels FOLDER or --data NAME=FOLDER")
    if unknown := [name for name in arguments.train or [] if name not in folders]:
        raise ConfigError(f"--train names {unknown[0]}, which --data lacks", "command line", "add it to --data")
    tables = run(arguments, {name: Path(folder) for name, folder in folders.items()})
    if arguments.page:
        page = arguments.page.read_text(encoding="utf-8") if arguments.page.is_file() else ""
        for name, lines in tables.items():
            page = put(page, name, lines)
        replace_file(arguments.page, page)
    for name, lines in tables.items():
        print(f"\n{name}\n\n" + "\n".join(lines))


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
            read_names(arguments.labels / LISTS[name].classes)  # what is missing is reported before weights are read
        towers = load_towers(params.backbone)
        measured: dict[str, Measured] = {}
        chance: dict[str, dict[str, tuple[float, np.ndarray]]] = {}
        if arguments.labels:
            for name in arguments.sets:
                measured |= measure_lists(arguments.labels, LISTS[name], towers, params, arguments.draws, chance)
        for name, folder in folders.items():
            measured |= measure_folder(name, folder, towers, params, arguments.draws)
        many = {title: results for title, results in measured.items() if len(results.images) > 1 and shown(title)}
        tables |= {f"tail {TITLES[kind]}": tail_table(measured, kind) for kind in MEASURES}
        tables |= {"controls": control_table(measured), "buckets": cut_table(measured, "bucket")}
        tables |= {"images": cut_table(many, "images"), "chance": chance_table(chance)}
        if arguments.figure:
            figure(many, arguments.figure)
    if "training" in arguments.parts:
        for name in arguments.train if arguments.train is not None else folders:
            started = time.process_time()
            data = read_set(name, folders[name], curve_of(read_folder(folders[name])[2]))
            epochs = math.ceil(arguments.steps / math.ceil(len(data.train) / arguments.batch))
            train = {"prompt": {"enabled": False}, "epochs": epochs, "batch_size": arguments.batch, "select": "last"}
            results = scores(data, {**settings, "train": train}, arguments.seeds)
            tables[f"training {name}"] = training_table(compare(data, results), ("none", "text"))
            print(f"{name}: {time.process_time() - started:.0f} s of processor time", file=sys.stderr)
    return tables


def shown(title: str) -> bool:
    """Is a sample in the figure? Of two draws from one published set the Pareto one is."""
    return title not in {f"{lists.title}, exponential" for lists in LISTS.values()}


def put(page: str, name: str, lines: Sequence[str]) -> str:
    """``page`` with ``lines`` between the marks of table ``name``; a page without the mark gets them at its end."""
    block = f"<!-- table: {name} -->\n" + "\n".join(lines) + "\n<!-- end -->"
    marked = re.compile(rf"<!-- table: {re.escape(name)} -->\n.*?<!-- end -->", re.DOTALL)
    return marked.sub(lambda _: block, page) if marked.search(page) else f"{page.rstrip()}\n\n{block}\n".lstrip()
