"""Which options of pipelines.submit go together, and which values a cluster would refuse after the data was
prepared.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from capnet.cluster.names import RUNTIME, on_volume, unseen
from capnet.errors import ConfigError, DataError, Problem, counted

QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?([KMGTPE]i|[mkMGTPE]|e[0-9]+)?")  # of Kubernetes, and above zero
LEAST_BYTES = 2**20  # of memory: fewer are a number without its unit, and no container starts with them
NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")  # its value, and its name behind a domain
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")  # what a taint is compared with
MOST_DOMAIN = 253 - len("requests.")  # of a GPU's kind: a quota has it behind this word
QUANTITIES = ("cpu", "memory", "shared_memory")
NAMES = ("s3_secret", "mlflow_secret", "git_secret")
# a task's volume has the name of its claim, which Kubernetes therefore wants shorter, without dots, and once in a pod
VOLUME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
CLAIMS = ("state_claim", "data_claim")
SCRATCH = tuple(f"{name}-scratch" for name in ("gcs", "s3", "minio", "dot-local", "dot-cache", "dot-config"))
TAKEN = ("tmp", "shm", "state", "kfp-launcher", "var-run-argo", "tmp-dir-argo", *SCRATCH)  # by other volumes of a task
MOST_BYTES = 120_000  # of a run's parameters: KFP hands them on in one variable of a process, which holds 131,072
TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")  # KFP drops another field without a word
OPERATORS = ("Equal", "Exists", "Lt", "Gt")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
RUNTIMES = ("ClusterTrainingRuntime", "TrainingRuntime")  # of Kubeflow Trainer
# options that only several nodes use, with their defaults
OF_NODES = {"processes_per_node": 0, "training_runtime": RUNTIME, "start_minutes": 30.0}
OF_PREDICTION = ("pictures", "model", "shards")
MOST_SHARDS = 100  # Argo hands the list of all parts to task merge in one variable: 928 bytes a part, of 131,072


def check_options(pipeline: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigError with everything that is wrong."""
    problems = [*ignored_options(pipeline, options), *([] if options["local"] else bad_values(options))]
    if problems:
        raise ConfigError(problems=problems)


def check_root(root: str, data_volume: bool) -> None:
    """Raise ConfigError where no pod would find the images below ``root``, a value of data.root."""
    from capnet.data.sources.root import kind_of

    if kind_of(root) != "folder" or (data_volume and on_volume(root)):
        return
    on_it = Problem(
        f"data.root = {root} is on the volume with images, which no task mounts", "data.root", "add --data-volume"
    )
    raise ConfigError(problems=[on_it if on_volume(root) else unseen(root)])


def check_folder(root: str) -> None:
    """Raise DataError where ``root``, a value of data.root, is a folder that this machine does not have."""
    from capnet.data.sources.root import kind_of

    if kind_of(root) == "folder" and not Path(root).is_dir():
        raise DataError("there is no such folder", root, "correct data.root (or --pictures)")


def check_device(device: str, accelerators: int) -> None:
    """Raise ConfigError where tasks would hold GPUs for hours, and ``device``, a value of runtime.device, uses none."""
    if accelerators and device == "cpu":
        what = f"{counted(accelerators, 'GPU')} asked for, and runtime.device = cpu uses none"
        todo = "set runtime.device: auto, or leave --accelerator-count out"
        raise ConfigError(what, "--accelerator-count, runtime.device", todo)


def check_size(arguments: Mapping[str, Any]) -> None:
    """Raise ConfigError where a run's parameters are too long together to be handed on."""
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in arguments.items()}
    # JSON in JSON
    sizes = Counter({name: len(json.dumps(text, ensure_ascii=False).encode()) for name, text in texts.items()})
    if sizes.total() > MOST_BYTES:
        what = f"the parameters of the run have {sizes.total()} bytes, and {MOST_BYTES} fit"
        where = ", ".join(f"{name}: {size}" for name, size in sizes.most_common(2))
        raise ConfigError(
            what, where, "shorten the file that travels there: register.policy, validate.reference, split.reference"
        )


def ignored_options(pipeline: str, options: Mapping[str, Any]) -> Iterator[Problem]:
    """Options that would be ignored silently."""
    for name in ("dry_run", "schedule"):
        if options["local"] and options[name]:
            what = f"{option(name)} is for a cluster, and --local runs at once on this machine"
            yield Problem(what, option(name), "leave one of the two out")
    if options["schedule"] and options["wait"]:
        yield Problem("no run starts now that could be waited for", "--wait, --schedule", "leave one of the two out")
    if (options["shards"] or 0) > MOST_SHARDS:
        what = f"{options['shards']} parts, whose list is too long for the task that puts them together"
        yield Problem(what, option("shards"), f"ask for at most {MOST_SHARDS}")
    for name, usual in OF_NODES.items():
        if options["nodes"] == 1 and options[name] != usual:
            todo = "add --nodes, or leave it out"
            yield Problem(f"{option(name)} is for several nodes, and one trains", option(name), todo)
    if pipeline == "prediction" and options["nodes"] > 1:
        todo = "it is for training; a prediction is divided with --shards"
        yield Problem(f"nodes = {options['nodes']}", option("nodes"), todo)
    for name in OF_PREDICTION:
        if pipeline == "training" and options[name]:
            todo = "leave it out; the images of a training are data.root"
            yield Problem(f"{option(name)} is for prediction", option(name), todo)


