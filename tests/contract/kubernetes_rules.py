"""What a Kubernetes API server refuses of the objects that we make; a stand-in for its validation.

Sources, by the name that a rule bears: kubernetes v1.33, pkg/apis/core/validation/validation.go (core),
pkg/apis/rbac/validation/validation.go (rbac), pkg/apis/networking/validation/validation.go (networking);
k8s.io/apimachinery v0.33.0, pkg/util/validation/validation.go (names), pkg/api/resource/quantity.go (quantity).
A server of 1.36.2 was asked the same, with thousands of documents that are wrong in one place. It takes any printable
name of a variable; older ones, which we are made for too, do not.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from contract.kubernetes_names import QUALIFIED, is_key, is_label, is_subdomain, labels, metadata

ENVIRONMENT = r"[-._a-zA-Z][-._a-zA-Z0-9]*"  # names: envVarNameFmt
QUANTITY = r"([+-]?)([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?"  # quantity: ParseQuantity
FACTORS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3} | {
    letter + i: (1024 if i else 1000) ** power for power, letter in enumerate("KMGTPE", 1) for i in ("", "i")
}
STANDARD = ("cpu", "memory", "ephemeral-storage")
RBAC = "rbac.authorization.k8s.io"
MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")
PEERS = ("podSelector", "namespaceSelector", "ipBlock")
OPERATORS, EFFECTS = ("", "Equal", "Exists"), ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


def amount(text: str) -> float:
    """A quantity as a number; raises ValueError."""
    match = re.fullmatch(QUANTITY, text)
    if not match:
        raise ValueError(f"quantities must match the regular expression: {text!r}")
    number, suffix = float(match[1] + match[2]), match[4] or ""
    return number * FACTORS[suffix] if suffix in FACTORS else float(f"{number}{suffix}")


def resources(asked: dict[str, Any], where: str) -> Iterator[str]:
    """core: ValidateContainerResourceRequirements."""
    numbers: dict[str, dict[str, float]] = {"requests": {}, "limits": {}}
    for kind, result in numbers.items():
        for name, text in asked.get(kind, {}).items():
            if name not in STANDARD and (not is_key(name) or "/" not in name):
                yield f"{where}.{kind}: {name!r} must be a standard resource for containers"
            elif name not in STANDARD and (name.startswith("requests.") or not is_key(f"requests.{name}")):
                yield f"{where}.{kind}: {name!r} doesn't follow extended resource name standard"  # as in a quota
            try:
                result[name] = amount(text)
            except ValueError as error:
                yield f"{where}.{kind}.{name}: {error}"
                continue
            if result[name] < 0:
                yield f"{where}.{kind}.{name}: must be greater than or equal to 0"
            if name not in STANDARD and result[name] % 1:
                yield f"{where}.{kind}.{name}: must be an integer"
    for name, most in numbers["limits"].items():
        if name in numbers["requests"] and numbers["requests"][name] > most:
            yield f"{where}.requests.{name}: must be less than or equal to limit"
        if name not in STANDARD and numbers["requests"].get(name, most) != most:
            yield f"{where}.requests.{name}: must be equal to limit"  # extended resources know no overcommit
    extended = numbers["requests"].keys() - set(STANDARD) - numbers["limits"].keys()
    yield from (f"{where}.limits: limit must be set for non overcommitable resource {name}" for name in extended)


def container(item: dict[str, Any], volumes: set[str], where: str) -> Iterator[str]:
    """core: validateContainerCommon."""
    if not is_label(item.get("name", "")):
        yield f"{where}.name: {item.get('name')!r}"
    if not item.get("image"):
        yield f"{where}.image: required"
    elif item["image"] != item["image"].strip():
        yield f"{where}.image: must not have leading or trailing whitespace"
    yield from profile(item, where)
    for port in item.get("ports", ()):
        if not 1 <= port.get("containerPort", 0) <= 65535:
            yield f"{where}.ports: containerPort must be between 1 and 65535"
    for variable in item.get("env", ()):
        if not re.fullmatch(ENVIRONMENT, variable["name"]):
            yield f"{where}.env: {variable['name']!r} is no name of a variable"
        source = variable.get("valueFrom", {})
        if source and "value" in variable:
            yield f"{where}.env: may not be specified when `value` is not empty"
        if "valueFrom" in variable and not source.keys() & set(SOURCES):
            yield f"{where}.env: must specify one of: {', '.join(SOURCES)}"
        key = source.get("secretKeyRef", {})
        names = [key.get("name", ""), key.get("key", "")]
        if "secretKeyRef" in source and not (is_subdomain(names[0]) and re.fullmatch(r"[-._a-zA-Z0-9]+", names[1])):
            yield f"{where}.env: secret {names[0]!r}, key {names[1]!r}"
    paths = Counter(mount["mountPath"] for mount in item.get("volumeMounts", ()))
    yield from (f"{where}.volumeMounts: {path!r} must be unique" for path, number in paths.items() if number > 1)
    for mount in item.get("volumeMounts", ()):
        if mount["name"] not in volumes:
            yield f"{where}.volumeMounts: not found: {mount['name']!r}"
        if not mount["mountPath"]:
            yield f"{where}.volumeMounts: mountPath is required"
    yield from resources(item.get("resources", {}), f"{where}.resources")


def profile(item: dict[str, Any], where: str) -> Iterator[str]:
    """core: validateSeccompProfileType."""
    seccomp = item.get("securityContext", {}).get("seccompProfile")
    if seccomp is not None and seccomp.get("type") not in PROFILES:
        yield f"{where}.seccompProfile.type: supported values are {', '.join(PROFILES)}"


def pod(item: dict[str, Any]) -> Iterator[str]:
    """core: ValidatePodSpec."""
    spec = item["spec"]
    yield from metadata(item)
    yield from profile(spec, "spec")
    if spec.get("serviceAccountName") and not is_subdomain(spec["serviceAccountName"]):
        yield f"spec.serviceAccountName: {spec['serviceAccountName']!r}"
    if spec.get("restartPolicy", "Always") not in ("Always", "OnFailure", "Never"):
        yield f"spec.restartPolicy: unsupported value {spec['restartPolicy']!r}"
    names = Counter(volume["name"] for volume in spec.get("volumes", ()))
    for name, number in names.items():
        if not is_label(name):
            yield f"spec.volumes: {name!r} is no label, and a volume's name must be one"
        if number > 1:
            yield f"spec.volumes: duplicate {name!r}"
    for volume in spec.get("volumes", ()):
        if len(volume) != 2:  # none is an emptyDir for a server, which loses what is written there
            yield f"spec.volumes: {volume['name']!r} must have exactly one kind"
        if "sizeLimit" in volume.get("emptyDir", {}):
            yield from resources({"limits": {"memory": volume["emptyDir"]["sizeLimit"]}}, "spec.volumes.emptyDir")
        if "persistentVolumeClaim" in volume and not volume["persistentVolumeClaim"].get("claimName"):
            yield "spec.volumes.persistentVolumeClaim.claimName: required"
    every = [*spec.get("initContainers", ()), *spec.get("containers", ())]
    if not spec.get("containers"):
        yield "spec.containers: required"
    twice = [name for name, number in Counter(one["name"] for one in every).items() if number > 1]
    yield from (f"spec.containers: duplicate {name!r}" for name in twice)
    for one in every:
        yield from container(one, set(names), f"spec.containers[{one.get('name')}]")
    yield from labels(spec.get("nodeSelector", {}), "spec.nodeSelector")
    if not 1 <= spec.get("activeDeadlineSeconds", 1) <= 2**31 - 1:
        yield "spec.activeDeadlineSeconds: must be between 1 and 2147483647"
    for one in spec.get("tolerations", ()):
        yield from toleration(one)


def toleration(item: dict[str, Any]) -> Iterator[str]:
    """core: ValidateTolerations."""
    if item.get("key") and not is_key(item["key"]):
        yield f"spec.tolerations.key: {item['key']!r}"
    if item.get("operator", "") not in OPERATORS or item.get("effect", "") not in EFFECTS:
        yield f"spec.tolerations: unsupported value in {item}"
    if not item.get("key") and item.get("operator") != "Exists":
        yield "spec.tolerations.operator: must be Exists when `key` is empty"
    if item.get("operator") == "Exists" and item.get("value"):
        yield "spec.tolerations.operator: value must be empty when `operator` is 'Exists'"
    elif len(item.get("value", "")) > 63 or not re.fullmatch(rf"({QUALIFIED})?", item.get("value", "")):
        yield f"spec.tolerations.operator: {item['value']!r} is no value of a label"
    if "tolerationSeconds" in item and item.get("effect") != "NoExecute":
        yield "spec.tolerations.effect: must be 'NoExecute' when `tolerationSeconds` is set"


def claim(item: dict[str, Any]) -> Iterator[str]:
    """core: ValidatePersistentVolumeClaimSpec."""
    yield from metadata(item)
    if (kind := item["spec"].get("storageClassName")) and not is_subdomain(kind):
        yield f"spec.storageClassName: {kind!r}"
    modes = item["spec"].get("accessModes", [])
    if not modes:
        yield "spec.accessModes: at least 1 access mode is required"
    yield from (f"spec.accessModes: unsupported value {mode!r}" for mode in modes if mode not in MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield "spec.accessModes: may not use ReadWriteOncePod with other access modes"
    storage = item["spec"].get("resources", {}).get("requests", {}).get("storage")
    if storage is None:
        yield "spec.resources.requests: storage is required"
    else:
        yield from resources({"requests": {"memory": storage}}, "spec.resources")
        if re.fullmatch(QUANTITY, storage) and amount(storage) == 0:
            yield "spec.resources.requests.storage: must be greater than zero"


def role(item: dict[str, Any]) -> Iterator[str]:
    """rbac: ValidatePolicyRule."""
    yield from labels(item["metadata"].get("labels", {}), "metadata.labels")
    for number, rule in enumerate(item["rules"]):
        for part in ("verbs", "apiGroups", "resources"):
            if not rule.get(part):
                yield f"rules[{number}].{part}: required"


def binding(item: dict[str, Any]) -> Iterator[str]:
    """rbac: ValidateRoleBinding, ValidateRoleBindingSubject, once the defaults of API groups are filled in."""
    yield from labels(item["metadata"].get("labels", {}), "metadata.labels")
    for what in (item["metadata"], item["roleRef"]):
        if not what.get("name") or re.search("[/%]", what["name"]):
            yield f"name of a role or binding: {what.get('name')!r}"
    kinds = ("ClusterRole",) if item["kind"] == "ClusterRoleBinding" else ("Role", "ClusterRole")
    for subject in item.get("subjects", ()):
        of_account = subject["kind"] == "ServiceAccount"
        if item["kind"] == "ClusterRoleBinding" and of_account and not subject.get("namespace"):
            yield f"subjects: namespace of {subject['name']!r} is required"  # else it is that of the binding
        if of_account and not is_subdomain(subject["name"]):
            yield f"subjects: {subject['name']!r} is no name of an account"
        if subject.get("apiGroup", "" if of_account else RBAC) != ("" if of_account else RBAC):
            yield f"subjects: apiGroup of {subject['kind']} {subject['name']!r}"
    if item["roleRef"].get("kind") not in kinds:
        yield f"roleRef.kind: supported values are {', '.join(kinds)}"
    if item["roleRef"].get("apiGroup", RBAC) != RBAC:
        yield f"roleRef.apiGroup: supported value is {RBAC}"


def selector(item: dict[str, Any] | None, where: str) -> Iterator[str]:
    """apimachinery, pkg/apis/meta/v1/validation/validation.go: ValidateLabelSelector."""
    yield from labels((item or {}).get("matchLabels", {}), where)
    for one in (item or {}).get("matchExpressions", ()):
        if one.get("operator") not in ("In", "NotIn", "Exists", "DoesNotExist"):
            yield f"{where}: not a valid selector operator"
        if one.get("operator") in ("In", "NotIn") and not one.get("values"):
            yield f"{where}: values must be specified"
        for value in one.get("values", ()) or ("",):
            yield from labels({one.get("key", ""): value}, where)


def policy(item: dict[str, Any]) -> Iterator[str]:
    """networking: ValidateNetworkPolicySpec."""
    yield from metadata(item)
    yield from selector(item["spec"].get("podSelector"), "spec.podSelector")
    kinds = item["spec"].get("policyTypes", [])
    if len(kinds) > 2 or set(kinds) - {"Ingress", "Egress"}:
        yield f"spec.policyTypes: unsupported value {kinds}"
    for rule in (*item["spec"].get("ingress", ()), *item["spec"].get("egress", ())):
        for port in rule.get("ports", ()):
            if isinstance(port["port"], int) and not 1 <= port["port"] <= 65535:
                yield f"ports: {port['port']} must be between 1 and 65535"
            if port.get("protocol", "TCP") not in ("TCP", "UDP", "SCTP"):
                yield f"ports: protocol {port['protocol']!r}"
        for one in (*rule.get("to", ()), *rule.get("from", ())):
            yield from peer(one)


def peer(item: dict[str, Any]) -> Iterator[str]:
    """networking: ValidateNetworkPolicyPeer."""
    known = [name for name in PEERS if item.get(name) is not None]  # another field is dropped
    if not known:
        yield "peers: must specify a peer"
    if "ipBlock" in known and len(known) > 1:
        yield "peers: may not specify both ipBlock and another peer"
    for name in PEERS[:2]:
        yield from selector(item.get(name), name)
    if "ipBlock" in known:
        cidr = item["ipBlock"].get("cidr", "")
        try:
            ipaddress.ip_network(cidr)
        except ValueError:
            cidr = ""
        if "/" not in cidr:
            yield f"peers: cidr must be a valid CIDR value: {item['ipBlock']}"


RULES = {
    "Pod": pod,
    "PersistentVolumeClaim": claim,
    "Role": role,
    "RoleBinding": binding,
    "ClusterRoleBinding": binding,
    "NetworkPolicy": policy,
}


def workload(item: dict[str, Any], template: dict[str, Any]) -> Iterator[str]:
    """kubernetes v1.33, pkg/apis/apps/validation and pkg/apis/batch/validation."""
    if item["kind"] == "Job" and template["spec"].get("restartPolicy") not in ("OnFailure", "Never"):
        yield "spec.template.spec.restartPolicy: valid values: OnFailure, Never"
    if item["kind"] == "Deployment":
        named = item["spec"].get("selector", {}).get("matchLabels", {})
        if not named or not named.items() <= template.get("metadata", {}).get("labels", {}).items():
            yield "spec.template.metadata.labels: `selector` does not match template `labels`"


def problems(item: dict[str, Any]) -> list[str]:
    """Everything that a server would say against an object; of other kinds, against name and labels."""
    if item["kind"] in ("Job", "Deployment"):
        template = item["spec"]["template"]
        inner = {"kind": "Pod", **template, "metadata": {"name": "x", **template.get("metadata", {})}}
        return [*metadata(item), *pod(inner), *workload(item, template)]
    return list(RULES.get(item["kind"], metadata)(item))
