"""The calls of a v2beta1 pipeline server that submission needs, on loopback, with its state; a stand-in, no Kubeflow.

It refuses what a server would refuse: pipelines and parameters (contract/kfp_rules.py), unknown tokens, foreign ids. A
run fails where KFP's driver would refuse a task its parameters (contract/kfp_driver.py), or Kubernetes its pod
(contract/kfp_pod.py, kubernetes_rules.py, argo_rules.py).
"""

from __future__ import annotations

import email
import json
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from contract import argo_rules, kfp_driver, kfp_pod, kfp_rules, kubernetes_rules, pod_security_rules

PREFIX = "/apis/v2beta1"
NAMESPACED = ("pipelines", "experiments")  # with profiles, listed and named within one namespace


@dataclass
class State:
    """What the server knows, and how it shall behave."""

    token: str = ""
    namespace: str = ""
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    # what GET runs/ID answers, one after the other, then the last
    story: list[dict[str, Any]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)  # paths that get no answer
    broken: dict[str, int] = field(default_factory=dict)  # path -> status
    message: str = "as the test wishes"  # of these
    login: bool = False
    tag: str = "2.17.0"  # its version
    numbers: dict[str, Iterator[int]] = field(default_factory=lambda: defaultdict(lambda: count(1)))
    stop: threading.Event = field(default_factory=threading.Event)


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


