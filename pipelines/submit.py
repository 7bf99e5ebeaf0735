"""`python -m pipelines.submit training|prediction`: compile, upload, start on a cluster; or run here."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from components.revision import git_revision, short

EPILOG = """\b
Examples:
  python -m pipelines.submit training --wait                         to the server behind a port-forward
  python -m pipelines.submit training --accelerator-count 1          with a GPU
  python -m pipelines.submit training --nodes 2 --memory 16Gi        on two nodes, by Kubeflow Trainer
  python -m pipelines.submit training --set train.seeds=[0,1,2]      three seeds
  python -m pipelines.submit training --no-cache-from train          train again, keep what came before
  python -m pipelines.submit training --schedule "0 3 * * 1"         every Monday at three
  python -m pipelines.submit training --dry-run > pipeline.yaml      compile only
  python -m pipelines.submit training --local subprocess             the same pipeline on this machine
  python -m pipelines.submit training --local docker     in containers: with make images push and an MLflow server"""


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    wrong = [value for value in values if "=" not in value]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r}: write KEY=VALUE")
    return dict(value.split("=", 1) for value in values)


def _list(_: click.Context, __: click.Parameter, value: str) -> list[Any]:
    try:
        content = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}") from None
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise click.BadParameter('write a list of objects, as in a pod: [{"key": "gpu", "operator": "Exists"}]')
    return content


def _cron(_: click.Context, __: click.Parameter, value: str) -> str:
    """KFP counts seconds first; five fields, as everywhere else, are taken too."""
    fields = value.split()
    if value and len(fields) not in (5, 6):
        raise click.BadParameter(f"{value!r} has {len(fields)} fields; write minute hour day month weekday")
    return " ".join(fields if len(fields) != 5 else ["0", *fields])


@click.command(
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
@click.argument("pipeline", type=click.Choice(["training", "prediction"]))
@click.option("--params", default="params.yaml", help="Settings file.")
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated."
)
@click.option(
    "--way",
    type=click.Choice(["auto", "in-cluster", "port-forward", "token"]),
    default="auto",
    help="How the server is reached.",
)
@click.option(
    "--host",
    envvar="KF_PIPELINES_ENDPOINT",
    default="",
    help="The server's address; usual is http://localhost:8080, a port-forward.",
)
@click.option("--namespace", default="", help="Your profile, where the server has several.")
@click.option("--token-file", default="", help="File with a token; or the variable KF_PIPELINES_TOKEN.")
@click.option("--experiment", default="", help="KFP experiment; usual is register.experiment.")
@click.option("--service-account", default="", help="Kubernetes service account of the tasks.")
@click.option("--wait", is_flag=True, help="Show progress, and end with the run's outcome.")
@click.option("--schedule", default="", callback=_cron, metavar="CRON", help="Run at these times instead of now.")
@click.option("--dry-run", is_flag=True, help="Compile, print the pipeline, start nothing.")
@click.option("--local", type=click.Choice(["subprocess", "docker"]), default=None, help="Run on this machine.")
@click.option(
    "--network",
    default="host",
    help="Docker network of the tasks of --local docker; host reaches servers on this machine.",
)
@click.option("--runs", default="runs", help="Folder of local runs.")
@click.option("--no-cache", is_flag=True, help="Take nothing from earlier runs.")
@click.option("--no-cache-from", default="", metavar="STAGE", help="Take nothing from earlier runs from this stage on.")
@click.option("--lock", default="components/images.lock.yaml", help="Images by digest, as make push writes it.")
@click.option("--allow-tags", is_flag=True, help="Accept images that are named by tag only.")
@click.option("--data-volume", is_flag=True, help="The pictures are on a volume, mounted at /mnt/data.")
@click.option(
    "--state-volume/--no-state-volume", default=True, help="Keep checkpoints and copies of pictures on a volume."
)
@click.option("--shared-memory", default="2Gi", help="Size of /dev/shm.")
@click.option(
    "--retries",
    default=None,
    type=int,
    help="Attempts after a failure, usual are 2, here none; the data gate is never tried again.",
)
@click.option("--hours", default=2.0, help="Longest time of a task.")
@click.option("--train-hours", default=24.0, help="Longest time of train, evaluate and predict.")
@click.option(
    "--nodes",
    default=1,
    help=(
        "training: pods that train one model together. More than one takes Kubeflow Trainer and a ReadWriteMany state"
        " volume."
    ),
)
@click.option(
    "--processes-per-node", default=0, help="With --nodes: processes of each; 0 is one a GPU, and one without any."
)
@click.option(
    "--training-runtime",
    default="torch-distributed",
    help="With --nodes: runtime of Kubeflow Trainer; TrainingRuntime/NAME is one of the namespace.",
)
@click.option("--start-minutes", default=30.0, help="With --nodes: longest wait for their pods to start.")
@click.option("--accelerator-type", default="nvidia.com/gpu", help="Resource name of the GPU.")
@click.option(
    "--accelerator-count",
    default=0,
    type=click.IntRange(min=0),
    help="GPUs of train, evaluate and predict; with --nodes, of each node.",
)
@click.option("--cpu", default="2", help="CPUs that these ask for.")
@click.option("--memory", default="8Gi", help="Memory that these get.")
@click.option(
    "--node-selector",
    multiple=True,
    callback=_pairs,
    metavar="KEY=VALUE",
    help="Label of their nodes; may be repeated.",
)
@click.option("--tolerations", default="[]", callback=_list, metavar="JSON", help="Their tolerations, as in a pod.")
@click.option("--s3-secret", default="capnet-s3", help="Secret with the bucket's credentials.")
@click.option(
    "--mlflow-secret", default="capnet-mlflow", help="Secret with the MLflow server's address and credentials."
)
@click.option("--git-secret", default="capnet-git", help="Secret with git's credentials.")
@click.option("--state-claim", default="capnet-state", help="Volume claim for state.")
@click.option("--data-claim", default="capnet-data", help="Volume claim with pictures.")
@click.option(
    "--pictures", default="", metavar="PLACE", help="prediction: folder or s3://BUCKET/PREFIX; usual is data.root."
)
@click.option(
    "--model", default="", help="prediction: models:/NAME@ALIAS or models:/NAME/VERSION; usual is the champion."
)
@click.option(
    "--shards",
    default=None,
    type=click.IntRange(1, 1000),
    help="prediction: parts labelled side by side, usual are 4, here one.",
)
def command(pipeline: str, **given: Any) -> None:
    """Run a pipeline on a Kubeflow cluster, or on this machine.

    The version on the server is named by the git revision and the compiled content: submitting the same again uploads
    nothing.
    """
    from capnet.config import load
    from pipelines.checks import check_options, check_place

    check_options(pipeline, given)
    params = load(Path(given["params"]), given["settings"])
    pictures = ""
    if given["local"] == "docker":
        params, pictures = _in_containers(params, given)
    elif not given["local"] and not given["dry_run"]:
        check_place(given["pictures"] or params.data.root, given["data_volume"])
    _check_nodes(pipeline, params, given)
    options = _options(params, given)
    function = _function(pipeline)(options)
    arguments = _arguments(pipeline, params, given)
    if given["local"]:
        _run_here(function, arguments, pictures, given)
        return
    from pipelines.compiling import compile_text

    text = compile_text(function)
    if given["dry_run"]:
        click.echo(text, nl=False)
        return
    _run_there(f"capnet-{pipeline}", text, arguments | _cluster(given), params.register_.experiment, given)


def _options(params: Any, given: dict[str, Any]) -> Any:
    from components.images import read_lock
    from pipelines.options import Options

    lock = None if given["local"] == "subprocess" else read_lock(Path(given["lock"]), given["allow_tags"])
    return Options(
        images=lock,
        cluster=given["local"] is None,
        state_volume=given["state_volume"],
        data_volume=given["data_volume"],
        further_seeds=len(params.train.seeds) > 1,
        shared_memory=given["shared_memory"],
        retries=(0 if given["local"] else 2) if given["retries"] is None else given["retries"],
        backoff_seconds=1 if given["local"] else 30,
        hours=given["hours"],
        train_hours=given["train_hours"],
        cache=not given["no_cache"]
        and not given["schedule"],  # a schedule has one word for the pictures, whatever they become
        no_cache_from=given["no_cache_from"],
        nodes=given["nodes"],
        processes_per_node=given["processes_per_node"],
        training_runtime=given["training_runtime"],
        start_minutes=given["start_minutes"],
    )


def _check_nodes(pipeline: str, params: Any, given: dict[str, Any]) -> None:
    """What the nodes would say after the data was prepared, said before anything starts."""
    from capnet.cluster.trainjob_spec import settings_of
    from capnet.errors import ConfigError

    if given["nodes"] > 1 and pipeline == "prediction":
        raise ConfigError(
            f"nodes = {given['nodes']}", "--nodes", "it is for training; a prediction is spread with --shards"
        )
    if given["nodes"] > 1:
        settings_of(
            {"image": "", **{name: given[name] for name in ("nodes", "processes_per_node", "accelerator_count")}},
            params,
        )


def _in_containers(params: Any, given: dict[str, Any]) -> tuple[Any, str]:
    """Settings as containers see this machine, and the folder of pictures to mount; ``given`` learns that there is
    one.
    """
    from capnet.data.sources.root import kind_of
    from capnet.errors import ConfigError, DataError
    from capnet.tracking.store import sqlite_file, tracking_uri
    from pipelines.options import DATA

    if sqlite_file(uri := tracking_uri(params.register_)):
        todo = (
            "start one with `mlflow server` and set MLFLOW_TRACKING_URI=http://127.0.0.1:5000, or take --local"
            " subprocess"
        )
        raise ConfigError(
            f"containers need an MLflow server, and the store is the file {uri}",
            "MLFLOW_TRACKING_URI, register.tracking_uri",
            todo,
        )
    pictures = given["pictures"] or params.data.root
    if kind_of(pictures) != "folder":
        return params, ""
    if not Path(pictures).is_dir():
        raise DataError("there is no such folder", pictures, "correct data.root (or --pictures)")
    given["data_volume"], given["pictures"] = True, ""
    return params.model_copy(update={"data": params.data.model_copy(update={"root": DATA})}), pictures


def _function(name: str) -> Any:
    from pipelines.compiling import PIPELINES

    return PIPELINES[name]


def _arguments(pipeline: str, params: Any, given: dict[str, Any]) -> dict[str, Any]:
    from pipelines.arguments import data_version, prediction_arguments, training_arguments

    version = (lambda data: "not asked") if given["local"] or given["dry_run"] else data_version
    if pipeline == "prediction":
        shards = given["shards"] or (1 if given["local"] else 4)
        return prediction_arguments(params, given["pictures"], given["model"], shards, version)
    return training_arguments(params, version(params.data))


def _cluster(given: dict[str, Any]) -> dict[str, Any]:
    """Run-time parameters about the cluster."""
    from pipelines.options import CLUSTER

    return {name: given[name] for name in CLUSTER} | {"accelerator_count": str(given["accelerator_count"])}


def _run_here(function: Any, arguments: dict[str, Any], pictures: str, given: dict[str, Any]) -> None:
    from pipelines.local import docker_runner, run_here, subprocess_runner
    from pipelines.summary import summary

    runs = Path(given["runs"]).resolve()
    runner = (
        subprocess_runner()
        if given["local"] == "subprocess"
        else docker_runner(runs / "state", pictures, given["network"])
    )
    for line in summary(run_here(function, arguments, runner, runs)):
        click.echo(line)


def _run_there(name: str, text: str, arguments: dict[str, Any], experiment: str, given: dict[str, Any]) -> None:
    from pipelines.server import Server
    from pipelines.ways import choose

    server = Server(choose(given["way"], given["host"], given["namespace"], given["token_file"]))
    revision = git_revision()
    version = server.upload(name, text, version_name(revision, text), f"git revision {revision}")
    click.echo(f"version {version.name} of {name}: {'uploaded' if version.new else 'already there'}")
    place = given["experiment"] or experiment
    if given["schedule"]:
        found = server.schedule(
            version, f"{name} {given['schedule']}", place, arguments, given["schedule"], given["service_account"]
        )
        click.echo(f"schedule {given['schedule']!r}: {server.way.host}/#/recurringrun/details/{found}")
        return
    run = server.start(version, f"{name} {version.name}", place, arguments, given["service_account"])
    click.echo(f"run: {server.address(run)}")
    if given["wait"]:
        server.wait(run, click.echo)
        click.echo("the run succeeded")


def version_name(revision: str, text: str) -> str:
    """Twelve digits of the commit and eight of the compiled pipeline's hash: options fixed at compile time make another
    version.
    """
    return f"{short(revision)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def entry() -> None:
    """As the command capnet: a CapnetError becomes its message and exit code."""
    from capnet.errors import CapnetError

    try:
        command.main(prog_name="python -m pipelines.submit", standalone_mode=True)
    except CapnetError as error:
        click.echo(f"pipelines.submit: {error.title} error\n{error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    entry()
