"""The Kubernetes API of one cluster, for the few calls that are made here: errors say what to do, nothing waits
long.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capnet.cluster.proxies import usual_proxy, with_scheme
from capnet.errors import CapnetError

SECONDS = 4.0  # longest wait for one answer
# 403 of one who may ask: what webhooks, quotas, limit ranges, pod security and a namespace that goes say
REFUSALS = (
    *("denied the request", "exceeded quota", "failed quota", " per Container is ", " per Pod is "),
    *("violates PodSecurity", "because it is being terminated", "error looking up service account"),
)


class ClusterError(CapnetError):
    """A cluster lacks what the pipelines need (exit code 7)."""

    exit_code = 7
    title = "cluster"


class NotThere(ClusterError):
    """404."""


class NotAllowed(ClusterError):
    """403."""


class Exists(ClusterError):
    """409."""


class Refused(ClusterError):
    """The cluster knows who asks, and does not take the object: a wrong field, a quota, a webhook that says no."""


class Kubernetes:
    """The API of the cluster that kubectl's current context names, or of the cluster that this runs in."""

    def __init__(self) -> None:
        import yaml
        from kubernetes import client, config

        files = [
            path
            for path in (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep)
            if path and Path(path).expanduser().is_file()
        ]
        inside = "KUBERNETES_SERVICE_HOST" in os.environ
        configuration = client.Configuration()
        try:
            if files:
                config.load_kube_config(config_file=os.pathsep.join(files), client_configuration=configuration)
                configuration.proxy = proxy(os.pathsep.join(files), str(configuration.host)) or None
            elif inside:
                config.load_incluster_config(client_configuration=configuration)
            else:
                raise ClusterError(
                    "no cluster is configured",
                    "KUBECONFIG, ~/.kube/config",
                    "set up kubectl first: kubectl get namespaces must answer",
                )
            configuration.retries = 0
            self._api = client.ApiClient(configuration)
        except (config.ConfigException, yaml.YAMLError, OSError, AttributeError, TypeError, ValueError) as error:
            raise ClusterError(
                f"kubectl's configuration cannot be used: {' '.join(str(error).split())}",
                os.pathsep.join(files),
                "kubectl config view must show it; kubectl config use-context NAME chooses a cluster",
            ) from None
        self.host = str(configuration.host)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The object at an API path; raises ClusterError, and NotThere where there is none."""
        return self._call("GET", path, query, None)

    def exists(self, path: str) -> bool | None:
        """Whether there is something at an API path; None where one may not ask."""
        try:
            self.get(path)
        except NotThere:
            return False
        except NotAllowed:
            return None
        return True

    def create(self, path: str, body: Mapping[str, Any], **query: str) -> dict[str, Any]:
        """Make an object below an API path; raises Exists, Refused, NotAllowed, and NotThere where the cluster does not
        know the kind.
        """
        return self._call("POST", path, query, dict(body))

    def merge(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of the object at an API path."""
        return self._call("PATCH", path, {}, dict(body))

    def delete(self, path: str) -> None:
        """Remove the object at an API path; it stays until all that belongs to it is gone."""
        self._call("DELETE", path, {"propagationPolicy": "Foreground"}, None)

    def text(self, path: str, **query: str) -> str:
        """The text at an API path: a log."""
        return str(self._call("GET", path, query, None, "str"))

    def last_event(self, namespace: str, kind: str, name: str) -> str:
        """What the cluster said last about an object.

        Args:
            namespace, kind, name: of the object.

        Returns:
            One line; "" where it said nothing, or may not be asked.
        """
        try:
            events = self.get(
                f"/api/v1/namespaces/{namespace}/events",
                fieldSelector=f"involvedObject.kind={kind},involvedObject.name={name}",
            )
        except ClusterError:
            return ""
        # those of events.k8s.io/v1 have an eventTime alone
        items = sorted(events["items"], key=lambda item: item.get("lastTimestamp") or item.get("eventTime") or "")
        return " ".join(str(items[-1].get("message", "")).split()) if items else ""

    def may(self, account: str, namespace: str, right: tuple[str, str, str, str]) -> bool:
        """Whether an account has a right, as the cluster itself judges.

        Args:
            account: a service account of ``namespace``.
            namespace: that the right is asked for in.
            right: API group, resource (or resource/subresource), verb, and name of the object ("" for any).
        """
        group, resource, verb, name = right
        resource, _, part = resource.partition("/")
        attributes = {
            "namespace": namespace,
            "group": group,
            "resource": resource,
            "subresource": part,
            "verb": verb,
            "name": name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": namespace},
            "spec": {
                "user": f"system:serviceaccount:{namespace}:{account}",
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
                "resourceAttributes": {key: value for key, value in attributes.items() if value},
            },
        }
        answer = self.create(f"/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews", body)
        return bool(answer["status"].get("allowed"))

    def _call(self, method: str, path: str, query: Mapping[str, str], body: Any, kind: str = "object") -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        header = {
            "Accept": "application/json, */*",
            "Content-Type": f"application/{'merge-patch+' if method == 'PATCH' else ''}json",
        }
        options = {
            "auth_settings": ["BearerToken"],
            "response_type": kind,
            "_return_http_data_only": True,
            "_request_timeout": (SECONDS, SECONDS),
        }
        stranger = ClusterError(f"something else than Kubernetes answers: {path}", self.host, "kubectl get namespaces")
        try:
            answer = self._api.call_api(path, method, {}, list(query.items()), header, body, **options)
        except ApiException as error:
            raise refusal(method, path, self.host, int(error.status or 0), status_message(error.body)) from None
        except (HTTPError, OSError) as error:
            reason = "the cluster cannot be reached"
            if "timed out" in str(error):
                reason = f"no answer within {SECONDS:.0f} s"
            todo = "is the context right, the network there, a VPN up? kubectl get namespaces"
            raise ClusterError(f"{reason}: {path}", self.host, todo) from None
        except UnicodeDecodeError:
            if kind == "str":  # a log
                raise
            raise stranger from None
        if kind == "object" and not isinstance(answer, dict):  # the page of a proxy
            raise stranger
        return answer


