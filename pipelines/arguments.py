"""What a run is started with: params.yaml as one dict a stage, the seeds, and which pictures these are."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from capnet.config import Params
from capnet.errors import CapnetError
from capnet.stages import STAGES

SECTIONS = {"fetch": ("data",)} | {stage.name: stage.sections for stage in STAGES.values()}


def training_arguments(params: Params, data_version: str) -> dict[str, Any]:
    """Arguments of the training pipeline, without those about the cluster."""
    seeds = list(params.train.seeds or (params.runtime.seed,))
    stages = {name: params.subset(sections) for name, sections in SECTIONS.items()}
    return {**stages, "data_version": data_version, "seeds": seeds, "first_seed": seeds[0], "further_seeds": seeds[1:]}


def data_version(params: Params) -> str:
    """A word that changes when the pictures do: the commit, a digest of the bucket's list, or the time where neither can be had.

    It is part of KFP's cache key: with a word that is never the same again, nothing stale is taken for these pictures.
    """
    from capnet.data.roots import kind_of, open_source
    from capnet.data.source import digest

    data = params.data
    if kind_of(data.root) != "folder":
        try:
            with closing(open_source(data)) as source:
                return str(getattr(source, "commit", "")) or digest(source.entries())
        except (CapnetError, ModuleNotFoundError):  # this machine may lack the credentials that the cluster has
            pass
    return f"unknown, asked at {time.time_ns()}"
