"""The options of `python -m pipelines.submit`, and how their values are read."""

from __future__ import annotations

import json
from typing import Any

import click

import capnet.cluster.names as names
from capnet.commands.options import in_order, pairs, path_option, secret_options, settings_options, text_option


def _objects(_: click.Context, __: click.Parameter, value: str) -> list[Any]:
    try:
        content = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}") from None
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise click.BadParameter('write a list of objects, as in a pod: [{"key": "gpu", "operator": "Exists"}]')
    return content


def _cron(_: click.Context, __: click.Parameter, value: str) -> str:
    """KFP counts seconds first; the usual five fields are accepted too."""
    fields = value.split()
    if value and len(fields) not in (5, 6):
        raise click.BadParameter(f"{value!r} has {len(fields)} fields; write minute hour day month weekday")
    return " ".join(fields if len(fields) != 5 else ["0", *fields])


WAYS = click.Choice(["auto", "in-cluster", "port-forward", "token"])
with_options = in_order(
    settings_options(),
    click.option("--way", type=WAYS, default="auto", help="How the server is reached."),
    text_option(
        "--host",
        envvar="KF_PIPELINES_ENDPOINT",
        help="The server's address; default: http://localhost:8080, a port-forward.",
    ),
    text_option("--namespace", help="Your profile, if the server has several."),
    text_option("--token-file", help="File with a token; or the variable KF_PIPELINES_TOKEN."),
    text_option("--experiment", help="KFP experiment; default: register.experiment."),
    text_option("--service-account", help="Kubernetes service account of the tasks."),
    click.option("--wait", is_flag=True, help="Show progress, and end with the run's outcome."),
    text_option("--schedule", callback=_cron, metavar="CRON", help="Run at these times instead of now."),
    click.option("--dry-run", is_flag=True, help="Compile, print the pipeline, start nothing."),
    click.option("--local", type=click.Choice(["subprocess", "docker"]), default=None, help="Run on this machine."),
    click.option(
        "--network",
        default="host",
        help="Docker network of the tasks of --local docker; host reaches servers on this machine.",
    ),
    path_option("--runs", default="runs", help="Folder of local runs."),
    click.option("--no-cache", is_flag=True, help="Reuse nothing from earlier runs."),
    text_option("--no-cache-from", metavar="STAGE", help="Reuse nothing from this stage on."),
    click.option("--lock", default="components/images.lock.yaml", help="Images by digest, as make push writes it."),
    click.option("--allow-tags", is_flag=True, help="Accept images that are named by tag only."),
    click.option("--data-volume", is_flag=True, help=f"The images are on a volume, mounted at {names.DATA}."),
    click.option(
        "--state-volume/--no-state-volume", default=True, help="Keep checkpoints and copies of images on a volume."
    ),
    click.option("--shared-memory", default="2Gi", help="Size of /dev/shm."),
    click.option(
        "--retries",
        default=None,
        type=click.IntRange(0, 10),
        help="Attempts after a failure; default: 2, with --local none. The data gate is never tried again.",
    ),
    click.option("--hours", default=2.0, help="Time limit of a task."),
    click.option("--train-hours", default=24.0, help="Time limit of train, evaluate and predict."),
    click.option(
        "--nodes",
        default=1,
        type=click.IntRange(1, 1000),
        help="training: pods that train one model; several take Kubeflow Trainer and a ReadWriteMany state volume.",
    ),
    click.option(
        "--processes-per-node",
        default=0,
        type=click.IntRange(0, 64),
        help="With --nodes: processes of each; 0 is one a GPU, and one without any.",
    ),
    click.option(
        "--training-runtime",
        default=names.RUNTIME,
        help="With --nodes: runtime of Kubeflow Trainer; TrainingRuntime/NAME is one of the namespace.",
    ),
    click.option("--start-minutes", default=30.0, help="With --nodes: longest wait for their pods to start."),
    click.option("--accelerator-type", default=names.ACCELERATOR, help="Resource name of the GPU."),
    click.option(
        "--accelerator-count",
        default=0,
        type=click.IntRange(min=0),
        help="GPUs of train, evaluate and predict; with --nodes, of each node.",
    ),
    click.option("--cpu", default="2", help="CPUs that these ask for."),
    click.option("--memory", default="8Gi", help="Memory that these get."),
    click.option(
        "--node-selector",
        multiple=True,
        callback=pairs,
        metavar="KEY=VALUE",
        help="Label of their nodes; may be repeated.",
    ),
    click.option(
        "--tolerations", default="[]", callback=_objects, metavar="JSON", help="Their tolerations, as in a pod."
    ),
    secret_options,
    text_option(
        "--pictures",
        metavar="LOCATION",
        help="prediction: folder or s3://BUCKET/PREFIX; default: data.root.",
    ),
    text_option("--model", help="prediction: models:/NAME@ALIAS or models:/NAME/VERSION; default: the champion."),
    click.option(
        "--shards",
        default=None,
        type=click.IntRange(1),
        help="prediction: parts that are labelled in parallel, up to 100; default: 4, with --local one.",
    ),
)
