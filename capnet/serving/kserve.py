"""A registered version as a KServe InferenceService. KServe follows no alias, so the manifest names the version's
storage address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from capnet.contracts import slugify
from capnet.errors import ConfigError, GateError, Problem
from capnet.promotion.champion import (
    FORM,
    OVERRIDE,
    VERDICT,
    VERDICT_AGAINST,
    identity,
    override_advice,
    provenance,
    refusal,
)
from capnet.promotion.history import events

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

# where KServe's storage initializer reads folders; from any other http(s) address it fetches one file
STORES = ("s3://", "gs://", "hdfs://", "webhdfs://", "pvc://")
AZURE = re.compile(r"https://[^/]+\.blob\.core\.windows\.net/.+")
SKIPPED = "kubeflow"  # has the label control-plane in a full Kubeflow, and KServe's webhook skips such namespaces
PROXIED = "mlflow-artifacts:"
HEAD = "# Written by `capnet deploy`: "  # begins a manifest; then the version that it serves
MODELS = "/mnt/models"  # where KServe puts what STORAGE_URI names
PORT = 8080
NUMBER = r"[0-9]+(\.[0-9]+)?([mkMGTPE]|[KMGTPE]i|[eE][0-9]+)?"
# of what a person gives: what Kubernetes and KServe take, and in words; isvc.NAME-predictor becomes a label
PATTERNS = {
    "name": (r"[a-z]([-a-z0-9]{0,46}[a-z0-9])?", "at most 48 of a-z, 0-9 and hyphens, a letter first"),
    "namespace": (r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?", "at most 63 of a-z, 0-9 and hyphens"),
    "service_account": (
        r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "a-z, 0-9, hyphens and dots, a letter or digit before and after each dot",
    ),
    "image": (
        r"(\[[0-9a-fA-F:]+\]|[\w.-]+)(:[0-9]+)?(/[a-z0-9._-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?",
        "REGISTRY/REPOSITORY@sha256:DIGEST, without https://",
    ),
    "cpu": (NUMBER, "a number such as 2 or 500m"),
    "memory": (rf"(?=.*[MGTPEe]|[0-9]{{7}}){NUMBER}", "a number such as 4Gi, with its unit"),  # 4 would be four bytes
}
HOST = 63  # letters of NAME-predictor-NAMESPACE, which begins a host name in KServe's Standard mode
DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Deployment:
    """What a person decides about a service; empty ``namespace``: the one that kubectl is set to."""

    name: str
    image: str
    namespace: str = ""
    service_account: str = "capnet-serve"
    cpu: str = "1"
    memory: str = "2Gi"
    gpus: int = 0
    replicas: int = 1


def check_form(deployment: Deployment) -> None:
    """Raise ConfigError for what Kubernetes would refuse, such as a name in capital letters.

    Args:
        deployment: what a person decides.
    """
    problems = [
        Problem(f"{value!r} is not what Kubernetes takes", f"--{key.replace('_', '-')}", f"give {words}")
        for key, (form, words) in PATTERNS.items()
        if not re.fullmatch(form, value := str(getattr(deployment, key)), re.ASCII)
    ]
    if problems:
        raise ConfigError(problems=problems)


def check_out(path: Path, model: str) -> None:
    """A manifest replaces an earlier one of the same registered model, and nothing else.

    Args:
        path: of the manifest.
        model: the registered model's name.

    Raises:
        ConfigError: another file is there, or the manifest of another model.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    start = f"{HEAD}{model} version ".encode()
    with open(path, "rb") as file:
        if file.read(len(start)) != start:
            what = f"there is a file that is no manifest of {model}"
            raise ConfigError(what, str(path), "give another --out or --name, or move the file")


def storage_address(client: MlflowClient, version: ModelVersion, artifacts_store: str) -> str:
    """Where the version's artifact lies for KServe.

    Args:
        client: of the registry.
        version: registered there.
        artifacts_store: address of the store of a server that hands artifacts through; "" for none.

    Raises:
        ConfigError: KServe could not read the address.
    """
    address = str(client.get_model_version_download_uri(version.name, version.version))
    if address.startswith(PROXIED):
        if not artifacts_store:
            raise ConfigError(
                f"the artifacts of {identity(version.name, version.version)} come through the MLflow server"
                f" ({address}), and KServe reads from the store itself",
                "--artifacts",
                "give the store behind the server, what its --artifacts-destination says, e.g. --artifacts s3://mlflow",
            )
        # without the host of //host/path
        address = f"{artifacts_store.rstrip('/')}/{urlsplit(address).path.lstrip('/')}"
    if not address.startswith(STORES) and not AZURE.fullmatch(address):
        raise ConfigError(
            f"KServe cannot read a folder from {address}",
            identity(version.name, version.version),
            f"give a store of {', '.join(STORES)} or https://ACCOUNT.blob.core.windows.net/CONTAINER: register the"
            " model at a server whose artifacts are there; --artifacts names the store behind a server that hands them"
            " through",
        )
    return address


