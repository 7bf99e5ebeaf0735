"""What a run is started with: params.yaml as one dict a stage, the seeds, and which images these are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from capnet.config import Data, Params
from capnet.errors import CapnetError
from capnet.stages import STAGES
from capnet.tasks import refuse_credentials, with_files

SECTIONS = {"fetch": ("data",)} | {stage.name: stage.sections for stage in STAGES.values()}


def stage_arguments(params: Params) -> dict[str, dict[str, Any]]:
    """One dict for each stage. Train and evaluate also get the settings of register that say where curves go, and no
    others, which would make their cache useless. Train gets no list of seeds: each task has its own as a parameter. The
    task graph has no GPU on a cluster, so it must not insist on one.
    """
    params = with_files(params)
    stages = {name: params.subset(sections) for name, sections in SECTIONS.items()}
    where = {name: getattr(params.register_, name) for name in ("name", "experiment", "tracking_uri")}
    for name in ("train", "evaluate"):
        stages[name]["register"] = where
    stages["train"]["train"]["seeds"] = []
    if params.runtime.device == "cuda":
        stages["graph"]["runtime"] |= {"device": "auto"}
    return stages


def training_arguments(params: Params, version: str) -> dict[str, Any]:
    """Arguments of the training pipeline, without those about the cluster."""
    seeds = list(params.train.seeds or (params.runtime.seed,))
    return {
        **stage_arguments(params),
        "data_version": version,
        "seeds": seeds,
        "first_seed": seeds[0],
        "further_seeds": seeds[1:],
    }


def prediction_arguments(params: Params, model: str, shards: int, version: str) -> dict[str, Any]:
    """Arguments of the prediction pipeline, without those about the cluster; without a ``model`` it is the champion."""
    refuse_credentials(params)
    return {
        "fetch": params.subset(("data",)),
        "predict": params.subset(("runtime", "register", "data")),
        "model": model or f"models:/{params.register_.name}@champion",
        "data_version": version,
        # inside a loop KFP has the items of its list, and no longer the list
        "shards": list(range(shards)),
        "shard_count": shards,
    }


def model_and_images(arguments: Mapping[str, Any]) -> tuple[str, str] | None:
    """The model that a run registers or predicts with, and where its images lie; None for arguments of other
    pipelines.
    """
    from capnet.data.sources.root import kind_of

    try:
        model = arguments["model"] if "model" in arguments else arguments["register"]["register"]["name"]
        data = arguments["fetch"]["data"]
        images = str(data["root"])
        if kind_of(images) == "git":
            images += f":{data['path']}"  # another revision of them is what a schedule is submitted again for
        return str(model), images
    except (KeyError, TypeError, CapnetError):
        return None


def data_version(data: Data) -> str:
    """A word that changes when the images do: the commit, a digest of the bucket's list, or the time where neither
    can be had.

    It is part of KFP's cache key. The time never comes again, so no stale result is taken for these images.
    """
    from capnet.data.sources.root import kind_of, open_source
    from capnet.data.sources.source import digest

    if kind_of(data.root) != "folder":
        try:
            with open_source(data) as source:
                return str(getattr(source, "commit", "")) or digest(source.entries())
        except CapnetError:  # this machine may lack the credentials that the cluster has
            pass
    # KFP's server puts the run's own number into a text parameter, also where its page starts a run again
    return f"unknown, asked at {time.time_ns()} for run [[RunUUID]]"
