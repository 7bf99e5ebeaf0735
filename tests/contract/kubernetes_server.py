"""The paths of the Kubernetes API that the doctor asks, on loopback, over objects as manifests describe them; a
stand-in, no cluster.

It judges rights by the roles it holds, as a cluster does, and answers refusals with the Status object that the API
publishes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

GROUPS = {
    "secrets": "/api/v1",
    "serviceaccounts": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
}
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    422: "Invalid",
    503: "ServiceUnavailable",
}


@dataclass
class Cluster:
    """What the cluster holds, by path, and how it shall behave."""

    token: str = "a-token-that-nobody-may-see"
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)  # ends of paths that this user may not ask
    silent: set[str] = field(default_factory=set)
    against: tuple[int, str] = (0, "")  # status and words with which a pod is refused
    pipelines: int = 200  # what the service behind the proxy answers
    healthz: dict[str, Any] = field(default_factory=lambda: {"tag_name": "2.17.0", "multi_user": False})
    seen: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def apply(self, namespace: str, *manifests: dict[str, Any]) -> None:
        """Hold objects under the paths that the API gives them; kinds that nobody asks for are left out."""
        for item in manifests:
            plural = item["kind"].lower() + "s"
            if plural in GROUPS:
                self.objects[f"{GROUPS[plural]}/namespaces/{namespace}/{plural}/{item['metadata']['name']}"] = item

    def find(self, namespace: str, plural: str, name: str) -> dict[str, Any]:
        return self.objects[f"{GROUPS[plural]}/namespaces/{namespace}/{plural}/{name}"]

    def remove(self, namespace: str, plural: str, name: str) -> None:
        del self.objects[f"{GROUPS[plural]}/namespaces/{namespace}/{plural}/{name}"]

    def more(self, verb: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any] | None:
        """Answer of a cluster that can do more; None where this one shall answer."""
        return None

    def allowed(self, spec: dict[str, Any]) -> bool:
        """RBAC over the roles of the namespace."""
        asked = spec["resourceAttributes"]
        _, _, namespace, account = spec["user"].split(":")
        prefix = f"/namespaces/{namespace}/"
        for path, binding in self.objects.items():
            if "/rolebindings/" not in path or prefix not in path:
                continue
            if not any(item["kind"] == "ServiceAccount" and item["name"] == account for item in binding["subjects"]):
                continue
            rules = self.objects.get(f"{GROUPS['roles']}{prefix}roles/{binding['roleRef']['name']}", {}).get(
                "rules", []
            )
            if any(rule_allows(rule, asked) for rule in rules):
                return True
        return False


def rule_allows(rule: dict[str, Any], asked: dict[str, str]) -> bool:
    resource = asked["resource"] + (f"/{asked['subresource']}" if asked.get("subresource") else "")
    names = rule.get("resourceNames")
    return (
        asked.get("group", "") in rule["apiGroups"]
        and resource in rule["resources"]
        and asked["verb"] in rule["verbs"]
        and (not names or asked.get("name", "") in names)
    )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # header and body in one packet: two wait for each other
    cluster: Cluster

    def log_message(self, *_: Any) -> None:
        """Tests print enough."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    do_DELETE = do_PATCH = do_POST

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.cluster.seen.append(f"{self.command} {parts.path}")
        if any(parts.path.endswith(end) for end in self.cluster.silent):
            self.cluster.stop.wait(30)
            return
        status, content = self._content(parts.path, parse_qs(parts.query), body)
        if not status:  # the connection breaks
            self.close_connection = True
            return
        if status not in (200, 201):
            message = content or f"{parts.path}: no"
            content = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": REASONS[status],
                "code": status,
                "message": message,
            }
        text = isinstance(content, str)
        data = content.encode() if text else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _content(self, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        cluster = self.cluster
        if self.headers.get("Authorization") != f"Bearer {cluster.token}":
            return 401, None
        if any(path.endswith(end) for end in cluster.forbidden):
            return 403, None
        if self.command == "PATCH" and self.headers["Content-Type"] != "application/merge-patch+json":
            return 422, "custom resources know no strategic merge"
        if (answer := cluster.more(self.command, path, query, json.loads(body) if body else None)) is not None:
            return answer
        if path == "/version":
            return 200, {"gitVersion": "v1.33.1"}
        if path.endswith("/localsubjectaccessreviews"):
            asked = json.loads(body)
            assert f"/namespaces/{asked['spec']['resourceAttributes']['namespace']}/" in path
            return 200, {**asked, "status": {"allowed": cluster.allowed(asked["spec"])}}
        if self.command == "POST" and path.endswith("/pods"):
            if query.get("dryRun") != ["All"]:
                return 422, "a pod would be made"
            return cluster.against if cluster.against[0] else (201, json.loads(body))
        if path.endswith("/events"):
            fields = dict(item.split("=") for item in query["fieldSelector"][0].split(","))
            return 200, {
                "items": [
                    item for item in cluster.events if item["involvedObject"]["name"] == fields["involvedObject.name"]
                ]
            }
        if "/services/ml-pipeline:8888/proxy/" in path:
            return cluster.pipelines, cluster.healthz
        if path == "/api/v1/nodes":
            return 200, {"items": [item for name, item in cluster.objects.items() if name.startswith("/api/v1/nodes/")]}
        return (200, cluster.objects[path]) if path in cluster.objects else (404, None)


@contextmanager
def serving(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """A kubectl configuration whose current context is this cluster."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
        "users": [{"name": "me", "user": {"token": cluster.token}}],
    }
    path.write_text(yaml.safe_dump(content))
    try:
        yield path
    finally:
        cluster.stop.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