def bad_values(options: Mapping[str, Any]) -> Iterator[Problem]:
    """Values that a cluster would refuse."""
    from kubernetes.utils.quantity import parse_quantity

    for name in QUANTITIES:
        if not QUANTITY.fullmatch(options[name]) or not re.search(r"[1-9]", options[name]):
            todo = "write it like 500m or 2 (CPUs), 8Gi or 512Mi (bytes)"
            yield Problem(f"{options[name]!r} is no quantity of Kubernetes", option(name), todo)
        elif name != "cpu" and parse_quantity(options[name]) < LEAST_BYTES:
            yield Problem(f"{options[name]!r} is less than 1Mi of memory", option(name), "add the unit: 8Gi or 512Mi")
    yield from object_names(options)
    for name in CLAIMS:
        if not VOLUME.fullmatch(options[name]) or options[name] in TAKEN:
            todo = f"write small letters, digits and -, at most 63; {', '.join(TAKEN)} are volumes of a task already"
            yield Problem(f"{options[name]!r} can be no claim of a task", option(name), todo)
    if options["data_volume"] and options["state_claim"] == options["data_claim"]:
        what = f"{options['data_claim']} would be mounted twice, for state and for images"
        yield Problem(what, "--state-claim, --data-claim", "name two claims")
    domain, slash, kind = options["accelerator_type"].partition("/")
    is_domain = NAME.fullmatch(domain) and len(domain) <= MOST_DOMAIN and not domain.startswith("requests.")
    if not slash or not is_domain or not LABEL.fullmatch(kind):
        todo = "write a resource with its domain, such as nvidia.com/gpu; --accelerator-count 0 asks for none"
        what = f"{options['accelerator_type']!r} is no kind of GPU"
        yield Problem(what, option("accelerator_type"), todo)
    for key, value in options["node_selector"].items():
        if not is_label(key) or (value and not LABEL.fullmatch(value)):
            todo = "see the labels of the nodes: kubectl get nodes --show-labels"
            yield Problem(f"'{key}={value}' can be no label of a node", option("node_selector"), todo)
    kind, slash, runtime = options["training_runtime"].rpartition("/")
    if not NAME.fullmatch(runtime) or (slash and kind not in RUNTIMES):
        todo = f"write NAME or KIND/NAME; kinds: {', '.join(RUNTIMES)}; see kubectl get clustertrainingruntimes"
        yield Problem(f"{options['training_runtime']!r} is no training runtime", option("training_runtime"), todo)
    for item in options["tolerations"]:
        if todo := toleration_advice(item):
            yield Problem(f"{json.dumps(item)} is no toleration of a pod", option("tolerations"), todo)


def object_names(options: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the names of secrets and of the service account."""
    optional = [name for name in ("pull_secret", "service_account") if options[name]]
    for name in (*NAMES, *optional):
        if not NAME.fullmatch(options[name]):
            todo = "write small letters, digits, hyphens and dots, a letter or digit before and after each dot"
            if name != "service_account":
                todo += "; a secret that does not exist does no harm"
            yield Problem(f"{options[name]!r} is no name of an object in Kubernetes", option(name), todo)


def toleration_advice(toleration: Mapping[str, Any]) -> str:
    """What to correct in a toleration that KFP or Kubernetes refuses, or whose field KFP drops; "" for any other."""
    known = {name: toleration.get(name) or "" for name in TOLERATION[:-1]}
    operator, effect, seconds = known["operator"] or OPERATORS[0], known["effect"], toleration.get(TOLERATION[-1])
    texts = all(isinstance(text, str) for text in known.values())
    if toleration.keys() - set(TOLERATION) or not texts or operator not in OPERATORS or effect not in ("", *EFFECTS):
        listed = f"operators: {', '.join(OPERATORS)}; effects: {', '.join(EFFECTS)}"
        return f"write {', '.join(TOLERATION)}; {listed}"
    if operator == "Exists" and known["value"]:
        return "leave value out: operator Exists takes none"
    if operator != "Exists" and not known["key"]:
        return "name the key of the taint; without one, operator is Exists"
    if operator in OPERATORS[2:] and not WHOLE.fullmatch(known["value"]):
        return f"write a whole number as value: operator {operator} compares the taint with it"
    if (known["key"] and not is_label(known["key"])) or (known["value"] and not LABEL.fullmatch(known["value"])):
        return "write key and value as the taint has them: kubectl describe nodes"
    if seconds is not None and (effect != "NoExecute" or type(seconds) is not int):
        return "tolerationSeconds is a whole number, and for effect NoExecute alone"
    return ""


def is_label(key: str) -> bool:
    """Whether a label or a taint can have this key: a name, which a domain may precede."""
    domain, slash, name = key.rpartition("/")
    return bool(LABEL.fullmatch(name)) and not (slash and not NAME.fullmatch(domain))


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
