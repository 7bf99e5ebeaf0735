"""The training pipeline: fetch, ingest, split, validate, graph, train, evaluate, report, register."""

from typing import Any

from kfp import dsl

import capnet.cluster.names as names
from components.evaluate.component import evaluate as evaluate_task
from components.fetch.component import fetch as fetch_task
from components.graph.component import graph as graph_task
from components.ingest.component import ingest as ingest_task
from components.outcome.component import outcome as outcome_task
from components.plan.component import plan as plan_task
from components.register.component import register as register_task
from components.report.component import report as report_task
from components.split.component import split as split_task
from components.train.component import train as train_task
from components.train_nodes.component import train_nodes as train_nodes_task
from components.validate.component import validate as validate_task
from pipelines.options import Options
from pipelines.task_setup import ANY_NODE, CLUSTER, NO_TOLERATIONS, Cluster, Setup

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
        setup = Setup(options, ORDER, cluster)
        with dsl.ExitHandler(setup.configured(outcome_task()), name="run"):
            fetched = fetch_task(params=fetch, version=data_version, volume=options.volume)
            data = fetched.outputs["data"]
            if options.further_seeds:
                planned = plan_task(seeds=seeds, first_seed=first_seed, further_seeds=further_seeds)
                fetched.after(setup.configured(planned))
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

            def fitted(seed: Any) -> tuple[Any, Any]:
                """Train and evaluate with one seed."""
                if options.nodes == 1:
                    fit = train_task(**fixed, seed=seed, accelerators=accelerator_count)
                    setup.with_curves(setup.heavy(fit))
                else:
                    fit = train_nodes_task(**fixed, seed=seed, **setup.on_nodes()).set_display_name("train")
                    setup.light(fit)
                evaluated = evaluate_task(
                    split=rows,
                    model=fit.outputs["model"],
                    data=data,
                    params=evaluate,
                    seed=seed,
                    accelerators=accelerator_count,
                )
                return fit, setup.with_curves(setup.heavy(evaluated))

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
                setup.configured(task)
            for task in (fetched, read, checked):
                setup.with_data(task)
            for task in (fetched, read, registered):
                setup.retried(task)
            setup.tried_once(checked)
            setup.with_store(setup.with_state(setup.with_volume(registered)))  # their licence lies with the images
            setup.with_state(linked)

    return capnet_training
