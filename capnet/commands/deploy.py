"""`capnet deploy`: a registered version as a manifest for KServe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capnet.commands.options import settings_options

if TYPE_CHECKING:
    from capnet.serving.kserve import Deployment

LOCK = "components/images.lock.yaml"
ACCOUNT = "deploy/kserve/service-account.yaml"
EPILOG = """\b
Examples:
  capnet deploy --artifacts s3://mlflow                       the champion, into deploy/kserve/NAME.yaml
  capnet deploy --model models:/capnet/7 --out -              one version, printed
  capnet deploy --image registry.example.org/capnet-serve@sha256:...
  capnet deploy --namespace wildlife                          says which kubectl apply makes it serve there"""


@click.command("deploy", epilog=EPILOG)
@click.option(
    "--model",
    "address",
    default="",
    metavar="MODEL",
    help="models:/NAME@ALIAS or models:/NAME/VERSION; default: the champion.",
)
@click.option(
    "--artifacts",
    default="",
    metavar="STORE",
    help="Store behind an MLflow server that hands artifacts through, e.g. s3://mlflow, or pvc://CLAIM/FOLDER with a"
    " claim of the pods' namespace.",
)
@click.option("--image", default="", metavar="IMAGE", help=f"Image that serves, by digest; default: `serve` of {LOCK}.")
@click.option("--out", default="", metavar="FILE", help="Manifest; default: deploy/kserve/NAME.yaml; - prints it.")
@click.option("--name", default="", help="Name of the service; default: the registered model's.")
@click.option("--namespace", default="", help="Namespace; default: the one that kubectl is set to.")
@click.option(
    "--service-account", default="capnet-serve", show_default=True, help="Service account whose secret opens the store."
)
@click.option("--cpu", default="1", show_default=True, help="CPUs of a pod, which it gets and never exceeds.")
@click.option("--memory", default="2Gi", show_default=True, help="Memory of a pod.")
@click.option("--gpus", default=0, show_default=True, type=click.IntRange(0), help="GPUs of a pod.")
@click.option(
    "--replicas",
    default=1,
    show_default=True,
    type=click.IntRange(0),
    help="Fewest pods; 0 goes down to none in KServe's Knative mode, and means 1 in its Standard mode.",
)
@settings_options("section register names the store")
def command(
    address: str,
    artifacts: str,
    image: str,
    out: str,
    name: str,
    params: str,
    settings: tuple[str, ...],
    **pods: Any,
) -> None:
    """Write a KServe InferenceService that serves a registered version.

    KServe follows no alias: the manifest names the version's files in the store. A version whose verdict is red or
    missing, or whose files are gone, is refused. After a promotion or a rollback run it again; an unchanged champion
    gives an unchanged file.
    """
    from capnet.config import load
    from capnet.contracts import replace_file
    from capnet.promotion.champion import ALIAS, FORM, PACKED, resolve
    from capnet.promotion.versions import require_files
    from capnet.serving import kserve
    from capnet.tracking.store import store

    register = load(Path(params), settings).register_
    with store(register, "find the version to deploy", reads=True) as client:
        version = resolve(client, address or f"models:/{register.name}@{ALIAS}")
        kserve.check_verdict(client, version)
        require_files(client, version)
        storage = kserve.storage_address(client, version, artifacts)
    called, runs = name or kserve.service_name(version.name), image or kserve.serve_image(Path(LOCK))
    deployment = kserve.Deployment(called, runs, **pods)
    kserve.check_form(deployment)
    target = Path(out or f"deploy/kserve/{deployment.name}.yaml")
    if out != "-":
        kserve.check_out(target, version.name)
    text = kserve.render(kserve.manifest(version, storage, deployment))
    if version.tags.get(FORM) != PACKED:
        click.echo(
            "note: the backbone's weights are not in this version, so the image must have them; register.pack_backbone:"
            " true packs them",
            err=True,
        )
    if deployment.namespace == kserve.SKIPPED:
        click.echo(
            f"note: in a full Kubeflow KServe fetches no model in namespace {kserve.SKIPPED}: use that of a profile",
            err=True,
        )
    if len(host := f"{deployment.name}-predictor-{deployment.namespace}") > kserve.HOST:
        click.echo(
            f"note: {host} is longer than {kserve.HOST} letters, and KServe's Standard mode makes no service of it,"
            " unless its domainTemplate has been changed: give a shorter --name",
            err=True,
        )
    if out == "-":
        click.echo(text, nl=False)
        return
    replace_file(target, text)
    click.echo(f"deploy: {version.name} version {version.version} from {storage}, in {target}")
    click.echo(f"next: {_apply(deployment, target)}")
    wait = _kubectl(deployment, "rollout status", "--timeout=10m", f"deployment/{deployment.name}-predictor")
    click.echo(f"it serves, in KServe's Standard mode, when this ends: {wait}")


def _apply(deployment: Deployment, target: Path) -> str:
    """kubectl's command that puts service and account into one namespace; an account of one's own is there already."""
    files = [ACCOUNT, str(target)] if deployment.service_account == type(deployment).service_account else [str(target)]
    return _kubectl(deployment, "apply", *(word for name in files for word in ("--filename", name)))


def _kubectl(deployment: Deployment, command: str, *arguments: str) -> str:
    namespace = ["--namespace", deployment.namespace] if deployment.namespace else []
    return shlex.join(["kubectl", *command.split(), *namespace, *arguments])
