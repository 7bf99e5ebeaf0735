"""Pipelines as YAML; `python -m pipelines.compiling` writes the golden files that reviewers read as a diff."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.images import read_lock
from pipelines.options import Options
from pipelines.prediction import prediction
from pipelines.training import training

PIPELINES: Mapping[str, Callable[[Options], Any]] = {"training": training, "prediction": prediction}
GOLDEN = Path(__file__).with_name("compiled")
GOLDEN_LOCK = Path(__file__).parents[1] / "tests" / "contract" / "images.lock.yaml"
GOLDEN_PIPELINES: Mapping[str, tuple[str, Options]] = {
    "training": ("training", Options()),
    "training-seeds-on-volume": (
        "training",
        Options(further_seeds=True, data_volume=True, no_cache_from="train", shared_memory="8Gi", retries=4),
    ),
    "training-on-nodes": ("training", Options(nodes=2, data_volume=True, further_seeds=True)),
    "prediction": ("prediction", Options()),
}


def compile_text(pipeline: Any) -> str:
    """The compiled pipeline: the specification and, with cluster settings, a second document with the platform's."""
    from kfp.compiler import Compiler

    with TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        Compiler().compile(pipeline, str(path))
        return path.read_text()


def golden(name: str) -> str:
    """The text of a golden file; kfp's version is left out, because it changes nothing."""
    kind, options = GOLDEN_PIPELINES[name]
    text = compile_text(PIPELINES[kind](replace(options, images=read_lock(GOLDEN_LOCK))))
    return re.sub(r"^sdkVersion: .*$", "sdkVersion: kfp", text, flags=re.MULTILINE)


def main() -> None:
    for name in GOLDEN_PIPELINES:
        GOLDEN.joinpath(f"{name}.yaml").write_text(golden(name))


if __name__ == "__main__":
    main()
