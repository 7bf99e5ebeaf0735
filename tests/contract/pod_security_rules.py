"""What admission of pod security at the level restricted refuses of a pod; a stand-in.

The rules are those of k8s.io/pod-security-admission v0.33.0, policy/check_*.go; a server of 1.36.2 has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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


def restricted(item: dict[str, Any]) -> Iterator[str]:
    """What is against a pod, each with the file that says so."""
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
