"""What a Kubernetes API server refuses of the objects that we make; a stand-in for its validation.

Sources, by the name that a rule bears: kubernetes v1.33, pkg/apis/core/validation/validation.go (core),
pkg/apis/rbac/validation/validation.go (rbac), pkg/apis/networking/validation/validation.go (networking);
k8s.io/apimachinery v0.33.0, pkg/util/validation/validation.go (names), pkg/api/resource/quantity.go (quantity);
k8s.io/pod-security-admission v0.33.0, policy/check_*.go, level restricted (restricted).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"  # names: dns1123LabelFmt
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"  # names: dns1123SubdomainFmt
QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"  # names: qualifiedNameFmt, and of label values
ENVIRONMENT = r"[-._a-zA-Z][-._a-zA-Z0-9]*"  # names: envVarNameFmt
QUANTITY = r"([+-]?)([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?"  # quantity: ParseQuantity
FACTORS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3} | {
    letter + i: (1024 if i else 1000) ** power for power, letter in enumerate("KMGTPE", 1) for i in ("", "i")
}
STANDARD = ("cpu", "memory", "ephemeral-storage")
VOLUMES = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
OPERATORS, EFFECTS = ("", "Equal", "Exists"), ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


def is_label(text: str) -> bool:
    return len(text) <= 63 and bool(re.fullmatch(LABEL, text))


def is_subdomain(text: str) -> bool:
    return len(text) <= 253 and bool(re.fullmatch(SUBDOMAIN, text))


def is_key(text: str) -> bool:
    """A key of a label or annotation, a resource with a domain: prefix/name (names: IsQualifiedName)."""
    prefix, slash, name = text.rpartition("/")
    return len(name) <= 63 and bool(re.fullmatch(QUALIFIED, name)) and (not slash or is_subdomain(prefix))


def amount(text: str) -> float:
    """A quantity as a number; raises ValueError."""
    match = re.fullmatch(QUANTITY, text)
    if not match:
        raise ValueError(f"quantities must match the regular expression: {text!r}")
    number, suffix = float(match[1] + match[2]), match[4] or ""
    return number * FACTORS[suffix] if suffix in FACTORS else float(f"{number}{suffix}")


def labels(items: dict[str, str], where: str) -> Iterator[str]:
    for key, value in items.items():
        if not is_key(key):
            yield f"{where}: {key!r} is no qualified name"  # names: IsQualifiedName
        if len(value) > 63 or (value and not re.fullmatch(QUALIFIED, value)):
            yield f"{where}: {value!r} is no value of a label"  # names: IsValidLabelValue


def metadata(item: dict[str, Any], name_of: Any = is_subdomain) -> Iterator[str]:
    name = item["metadata"].get("name", "")
    if not name_of(name):
        yield f"metadata.name: {name!r}"  # core: ValidateObjectMeta
    yield from labels(item["metadata"].get("labels", {}), "metadata.labels")
    annotations = item["metadata"].get("annotations", {})
    yield from (f"metadata.annotations: {key!r}" for key in annotations if not is_key(key.lower()))
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        yield "metadata.annotations: must have at most 262144 bytes"  # core: TotalAnnotationSizeLimitB


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
    for variable in item.get("env", ()):
        if not re.fullmatch(ENVIRONMENT, variable["name"]):
            yield f"{where}.env: {variable['name']!r} is no name of a variable"
        source = variable.get("valueFrom", {})
        if source and "value" in variable:
            yield f"{where}.env: may not be specified when `value` is not empty"
        key = source.get("secretKeyRef", {})
        if key and not (is_subdomain(key["name"]) and re.fullmatch(r"[-._a-zA-Z0-9]+", key["key"])):
            yield f"{where}.env: secret {key['name']!r}, key {key['key']!r}"
    paths = Counter(mount["mountPath"] for mount in item.get("volumeMounts", ()))
    yield from (f"{where}.volumeMounts: {path!r} must be unique" for path, number in paths.items() if number > 1)
    for mount in item.get("volumeMounts", ()):
        if mount["name"] not in volumes:
            yield f"{where}.volumeMounts: not found: {mount['name']!r}"
        if not mount["mountPath"]:
            yield f"{where}.volumeMounts: mountPath is required"
    yield from resources(item.get("resources", {}), f"{where}.resources")


def pod(item: dict[str, Any]) -> Iterator[str]:
    """core: ValidatePodSpec."""
    spec = item["spec"]
    yield from metadata(item)
    names = Counter(volume["name"] for volume in spec.get("volumes", ()))
    for name, number in names.items():
        if not is_label(name):
            yield f"spec.volumes: {name!r} is no label, and a volume's name must be one"
        if number > 1:
            yield f"spec.volumes: duplicate {name!r}"
    for volume in spec.get("volumes", ()):
        if len(volume) != 2:
            yield f"spec.volumes: {volume['name']!r} must have exactly one kind"
        if limit := volume.get("emptyDir", {}).get("sizeLimit"):
            yield from resources({"limits": {"memory": limit}}, "spec.volumes.emptyDir")
    every = [*spec.get("initContainers", ()), *spec.get("containers", ())]
    if not spec.get("containers"):
        yield "spec.containers: required"
    twice = [name for name, number in Counter(one["name"] for one in every).items() if number > 1]
    yield from (f"spec.containers: duplicate {name!r}" for name in twice)
    for one in every:
        yield from container(one, set(names), f"spec.containers[{one.get('name')}]")
    yield from labels(spec.get("nodeSelector", {}), "spec.nodeSelector")
    if spec.get("activeDeadlineSeconds", 1) < 1:
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


def binding(item: dict[str, Any]) -> Iterator[str]:
    """rbac: ValidateRoleBinding, ValidateRoleBindingSubject."""
    if not item["metadata"].get("name"):
        yield "metadata.name: required"
    for subject in item.get("subjects", ()):
        if (
            item["kind"] == "ClusterRoleBinding"
            and subject["kind"] == "ServiceAccount"
            and not subject.get("namespace")
        ):
            yield f"subjects: namespace of {subject['name']!r} is required"  # else it is that of the binding
        if subject["kind"] != "ServiceAccount" and not subject.get("apiGroup"):
            yield f"subjects: apiGroup of {subject['kind']} {subject['name']!r}"
    if item["roleRef"].get("kind") not in ("Role", "ClusterRole"):
        yield "roleRef.kind: supported values are Role, ClusterRole"
    if item["roleRef"].get("apiGroup") != "rbac.authorization.k8s.io":
        yield "roleRef.apiGroup: supported value is rbac.authorization.k8s.io"


def policy(item: dict[str, Any]) -> Iterator[str]:
    """networking: ValidateNetworkPolicySpec."""
    yield from metadata(item, is_label if item["kind"] == "Service" else is_subdomain)
    yield from labels(item["spec"].get("podSelector", {}).get("matchLabels", {}), "spec.podSelector")
    for rule in (*item["spec"].get("ingress", ()), *item["spec"].get("egress", ())):
        for port in rule.get("ports", ()):
            if isinstance(port["port"], int) and not 1 <= port["port"] <= 65535:
                yield f"ports: {port['port']} must be between 1 and 65535"
            if port.get("protocol", "TCP") not in ("TCP", "UDP", "SCTP"):
                yield f"ports: protocol {port['protocol']!r}"
        for peer in (*rule.get("to", ()), *rule.get("from", ())):
            if not peer:
                yield "peers: must specify a peer"
            if "ipBlock" in peer and len(peer) > 1:
                yield "peers: may not specify both ipBlock and another peer"


def restricted(item: dict[str, Any]) -> Iterator[str]:
    """Admission of pod security at the level restricted: k8s.io/pod-security-admission v0.33.0, policy/."""
    spec = item["spec"]
    own = spec.get("securityContext", {})
    shared = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    yield from (f"{name} = true" for name in shared)  # check_hostNamespaces.go
    for volume in spec.get("volumes", ()):
        kinds = volume.keys() - {"name", *VOLUMES}
        yield from (
            f"volume {volume['name']!r} uses restricted type {kind!r}" for kind in kinds
        )  # check_restrictedVolumes.go
    for one in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        context, name = one.get("securityContext", {}), one["name"]
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation != false"  # check_allowPrivilegeEscalation.go
        if context.get("privileged"):
            yield f"{name}: privileged"  # check_privileged.go
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            yield f"{name}: unrestricted capabilities"  # check_capabilities_restricted.go
        if context.get("runAsNonRoot", own.get("runAsNonRoot")) is not True:
            yield f"{name}: runAsNonRoot != true"  # check_runAsNonRoot.go
        if context.get("runAsUser", own.get("runAsUser", 1)) == 0:
            yield f"{name}: runAsUser=0"  # check_runAsUser.go
        profile = context.get("seccompProfile", own.get("seccompProfile", {})).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccompProfile"  # check_seccompProfile_restricted.go
        if any(port.get("hostPort") for port in one.get("ports", ())):
            yield f"{name}: hostPort"  # check_hostPorts.go


RULES = {
    "Pod": pod,
    "PersistentVolumeClaim": claim,
    "RoleBinding": binding,
    "ClusterRoleBinding": binding,
    "NetworkPolicy": policy,
}


def problems(item: dict[str, Any]) -> list[str]:
    """Everything that a server would say against an object; of other kinds, against name and labels."""
    if item["kind"] in ("Job", "Deployment"):
        template = item["spec"]["template"]
        inner = {"kind": "Pod", **template, "metadata": {"name": "x", **template.get("metadata", {})}}
        return [*metadata(item), *pod(inner)]
    return list(RULES.get(item["kind"], metadata)(item))
