"""`python -m pipelines.submit training|prediction`: compile, upload, start on a cluster; or run here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from capnet.cluster.names import DATA, PULL_SECRET
from capnet.commands.options import OneValueEach
from capnet.config import Params, load
from capnet.errors import ConfigError, exits
from capnet.machine_faults import machine_faults
from components.revision import git_revision, short
from pipelines.submit_options import with_options

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


@click.command(
    cls=OneValueEach,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
@click.argument("pipeline", type=click.Choice(["training", "prediction"]))
@with_options
def command(pipeline: str, **options: Any) -> None:
    """Run a pipeline on a Kubeflow cluster, or on this machine.

    The version on the server is named by the git revision and the compiled content: submitting the same again uploads
    nothing.
    """
    from capnet.cluster.trainjob_spec import settings_of
    from pipelines.checks import check_device, check_folder, check_options, check_root, check_size

    check_options(pipeline, options)
    params = load(Path(options["params"]), options["settings"])
    if options["pictures"]:
        params = with_root(params, options["pictures"])
    folder = ""  # of images, which is mounted into containers of this machine
    if options["local"] == "docker":
        params, folder = _in_containers(params)
    elif options["local"]:
        check_folder(params.data.root)
    else:
        check_device(params.runtime.device, options["accelerator_count"])
        if not options["dry_run"]:
            check_root(params.data.root, options["data_volume"])
    if options["nodes"] > 1:  # refuse before anything starts what the nodes would refuse after the data was prepared
        per_node = {name: options[name] for name in ("nodes", "processes_per_node", "accelerator_count")}
        settings_of({"image": "", **per_node}, params)
    from pipelines.compiling import PIPELINES, compile_text

    function = PIPELINES[pipeline](_compile_options(params, folder, options))
    arguments = _arguments(pipeline, params, options)
    if options["local"]:
        _run_here(function, arguments, folder, options)
        return
    arguments |= _cluster(options)
    check_size(arguments)
    text = compile_text(function)
    if options["dry_run"]:
        click.echo(text, nl=False)
        return
    _run_there(f"capnet-{pipeline}", text, arguments, params.register_.experiment, options)


def with_root(params: Params, root: str) -> Params:
    """``params`` with images from another address or folder."""
    return params.model_copy(update={"data": params.data.model_copy(update={"root": root})})


def _compile_options(params: Params, folder: str, options: dict[str, Any]) -> Any:
    from components.images import read_lock
    from pipelines.options import Options

    local = options["local"]
    retries = 0 if local else 2
    return Options(
        **{field.name: options[field.name] for field in fields(Options) if field.name in options}
        | {
            "images": None if local == "subprocess" else read_lock(Path(options["lock"]), options["allow_tags"]),
            "cluster": local is None,
            "data_volume": options["data_volume"] or bool(folder),
            "further_seeds": len(params.train.seeds) > 1,
            "pull_secret": bool(options["pull_secret"]) and local is None,
            "retries": retries if options["retries"] is None else options["retries"],
            "backoff_seconds": 1 if local else 30,
            # a schedule has one name for the images, whatever they become
            "cache": not options["no_cache"] and not options["schedule"],
        }
    )


def _in_containers(params: Params) -> tuple[Params, str]:
    """Settings as containers see this machine, and the folder of images to mount; "" where images are elsewhere."""
    from capnet.data.sources.root import kind_of
    from capnet.tracking.database import sqlite_file
    from capnet.tracking.store import tracking_uri
    from pipelines.checks import check_folder

    if sqlite_file(uri := tracking_uri(params.register_)):
        what = f"containers need an MLflow server, and the store is the file {uri}"
        todo = "start `mlflow server` and set MLFLOW_TRACKING_URI=http://127.0.0.1:5000, or take --local subprocess"
        raise ConfigError(what, "MLFLOW_TRACKING_URI, register.tracking_uri", todo)
    root = params.data.root
    check_folder(root)
    return (with_root(params, DATA), root) if kind_of(root) == "folder" else (params, "")


def _arguments(pipeline: str, params: Params, options: dict[str, Any]) -> dict[str, Any]:
    from capnet.tasks import refuse_credentials
    from pipelines.arguments import data_version, prediction_arguments, training_arguments

    refuse_credentials(params)  # before the images are asked for their version
    version = "not asked" if options["local"] or options["dry_run"] else data_version(params.data)
    if pipeline == "prediction":
        shards = options["shards"] or (1 if options["local"] else 4)
        return prediction_arguments(params, options["model"], shards, version)
    return training_arguments(params, version)


def _cluster(options: dict[str, Any]) -> dict[str, Any]:
    """Run-time parameters about the cluster."""
    from pipelines.task_setup import CLUSTER

    texts = {
        "accelerator_count": str(options["accelerator_count"]),
        "pull_secret": options["pull_secret"] or PULL_SECRET,  # KFP refuses an empty name, and here no task has it
    }
    return {name: options[name] for name in CLUSTER} | texts


def _run_here(function: Any, arguments: dict[str, Any], folder: str, options: dict[str, Any]) -> None:
    from pipelines.local import docker_runner, run_here, subprocess_runner
    from pipelines.summary import summary

    runs = Path(options["runs"]).resolve()
    if options["local"] == "subprocess":
        runner = subprocess_runner()
    else:
        runner = docker_runner(runs / "state", folder, options["network"])
    for line in summary(run_here(function, arguments, runner, runs), named_settings(options)):
        click.echo(line)


def named_settings(options: Mapping[str, Any]) -> list[str]:
    """The options by which another command reads section register as this one did."""
    params = [] if options["params"] == "params.yaml" else ["--params", options["params"]]
    changes = [item for item in options["settings"] if item.startswith("register.")]
    return [*params, *(word for item in changes for word in ("--set", item))]


def _run_there(name: str, text: str, arguments: dict[str, Any], experiment: str, options: dict[str, Any]) -> None:
    from pipelines.run_tasks import task_names
    from pipelines.server import Server
    from pipelines.ways import choose

    server = Server(choose(options["way"], options["host"], options["namespace"], options["token_file"]))
    revision = git_revision()
    version = server.upload(name, text, version_name(revision, text), f"git revision {revision}")
    click.echo(f"version {version.name} of {name}: {'uploaded' if version.new else 'already there'}")
    experiment, account, cron = options["experiment"] or experiment, options["service_account"], options["schedule"]
    if cron:
        schedule, others, under_way = server.schedule(version, f"{name} {cron}", experiment, arguments, cron, account)
        click.echo(f"schedule {cron!r}: {server.page}/#/recurringrun/details/{schedule}")
        if under_way:
            click.echo("switched off, not deleted: the schedule before, because a run of it is under way and goes on")
        for other in others:
            click.echo(f"stays as well: schedule {other}; delete it there if this one was to replace it")
        return
    run = server.start(version, f"{name} {version.name}", experiment, arguments, account)
    click.echo(f"run: {server.address(run)}")
    if options["wait"]:
        server.wait(run, task_names(text), click.echo)
        click.echo("the run succeeded")


def version_name(revision: str, text: str) -> str:
    """Twelve digits of the commit and eight of the compiled pipeline's hash: options fixed at compile time make another
    version.
    """
    return f"{short(revision)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


if __name__ == "__main__":
    with exits("pipelines.submit"), machine_faults():
        command.main(prog_name="python -m pipelines.submit", standalone_mode=True)
