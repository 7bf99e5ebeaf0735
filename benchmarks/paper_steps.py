"""The steps of the paper command in order; a result that exists already is reused."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.paper_run import WORDS, Paper
from capnet.contracts import read_json, write_json
from capnet.errors import DataError


@dataclass
class Steps:
    """Names every step on the terminal with how long it took; what is there already is reused."""

    total: int
    dry: bool
    number: int = 0

    def __call__(self, name: str, work: Callable[[], Any], made: Path | None = None) -> None:
        """Do ``work`` unless its result ``made`` is there.

        Args:
            name: what is done, for the terminal.
            work: the step.
            made: its result, which is written last and whole.
        """
        self.number += 1
        label = f"[{self.number:2}/{self.total}] {f'{WORDS}: ' if self.dry else ''}{name}"
        if made is not None and made.exists():
            print(f"{label}: there already, reused", flush=True)
            return
        print(f"{label} ...", flush=True)
        started = time.monotonic()
        try:
            work()
        except BaseException:
            print(f"{label}: stopped", flush=True)
            raise
        print(f"{label}: {time.monotonic() - started:.1f} s", flush=True)


def run_paper(paper: Paper, check_only: bool) -> None:
    """All steps of one benchmark.

    Args:
        paper: the benchmark.
        check_only: stop after the checks.

    Raises:
        ConfigError: a weight file or a setting is wrong.
        DataError: a list or a count is not the published one.
    """
    count = 7 if check_only else 7 + len(paper.weights) * (1 + 2 * len(paper.seeds)) + 1
    steps, out = Steps(count, paper.dry), paper.out
    print(f"{paper.name}: settings sha256 {paper.settings_sha256}, results in {out}", flush=True)
    steps("check weights", paper.check_weights)
    steps("check lists", paper.check_lists)
    sources, noted = paper.sources(), out / "sources.json"
    if not noted.is_file() or read_json(noted) != sources:
        for stage in ("manifest", "split", "validation"):
            shutil.rmtree(out / stage, ignore_errors=True)
    steps("ingest", partial(paper.run, "ingest"), out / "manifest")
    write_json(noted, sources)
    try:
        steps("split", paper.split, out / "split")
        steps("check counts", paper.check_counts)
    except DataError:
        for stage in ("manifest", "split"):  # the next run reads annotations again, which may have been put right
            shutil.rmtree(out / stage, ignore_errors=True)
        raise
    steps("validate", paper.validate, out / "validation")
    steps("compare with results in --out", partial(paper.check_results, note=not check_only))
    for note in paper.notes:
        print(f"note: {note}", flush=True)
    if check_only:
        lists = "those that were made" if paper.dry else "the published ones"
        weights = "not all compared with a hash (see the notes)" if paper.unsure else "those of the known hashes"
        print(f"{f'{WORDS}: ' if paper.dry else ''}lists and counts are {lists}, weights are {weights}", flush=True)
        return
    for backbone in paper.weights:
        steps(f"graph {backbone}", partial(paper.run, "graph", backbone), out / backbone / "graph")
        for seed in paper.seeds:
            folder = paper.seed(backbone, seed)
            steps(f"train {backbone} seed {seed}", partial(paper.train, backbone, seed), folder / "model")
            work = partial(paper.run, "evaluate", backbone, seed)
            steps(f"evaluate {backbone} seed {seed}", work, folder / "evaluation")
    steps("table", paper.table)
    print(
        f"\n{(out / 'table.md').read_text(encoding='utf-8')}\n{out / 'table.md'} and {out / 'results.json'}", flush=True
    )
