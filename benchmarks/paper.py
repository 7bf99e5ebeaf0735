"""The paper's table with one command: checks weights, lists and counts, trains and measures both backbones, compares
with published rows.

    python -m benchmarks paper voc-lt --data data --weights RN50=RN50.pt --weights ViT-B-16=ViT-B-16.pt --check
    python -m benchmarks paper voc-lt --data data --weights RN50=RN50.pt --weights ViT-B-16=ViT-B-16.pt
    python -m benchmarks paper coco-lt --dry-run

Weights are the .pt files that OpenAI published; a .safetensors file or one of open_clip's tags is taken too, with a
note. Data lies as docs/data-formats.md says; for coco-lt the published training list, one image id a line, is
coco_lt_train.txt in the data folder.

The settings are the preset of that name, fixed before any result, the last epoch, three seeds. Results go to --out; a
run that was cut off goes on there. A dry run makes small images of noise and random weights and goes through the same
steps; its figures mean nothing.

Exit status: 0 done, 2 a weight file's hash or the command line is wrong, 3 a list or a count is not the published one
or a table changes the labels, 5 the data check refuses the images.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.numbers import from_one
from benchmarks.paper_lists import PUBLISHED
from benchmarks.paper_run import DRY, WORDS, Paper
from benchmarks.paper_steps import run_paper
from benchmarks.paper_trees import FAULTS, make
from capnet.errors import ConfigError
from capnet.runtime import require_device

BACKBONES = ("RN50", "ViT-B-16")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("benchmark", choices=sorted(PUBLISHED), help="whose preset, lists and published rows")
    result.add_argument("--data", type=Path, help="folder with the data set as published; needed except in a dry run")
    result.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="BACKBONE=FILE",
        help="RN50=FILE or ViT-B-16=FILE; once for each backbone that is run",
    )
    result.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="training seeds (default 0 1 2)")
    result.add_argument(
        "--out", type=Path, help="folder of the results (default runs/paper-BENCHMARK; of a dry run a temporary one)"
    )
    result.add_argument(
        "--check", action="store_true", help="stop after weights, lists and counts are checked; trains nothing"
    )
    result.add_argument(
        "--dry-run",
        action="store_true",
        help="made images and random weights; with --data the made set is kept there and used again, edited or not",
    )
    result.add_argument("--damage", choices=FAULTS, help="in a dry run: make one thing wrong, to see it refused")
    result.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="where it runs (default auto)"
    )
    result.add_argument("--threads", type=from_one, default=2, help="CPU threads (default 2)")
    result.add_argument(
        "--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of the towers (default auto)"
    )
    result.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
    return result


def read_weights(items: Sequence[str]) -> dict[str, Path | str]:
    """Weights by backbone from the command line.

    Args:
        items: BACKBONE=FILE, or BACKBONE=TAG.

    Returns:
        Absolute files, and tags as they are, in the order of BACKBONES.

    Raises:
        ConfigError: an item cannot be read, or names a backbone twice or an unknown one.
    """
    weights: dict[str, Path | str] = {}
    for item in items:
        backbone, equals, source = item.partition("=")
        if not equals or not source or backbone not in BACKBONES or backbone in weights:
            raise ConfigError(
                f"cannot use --weights {item}",
                "command line",
                f"write --weights BACKBONE=FILE, once each, BACKBONE one of {', '.join(BACKBONES)}",
            )
        weights[backbone] = Path(source).resolve() if Path(source).exists() else source
    return {backbone: weights[backbone] for backbone in BACKBONES if backbone in weights}


def main(argv: Sequence[str]) -> None:
    """Run the command; raises CapnetError, whose exit status is as above."""
    arguments = parser().parse_args(argv)
    with ExitStack() as stack:
        run_paper(prepare(arguments, stack), arguments.check)


def prepare(arguments: argparse.Namespace, stack: ExitStack) -> Paper:
    """The run that the command line asks for.

    Args:
        arguments: of ``parser``.
        stack: holds what a dry run puts in place until it ends.

    Raises:
        ConfigError: something is missing or refused.
    """
    if arguments.set:
        what = f"--set {arguments.set[0]} is refused: the preset is fixed before any result"
        raise ConfigError(
            what, "command line", "leave it out; weights, data folder, device, threads, precision and seeds are options"
        )
    if len(set(arguments.seeds)) < len(arguments.seeds) or min(arguments.seeds) < 0:
        raise ConfigError(
            f"--seeds {arguments.seeds}: seeds are different numbers from 0 on", "command line", "write --seeds 0 1 2"
        )
    if not arguments.check:  # which trains nothing, so it may run where the GPU is not
        require_device(arguments.device, "--device")
    weights, name = read_weights(arguments.weights), arguments.benchmark
    machine = {f"runtime.{key}": getattr(arguments, key) for key in ("device", "threads", "precision")}
    if arguments.damage and not arguments.dry_run:
        raise ConfigError("--damage belongs to a dry run", "command line", "add --dry-run, or leave it out")
    if arguments.dry_run:
        return _dry(arguments, stack, weights, machine)
    if arguments.data is None or not arguments.data.is_dir():
        what = "no data folder is named" if arguments.data is None else f"there is no folder {arguments.data}"
        raise ConfigError(
            what,
            "--data",
            "name the folder that holds the data set as published (docs/data-formats.md), or try --dry-run",
        )
    if not weights:
        todo = "give OpenAI's files: --weights RN50=RN50.pt --weights ViT-B-16=ViT-B-16.pt"
        raise ConfigError("no weights are named", "--weights", todo)
    out = arguments.out or Path("runs") / f"paper-{name}"
    models = {backbone: f"{backbone}-quickgelu" for backbone in weights}
    paper = Paper(
        name=name,
        data=arguments.data.resolve(),
        out=out,
        weights=weights,
        seeds=arguments.seeds,
        published=PUBLISHED[name],
        machine=machine,
        models=models,
        dry=False,
    )
    if set(weights) != set(BACKBONES):
        paper.notes.append(
            f"only {', '.join(weights)}: the papers also have {', '.join(sorted(set(BACKBONES) - set(weights)))}"
        )
    return paper


def _dry(
    arguments: argparse.Namespace, stack: ExitStack, weights: dict[str, Path | str], machine: dict[str, Any]
) -> Paper:
    """A made data set with its own lists, counts and hashes instead of the published ones, until ``stack``
    closes.
    """
    from capnet.data.splits.published import BENCHMARKS
    from capnet.model.backbones.openai_weights import OPENAI_WEIGHTS

    name = arguments.benchmark
    temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="capnet-dry-run-")))
    data = (arguments.data or temporary / "data").resolve()
    print(
        f"{WORDS}: small images of noise and random weights in {data}; changed settings: {', '.join(DRY)}", flush=True
    )
    made = make(name, data, arguments.damage or "")
    stack.enter_context(patch.dict(OPENAI_WEIGHTS, made.hashes))
    if name in BENCHMARKS:
        stack.enter_context(patch.dict(BENCHMARKS, {name: made.counts}))
    stack.enter_context(patch.dict(os.environ, {"CAPNET_STATE": str(temporary / "state")}))
    return Paper(
        name=name,
        data=data,
        out=arguments.out or temporary / "out",
        weights={**made.weights, **weights},
        seeds=arguments.seeds,
        published=made.published,
        machine=machine,
        models=made.models,
        dry=True,
    )
