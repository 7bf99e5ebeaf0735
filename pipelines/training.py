"""The training pipeline: fetch, ingest, split, validate, graph, train, evaluate, report, register."""

from typing import Any

from kfp import dsl

import capnet.cluster.names as names
from components.evaluate import evaluate as evaluate_task
from components.fetch import fetch as fetch_task
from components.graph import graph as graph_task
from components.ingest import ingest as ingest_task
from components.outcome import outcome as outcome_task
from components.plan import plan as plan_task
from components.register import register as register_task
from components.report import report as report_task
from components.split import split as split_task
from components.train import train as train_task
from components.train_nodes import train_nodes as train_nodes_task
from components.validate import validate as validate_task
from pipelines.options import (
    ANY_NODE,
    CLUSTER,
    NO_TOLERATIONS,
    Cluster,
    Options,
    configured,
    heavy,
    on_nodes,
    retried,
    waiting,
    with_curves,
    with_images,
    with_state,
    with_store,
)

NAME = "capnet-training"
ORDER = ("fetch", "ingest", "split", "validate", "graph", "train", "evaluate", "report", "register")


def training(options: Options) -> Any:
    """The pipeline with these options. A gate that refuses fails its own task, and so the run; register never
    starts.
    """

    @dsl.pipeline(
        name=NAME, description="From images to a registered model: long-tailed multi-label recognition with CapNet."
    )
    def capnet_training(
        fetch: dict,
        ingest: dict,
        split: dict,
        validate: dict,
        graph: dict,
        train: dict,
        evaluate: dict,
        register: dict,
        data_version: str,
        seeds: list[int],
        first_seed: int,
        further_seeds: list[int],
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
        with dsl.ExitHandler(configured(outcome_task(), options, ORDER, cluster), name="run"):
            fetched = fetch_task(params=fetch, version=data_version, volume=options.volume)
            data = fetched.outputs["data"]
            if options.further_seeds:
                planned = plan_task(seeds=seeds, first_seed=first_seed, further_seeds=further_seeds)
                fetched.after(configured(planned, options, ORDER, cluster))
            read = ingest_task(data=data, params=ingest)
            drawn = split_task(manifest=read.outputs["manifest"], params=split)
            rows = drawn.outputs["split"]
            checked = validate_task(split=rows, data=data, params=validate)
            linked = graph_task(split=rows, validation=checked.outputs["validation"], params=graph)
            fixed = {
                "split": rows,
                "validation": checked.outputs["validation"],
                "graph": linked.outputs["graph"],
                "data": data,
                "params": train,
            }

            def alone(task: Any) -> Any:
                """A task that does its work in its own pod."""
                return with_curves(
                    with_images(
                        heavy(retried(configured(task, options, ORDER, cluster), options), options, cluster),
                        options,
                        cluster,
                    ),
                    options,
                    cluster,
                )

            def fitted(seed: Any) -> tuple[Any, Any]:
                """Train and evaluate with one seed."""
                if options.nodes == 1:
                    fit = alone(train_task(**fixed, seed=seed, accelerators=accelerator_count))
                else:
                    task = train_nodes_task(**fixed, seed=seed, **on_nodes(options, cluster)).set_display_name("train")
                    fit = waiting(retried(configured(task, options, ORDER, cluster), options), options, cluster)
                evaluated = alone(
                    evaluate_task(
                        split=rows,
                        model=fit.outputs["model"],
                        data=data,
                        params=evaluate,
                        seed=seed,
                        accelerators=accelerator_count,
                    )
                )
                return fit, evaluated

            fit, evaluated = fitted(first_seed)
            others: Any = []
            if options.further_seeds:
                with dsl.ParallelFor(further_seeds, name="further-seeds", parallelism=options.at_a_time(4)) as seed:
                    _, further = fitted(seed)
                others = dsl.Collected(further.outputs["Output"])
            shown = report_task(
                evaluation=evaluated.outputs["evaluation"],
                first=evaluated.outputs["Output"],
                others=others,
                seeds=seeds,
            )
            registered = register_task(
                split=rows,
                validation=checked.outputs["validation"],
                model=fit.outputs["model"],
                evaluation=evaluated.outputs["evaluation"],
                params=register,
            ).after(shown)

            for task in (fetched, read, drawn, checked, linked, shown, registered):
                configured(task, options, ORDER, cluster)
            for task in (fetched, read, checked):
                with_images(task, options, cluster)
            for task in (fetched, read, registered):
                retried(task, options)
            with_store(with_state(registered, options, cluster), options, cluster)
            with_state(linked, options, cluster)

    return capnet_training
