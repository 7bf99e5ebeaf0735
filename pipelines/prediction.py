"""The prediction pipeline: fetch and champion, predict part by part, merge."""

from typing import Any

from kfp import dsl

import capnet.cluster.names as names
from components.champion.component import champion as champion_task
from components.fetch.component import fetch as fetch_task
from components.merge.component import merge as merge_task
from components.outcome.component import outcome as outcome_task
from components.predict.component import predict as predict_task
from pipelines.options import Options
from pipelines.task_setup import ANY_NODE, CLUSTER, NO_TOLERATIONS, Cluster, Setup

NAME = "capnet-prediction"
ORDER = ("fetch", "champion", "predict", "merge")
SIDE_BY_SIDE = 8  # parts that run at a time


def prediction(options: Options) -> Any:
    """The pipeline with these options: every part is labelled by the same version of the model."""

    @dsl.pipeline(
        name=NAME,
        description=(
            "Label many images with a registered model, and say whether they look like those it was chosen on."
        ),
    )
    def capnet_prediction(
        fetch: dict,
        predict: dict,
        model: str,
        data_version: str,
        shards: list[int],
        shard_count: int,
        accelerator_type: str = names.ACCELERATOR,
        accelerator_count: str = "0",
        cpu: str = "2",
        memory: str = "8Gi",
        node_selector: dict = ANY_NODE,
        tolerations: list = NO_TOLERATIONS,
        s3_secret: str = names.S3_SECRET,
        mlflow_secret: str = names.MLFLOW_SECRET,
        git_secret: str = names.GIT_SECRET,
        state_claim: str = names.STATE_CLAIM,
        data_claim: str = names.DATA_CLAIM,
        pull_secret: str = names.PULL_SECRET,
    ) -> None:
        cluster = Cluster(**{name: value for name, value in locals().items() if name in CLUSTER})
        setup = Setup(options, ORDER, cluster)
        with dsl.ExitHandler(setup.configured(outcome_task()), name="run"):
            fetched = fetch_task(params=fetch, version=data_version, volume=options.volume)
            loaded = champion_task(model=model, params=predict, shards=shards, shard_count=shard_count)
            loaded_champion = loaded.outputs["champion"]
            with dsl.ParallelFor(shards, name="parts", parallelism=options.at_a_time(SIDE_BY_SIDE)) as shard:
                labelled = predict_task(
                    champion=loaded_champion,
                    data=fetched.outputs["data"],
                    params=predict,
                    shard=shard,
                    shards=shard_count,
                    accelerators=accelerator_count,
                )
                setup.heavy(labelled)
            merged = merge_task(champion=loaded_champion, parts=dsl.Collected(labelled.outputs["predictions"]))
            for task in (fetched, loaded, merged):
                setup.configured(task)
            setup.with_data(setup.retried(fetched))
            setup.with_store(setup.retried(loaded))

    return capnet_prediction