def check_verdict(client: MlflowClient, version: ModelVersion) -> None:
    """Ask the gate about a version, champion or not: once its files are in a pod nobody asks the registry any more.

    Raises:
        GateError: the gate refuses it.
    """
    reason = refusal(version.name, version.version, version.tags, events(client, version.name))
    if reason:
        raise GateError(
            f"{identity(version.name, version.version)} has {reason}",
            f"models:/{version.name}/{version.version}",
            f"run `capnet promote --version {version.version}`, or {override_advice(version.name, version.version)}",
        )


def serve_image(lock: Path) -> str:
    """The image `serve` by digest, from the lock that pushing images writes.

    Args:
        lock: the YAML file.

    Returns:
        REPOSITORY@sha256:DIGEST.

    Raises:
        ConfigError: the lock is missing or has no digest of it.
    """
    try:
        entry: Any = yaml.safe_load(lock.read_text(encoding="utf-8"))["images"]["serve"]
        tag, digest = (str(entry[key]) for key in ("tag", "digest"))
    except (OSError, yaml.YAMLError, ValueError, LookupError, TypeError):  # no lock, or one that somebody has edited
        tag = digest = ""
    head, slash, last = tag.rpartition("/")
    image = f"{head}{slash}{last.partition(':')[0]}@{digest}"
    if not DIGEST.fullmatch(image):
        raise ConfigError(
            "no digest of the image `serve`",
            str(lock),
            "push the images, which writes that file, or give --image REPOSITORY@sha256:DIGEST",
        )
    return image


def manifest(version: ModelVersion, address: str, deployment: Deployment) -> dict[str, Any]:
    """The InferenceService: one container that serves what KServe's storage initializer has fetched.

    Args:
        version: whose tags become labels and annotations.
        address: from ``storage_address``.
        deployment: what a person decides.

    Returns:
        The manifest, ready for YAML.
    """
    tags, origin = version.tags, provenance(version)
    labels = {
        "app.kubernetes.io/name": deployment.name,
        "app.kubernetes.io/part-of": "capnet",
        "app.kubernetes.io/version": label(str(version.version)),
        "capnet/model": label(version.name),
        "capnet/content": label(tags.get("content_hash", "")[:16]),
    }
    annotations = {
        "capnet/model": identity(version.name, version.version),
        "capnet/content-hash": tags.get("content_hash", ""),
        "capnet/verdict": tags.get(VERDICT, ""),
        "capnet/verdict-against": tags.get(VERDICT_AGAINST, ""),
        "capnet/gate-override": tags.get(OVERRIDE, ""),
        "capnet/backbone": tags.get(FORM, ""),
        "capnet/data-md5": origin.get("data_md5", ""),
        "capnet/git-revision": origin.get("git_revision", ""),
    }
    namespace = {"namespace": deployment.namespace} if deployment.namespace else {}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": deployment.name,
            **namespace,
            "labels": labels,
            "annotations": {key: text for key, text in annotations.items() if text},
        },
        "spec": {
            "predictor": {
                "serviceAccountName": deployment.service_account,
                "minReplicas": deployment.replicas,
                "containers": [_container(address, deployment)],
            }
        },
    }


def _container(address: str, deployment: Deployment) -> dict[str, Any]:
    """The one container: this program's server, over what KServe has fetched from ``address``."""
    # what KServe's webhook looks for in a container of one's own, and folders that any user may write to
    environment = {
        "STORAGE_URI": address,
        "HOME": "/tmp",
        "CAPNET_STATE": "/tmp/capnet",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    resources: dict[str, dict[str, str]] = {
        "requests": {"cpu": deployment.cpu, "memory": deployment.memory},
        # KServe fills in what is missing; its usual limit of one CPU would be below a request of two
        "limits": {"cpu": deployment.cpu, "memory": deployment.memory},
    }
    if deployment.gpus:
        resources["limits"]["nvidia.com/gpu"] = str(deployment.gpus)
    return {
        "name": "kserve-container",  # the name tells KServe which container serves
        "image": deployment.image,
        "command": ["python", "-m", "capnet.serving.server"],
        "args": [f"--model={MODELS}", "--host=0.0.0.0", f"--port={PORT}"],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        # no startupProbe: Knative Serving takes one from 1.15 on; without a livenessProbe no slow start needs one
        "readinessProbe": {"httpGet": {"path": "/ping", "port": PORT}, "periodSeconds": 5, "failureThreshold": 3},
        "resources": resources,
        "securityContext": {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def render(content: Mapping[str, Any]) -> str:
    """The manifest as YAML with a line that says what it serves; equal versions give equal bytes."""
    annotations = content["metadata"]["annotations"]
    head = f"{HEAD}{annotations['capnet/model']}. KServe follows no alias: write it again after a promotion.\n"
    return head + yaml.safe_dump(dict(content), sort_keys=False, width=1000, allow_unicode=True)


def service_name(model: str) -> str:
    """A name that Kubernetes takes, from a registered model's."""
    name = slugify(model)
    return (name if name[0].isalpha() else f"m-{name}")[:40].rstrip("-")


def label(text: str) -> str:
    """Text as the value of a label: letters, digits, dots, hyphens and underscores, 63 at most, letters or digits at
    both ends.
    """
    return re.sub(r"[^\w.-]", "-", text, flags=re.ASCII)[:63].strip("-._")