def proxy(files: str, host: str) -> str:
    """The proxy by which kubectl reaches a cluster, which the client does not look up; "" for none.

    Args:
        files: of kubectl's configuration, as in KUBECONFIG; `proxy-url` of the cluster comes before the environment.
        host: address of the cluster.
    """
    from kubernetes.config.kube_config import KubeConfigMerger

    settings = KubeConfigMerger(files).config
    cluster = settings["contexts"].get_with_name(settings["current-context"])["context"]["cluster"]
    named = settings["clusters"].get_with_name(cluster)["cluster"].safe_get("proxy-url")
    return with_scheme(str(named)) if named else usual_proxy(host)


def whole(quantity: str) -> int:
    """How many a quantity of Kubernetes is; it writes a thousand shares of a GPU as 1k."""
    from kubernetes.utils.quantity import parse_quantity

    return int(parse_quantity(quantity))


def refusal(method: str, path: str, host: str, status: int, message: str) -> ClusterError:
    """What a status of the API means for a request."""
    if status in (400, 422) or (status == 403 and any(words in message for words in REFUSALS)):
        return Refused(message or f"the cluster does not take it ({status})", f"{host}{path}")
    if status == 409:
        return Exists(message or f"it is there already: {path}", host)
    if status == 404:
        return NotThere(f"there is no {path}", host)
    if status == 403:
        todo = "ask for the right, or let an administrator run this"
        return NotAllowed(f"you may not {method.lower()} {path}", host, todo)
    if status == 401:
        return ClusterError(f"the cluster does not know you (401): {path}", host, "kubectl auth whoami; log in again")
    why = "nothing stands behind this name (503)" if status == 503 else f"the cluster answers {status}"
    return ClusterError(f"{why}: {path}", host, "see the pods: kubectl get pods -A")


def status_message(body: Any) -> str:
    """The message of the Status object that the API answers a refusal with."""
    try:
        return " ".join(str(json.loads(body).get("message") or "").split())
    except (TypeError, ValueError, AttributeError):
        return ""
