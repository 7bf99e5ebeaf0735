"""Names that pipeline, manifests and doctor agree on: secrets with their keys, claims, mount points, service account,
label.
"""

from __future__ import annotations

import re
from pathlib import Path

from capnet.errors import Problem

STATE = "/var/capnet"  # CAPNET_STATE of the images: checkpoints, copies of remote images
DATA = "/mnt/data"  # where a volume with images is mounted
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
MLFLOW_KEYS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_S3_ENDPOINT_URL",
)
GIT_KEYS = ("GIT_USERNAME", "GIT_PASSWORD")
S3_SECRET, MLFLOW_SECRET, GIT_SECRET = "capnet-s3", "capnet-mlflow", "capnet-git"
STATE_CLAIM, DATA_CLAIM = "capnet-state", "capnet-data"
SERVICE_ACCOUNT = "capnet-pipeline"
ACCELERATOR = "nvidia.com/gpu"
PULL_SECRET = "registry-key"
POD = {  # of a task that starts pods of its own: environment variable and where Kubernetes has its value
    "CAPNET_POD": "metadata.name",
    "CAPNET_POD_UID": "metadata.uid",
    "CAPNET_NAMESPACE": "metadata.namespace",
    "CAPNET_ACCOUNT": "spec.serviceAccountName",
    "CAPNET_RUN": "metadata.labels['pipeline/runid']",
}
RUNTIME = "torch-distributed"  # the training runtime that Kubeflow Trainer brings along
# of the pods that train together: their network policy selects them by it
NODE_LABEL = ("app.kubernetes.io/component", "training-node")
# of every pod of a task and of no pod that serves: network policies select tasks by it
LABEL = ("capnet/role", "task")
OLDEST_KFP = (2, 16)  # the first server that knows the field securityContext of a task
NEWER_KFP = "install 2.17, or at least 2.16 (docs/on-kubernetes.md, Kubeflow Pipelines)"
NAMESPACE = "kubeflow"  # where a standalone Kubeflow Pipelines runs its pods
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def pod_namespace() -> str:
    """The namespace of the pod that this runs in; "" outside of a cluster."""
    return POD_NAMESPACE.read_text().strip() if POD_NAMESPACE.is_file() else ""


def kfp_is_new_enough(tag: str) -> bool | None:
    """Whether a server of Kubeflow Pipelines can run the pipelines.

    Args:
        tag: the version that it gives itself.

    Returns:
        None where the tag is no version: many servers before 2.16 call theirs "unknown".
    """
    version = re.match(r"v?(\d+)\.(\d+)", tag)
    return tuple(map(int, version.groups())) >= OLDEST_KFP if version else None


def on_volume(root: str) -> bool:
    """Whether ``data.root`` lies on the volume with images."""
    return root == DATA or root.startswith(f"{DATA}/")


def unseen(root: str) -> Problem:
    """What is wrong with images in a folder of the machine that submits."""
    todo = (
        f"set data.root to s3://BUCKET/PREFIX, to a git address, or to a folder below {DATA} and submit with"
        " --data-volume"
    )
    return Problem(f"data.root = {root} is a folder of this machine, and no pod sees it", "data.root", todo)
