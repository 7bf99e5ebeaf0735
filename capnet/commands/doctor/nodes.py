"""`capnet doctor --cluster --nodes N`: does the cluster have what training on several nodes needs beyond the rest."""

from __future__ import annotations

from collections.abc import Iterable

from capnet.cluster.kubernetes_api import ClusterError, Kubernetes, NotThere
from capnet.commands.doctor.findings import Finding, Needs, wrong

TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
RIGHTS = (  # group, resource, verb, name: what task train does with its account
    ("trainer.kubeflow.org", "trainjobs", "create", ""),
    ("trainer.kubeflow.org", "trainjobs", "get", ""),
    ("trainer.kubeflow.org", "trainjobs", "patch", ""),
    ("trainer.kubeflow.org", "trainjobs", "delete", ""),
    ("", "pods", "list", ""),
    ("", "pods/log", "get", ""),
    ("", "events", "list", ""),
    ("", "persistentvolumeclaims", "get", ""),
)
DEPLOY = "make deploy FOLDER=overlays/nodes"
DEPLOY_DATA = (
    "make deploy, with an overlay of yours such as deploy/overlays/profile"  # overlays/nodes leaves it as it is
)
DOCS = "docs/on-kubernetes.md, Several nodes"


def check_trainer(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """Whether Kubeflow Trainer is installed, with the runtime; other checks look at the volumes and the account."""
    about = "training on several nodes"
    try:
        api.get(TRAINER)
    except NotThere:
        yield wrong(about, "Kubeflow Trainer is not there", api.host, f"install it, 2.2 or newer ({DOCS})")
        return
    if not knows_patches(api):
        what = "this Kubeflow Trainer is older than 2.2: it would drop the volumes of a TrainJob"
        yield wrong(about, what, api.host, f"install 2.2 or newer ({DOCS})")
        return
    kind, _, name = needs.training_runtime.rpartition("/")
    path = f"{TRAINER}/clustertrainingruntimes/{name}"
    if kind == "TrainingRuntime":
        path = f"{TRAINER}/namespaces/{needs.namespace}/trainingruntimes/{name}"
    is_installed = api.exists(path)
    if is_installed is None:
        yield Finding(about, f"Kubeflow Trainer; runtime {name} was not checked, because you may not see it")
        return
    if not is_installed:
        todo = f"install the runtimes of Kubeflow Trainer ({DOCS}), or name an installed one: --training-runtime"
        yield wrong(about, f"there is no training runtime {name}", f"{kind or 'ClusterTrainingRuntime'}s", todo)
        return
    yield Finding(about, f"Kubeflow Trainer with runtime {needs.training_runtime}")


def knows_patches(api: Kubernetes) -> bool:
    """Whether a TrainJob has the field with the volumes of its pods; True where the cluster shows no fields."""
    try:
        schemas = api.get(f"/openapi/v3{TRAINER}")["components"]["schemas"]
    except (ClusterError, KeyError):
        return True
    jobs = [schema for name, schema in schemas.items() if name.endswith(".TrainJob")]
    return not jobs or "runtimePatches" in str(jobs)