def outcome(version: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """How a run ends whose tasks do what they shall: badly where a task does not get its parameters, or no pod.

    The reason is there for the tests: a server of 2.17.0 was seen to give none for any task.
    """
    refused = [text.partition(": ") for text in kfp_driver.refusals(version["spec"], arguments)]
    if not refused:
        for where, pod in kfp_pod.pods(version["spec"], version["platform"], arguments):
            problems = [*kubernetes_rules.problems(pod), *pod_security_rules.restricted(pod)]
            refused += [(where, ": ", text) for text in (*problems, *argo_rules.argument_problems(pod))]
    details = [
        {
            "task_id": at,
            "display_name": at.rpartition("/")[2],
            "state": "FAILED",
            "error": {"code": 13, "message": message},
        }
        for at, _, message in refused
    ]
    return {"state": "FAILED" if refused else "SUCCEEDED", "run_details": {"task_details": details}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # header and body in one packet: two wait for each other
    state: State

    def log_message(self, *_: Any) -> None:
        """Tests print enough."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, query = parts.path.removeprefix(PREFIX), {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.state.seen.append(f"{method} {path}")
        if path in self.state.silent:
            self.state.stop.wait(30)
            return
        try:
            if self.state.login:
                self.send_response(302)
                self.send_header("Location", "/dex/auth")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.state.token and self.headers.get("Authorization") != f"Bearer {self.state.token}":
                raise Refused(401, "Unauthenticated")
            if path in self.state.broken:
                raise Refused(self.state.broken[path], self.state.message)
            status, content = 200, self._dispatch(method, path, query, body)
        except Refused as refusal:
            status, content = refusal.status, {"error": refusal.message, "code": 5, "message": refusal.message}
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _dispatch(self, method: str, path: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        state, parts = self.state, path.strip("/").split("/")
        if path == "/healthz":
            return {"multi_user": bool(state.namespace), "tag_name": state.tag}
        if path == "/pipelines/upload_version":
            return self._upload(query, body)
        if parts[0] == "pipelines" and len(parts) == 3 and parts[2] == "versions":
            result = [item for item in state.versions.values() if item["pipeline_id"] == parts[1]]
            return page({"pipeline_versions": result}, query)
        if method == "DELETE" or path.endswith(":disable"):
            return self._end_schedule(method, parts[1])
        stores = {
            "pipelines": state.pipelines,
            "experiments": state.experiments,
            "runs": state.runs,
            "recurringruns": state.schedules,
        }
        if parts[0] not in stores:
            raise Refused(404, "Not Found")
        store = stores[parts[0]]
        if method == "GET" and len(parts) == 1:
            self._admit(parts[0], query.get("namespace", ""))
            result = [item for item in store.values() if matches(item, query)]
            if state.namespace and parts[0] in NAMESPACED:  # pipeline_store.go, getPipelinesByNamespace
                result = [item for item in result if item.get("namespace", "") == query.get("namespace", "")]
            return page({{"recurringruns": "recurringRuns"}.get(parts[0], parts[0]): result}, query)
        if method == "GET":
            return self._run(parts[1]) if parts[0] == "runs" else store[parts[1]]
        content = json.loads(body)
        content = content.get("experiment", content)
        self._admit(parts[0], content.get("namespace", ""))
        key = {
            "pipelines": "pipeline_id",
            "experiments": "experiment_id",
            "runs": "run_id",
            "recurringruns": "recurring_run_id",
        }[parts[0]]
        if parts[0] in ("runs", "recurringruns"):
            reference = content["pipeline_version_reference"]
            version = state.versions.get(reference["pipeline_version_id"])
            if (
                version is None
                or version["pipeline_id"] != reference["pipeline_id"]
                or content["experiment_id"] not in state.experiments
            ):
                raise Refused(404, "pipeline version or experiment not found")
            try:
                kfp_rules.check_parameters(version["spec"], content["runtime_config"]["parameters"])
            except kfp_rules.Refused as refused:
                raise Refused(400, str(refused)) from None
            content |= outcome(version, content["runtime_config"]["parameters"])
        if parts[0] in NAMESPACED and any(
            item["display_name"] == content["display_name"]
            and (not state.namespace or item.get("namespace", "") == content.get("namespace", ""))
            for item in store.values()
        ):
            raise Refused(409, "already exists")
        content = {**content, key: f"{parts[0]}-{next(state.numbers[parts[0]])}"}
        store[content[key]] = content
        return content

    def _admit(self, kind: str, namespace: str) -> None:
        """With profiles: pipelines of no namespace are everybody's to read, and here an administrator's to make.

        pipeline_server.go, canAccessPipeline; experiment_server.go, canAccessExperiment.
        """
        if not self.state.namespace or kind not in NAMESPACED or namespace == self.state.namespace:
            return
        if namespace:
            raise Refused(403, f"PermissionDenied: User 'us' is not authorized: Namespace:{namespace}")
        if kind == "experiments":
            raise Refused(400, "Invalid input error: An experiment cannot have an empty namespace in multi-user mode")

    def _end_schedule(self, method: str, name: str) -> dict[str, Any]:
        """Kubernetes deletes the workflows that a deleted schedule owns; the server calls them running for ever."""
        if method == "POST":
            self.state.schedules[name.removesuffix(":disable")]["status"] = "DISABLED"
            return {}
        self.state.schedules.pop(name)
        for run in self.state.runs.values():
            run["killed"] = run.get("killed") or run.get("recurring_run_id") == name
        return {}

    def _upload(self, query: dict[str, str], body: bytes) -> dict[str, Any]:
        message = email.message_from_bytes(
            b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
        )
        payload = message.get_payload()
        assert isinstance(payload, list)
        text = payload[0].get_payload(decode=True).decode()
        if query.get("pipelineid") not in self.state.pipelines:
            raise Refused(404, "no such pipeline")
        if any(
            item["display_name"] == query["name"] and item["pipeline_id"] == query["pipelineid"]
            for item in self.state.versions.values()
        ):
            raise Refused(409, "a version of this name exists")
        made = {
            "pipeline_id": query["pipelineid"],
            "pipeline_version_id": f"version-{len(self.state.versions) + 1}",
            "display_name": query["name"],
        }
        try:
            spec, platform = kfp_rules.read(text)
        except kfp_rules.Refused as refused:
            raise Refused(400, f"invalid pipeline: {refused}") from None
        self.state.versions[made["pipeline_version_id"]] = {**made, "spec": spec, "platform": platform}
        return made

    def _run(self, name: str) -> dict[str, Any]:
        if name not in self.state.runs:
            raise Refused(404, f"Failed to get a run: ResourceNotFoundError: Run {name} not found.")
        if not self.state.story:
            return self.state.runs[name]
        state = self.state.story.pop(0) if len(self.state.story) > 1 else self.state.story[0]
        if "status" in state:
            raise Refused(int(state["status"]), "not now")
        return {**self.state.runs[name], **state}


def matches(item: dict[str, Any], query: dict[str, str]) -> bool:
    predicates = json.loads(query["filter"]).get("predicates", []) if query.get("filter") else []
    for predicate in predicates:
        key = {"name": "display_name"}.get(predicate["key"], predicate["key"])
        wanted = predicate.get("stringValues", {}).get("values") or [
            predicate.get("stringValue", predicate.get("string_value"))
        ]
        if item.get(key) not in wanted:
            return False
    return query.get("experiment_id") in (None, item.get("experiment_id"))


def page(content: dict[str, list[Any]], query: dict[str, str]) -> dict[str, Any]:
    """Two items at a time, whatever was asked for: a client that reads one page only is found out."""
    (name, items) = next(iter(content.items()))
    start = int(query.get("page_token") or 0)
    shown = [
        {key: value for key, value in item.items() if key not in ("spec", "platform")}
        for item in items[start : start + 2]
    ]
    return {name: shown, "total_size": len(items), "next_page_token": str(start + 2) if start + 2 < len(items) else ""}


@contextmanager
def serving(state: State, certificate: Path | None = None) -> Iterator[str]:
    """The address of a server with this state, which speaks TLS where it has a certificate."""
    handler = type("Bound", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        state.stop.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
