"""Sending through MLflow's REST interface without importing MLflow, which takes two processor seconds: more than
sending does in an hour.

Source: https://mlflow.org/docs/latest/api_reference/rest-api.html, version 2.0 of the interface.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import requests

from capnet.tracking.sender import KEY_TAG, SOURCE, Point
from capnet.tracking.store import EXPERIMENT_TAGS

# ways to log in, or to be told apart, that only MLflow's own client knows
OTHER_LOGINS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_WORKSPACE")
PLUGINS = ("mlflow.request_header_provider", "mlflow.tracking_store")
ABSENT, THERE = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
TIMEOUT = 120.0  # seconds, as MLflow's client has it


class Refused(OSError):
    """The server answered with an error; ``code`` is MLflow's name for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def serves(address: str) -> bool:
    """Whether RestStore can talk to this store from here: a server, name and password or a token or nothing, no
    plugin.
    """
    if not address.startswith(("http://", "https://")) or any(os.environ.get(name) for name in OTHER_LOGINS):
        return False
    return not Path("~/.mlflow/credentials").expanduser().exists() and not any(
        entry_points(group=group) for group in PLUGINS
    )


class RestStore:
    """A Store behind an ``http://`` or ``https://`` address; errors are OSErrors. Login and certificates are those of
    MLflow's environment variables.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._session = session = requests.Session()
        user, password, token = (
            os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD", "TOKEN")
        )
        if user and password:
            session.auth = (user.encode(), password.encode())
        elif token:
            session.headers["Authorization"] = f"Bearer {token}"
            session.auth = lambda request: request  # or requests looks into ~/.netrc
        if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
            session.verify = False
        elif certificate := os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"):
            session.verify = certificate
        session.cert = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None

    def _call(self, method: str, path: str, **content: Any) -> Mapping[str, Any]:
        """The answer's JSON. Raises Refused, or an OSError of requests."""
        timeout = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or TIMEOUT)
        url = f"{self.address.rstrip('/')}/api/2.0/mlflow/{path}"
        answer = self._session.request(method, url, timeout=timeout, verify=self._session.verify, **content)
        try:
            found = answer.json()
        except requests.JSONDecodeError as error:
            raise Refused(str(answer.status_code), answer.reason) from error
        if not answer.ok or not isinstance(found, dict):
            problem = found if isinstance(found, dict) else {}
            raise Refused(
                str(problem.get("error_code", answer.status_code)), str(problem.get("message", answer.reason))
            )
        return found

    def _experiment(self, name: str) -> str:
        """Id of the experiment, "" where there is none."""
        try:
            found = self._call("GET", "experiments/get-by-name", params={"experiment_name": name})["experiment"]
        except Refused as error:
            if error.code != ABSENT:
                raise
            return ""
        if found.get("lifecycle_stage") == "deleted":
            raise Refused("deleted", name)
        return str(found["experiment_id"])

    def find_run(self, experiment: str, key: str) -> str:
        where = self._experiment(experiment)
        if not where:
            return ""
        wanted = {"experiment_ids": [where], "filter": f"tags.{KEY_TAG} = '{key}'", "max_results": 1}
        found = self._call("POST", "runs/search", json=wanted).get("runs", [])
        return str(found[0]["info"]["run_id"]) if found else ""

    def make_run(self, experiment: str, key: str, name: str, started: int) -> str:
        where = self._experiment(experiment)
        if not where:
            try:
                tags = [{"key": key, "value": value} for key, value in EXPERIMENT_TAGS.items()]
                made = self._call("POST", "experiments/create", json={"name": experiment, "tags": tags})
                where = str(made["experiment_id"])
            except Refused as error:
                if error.code != THERE:
                    raise
                where = self._experiment(experiment)  # made by another process since we looked
        tags = [{"key": tag, "value": value} for tag, value in {KEY_TAG: key, **SOURCE}.items()]
        # as MLflow's client says it
        content = {"experiment_id": where, "start_time": started, "run_name": name, "tags": tags, "user_id": "unknown"}
        made = self._call("POST", "runs/create", json=content)
        return str(made["run"]["info"]["run_id"])

    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        metrics = [{"key": name, "value": value, "timestamp": at, "step": step} for name, value, at, step in points]
        self._call("POST", "runs/log-batch", json={"run_id": run_id, "metrics": metrics})

    def end_run(self, run_id: str, status: str, at: int) -> None:
        self._call("POST", "runs/update", json={"run_id": run_id, "status": status, "end_time": at})
