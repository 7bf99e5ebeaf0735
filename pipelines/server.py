"""Work with a pipeline server through kfp.Client: upload once per content, start, schedule, wait."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from capnet.cluster.names import NAMESPACE
from pipelines.arguments import model_and_images
from pipelines.errors import NotThere, RunFailed, ServerError
from pipelines.run_tasks import bad_end, reasons, states, waiting
from pipelines.ways import SECONDS, TRUST, UNTRUSTED, Way, authorities, check_server, refused

GOOD, BAD = {"SUCCEEDED"}, {"FAILED", "CANCELED", "SKIPPED"}
EVERY = 10.0  # seconds between two polls of a run
PENDING = 12  # polls after which a pod that does not start is reported: two minutes
LONGEST = 600  # letters of a message of the server that are shown
LOST = 60  # polls in a row that may fail while a run is waited for: ten minutes


@dataclass(frozen=True)
class Version:
    """One version of a pipeline on the server; ``new``: it was uploaded now."""

    pipeline_id: str
    version_id: str
    name: str
    new: bool


class Server:
    """A pipeline server that was reached by ``way``."""

    def __init__(self, way: Way, seconds: float = SECONDS) -> None:
        check_server(way, seconds)
        self.way = way
        with self._explained(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # says which servers this client is for
            from kfp import Client
            from kfp.client import ServiceAccountTokenVolumeCredentials

            # a pod's token ends after an hour or two, and the node writes a new one into the same file
            renewed = ServiceAccountTokenVolumeCredentials(way.token_file) if way.token_file else None
            self._client = Client(
                host=way.host,
                existing_token=None if renewed else way.token or None,
                credentials=renewed,
                proxy=way.proxy or None,
                ssl_ca_cert=authorities() or None,
                namespace=way.namespace or NAMESPACE,
            )
        _limit(self._client._run_api.api_client.rest_client, seconds)

    def upload(self, pipeline: str, text: str, version: str, description: str) -> Version:
        """The version of this name, uploaded where the server lacks it; the first version is named like any other. A
        new pipeline has the description of its text, and the version ``description``.
        """
        with self._explained():
            pipeline_id = self._pipeline_id(pipeline)
            if pipeline_id is None:
                import kfp_server_api

                about = next(yaml.safe_load_all(text))["pipelineInfo"].get("description")
                body = kfp_server_api.V2beta1Pipeline(
                    display_name=pipeline, name=pipeline, description=about, namespace=self.way.namespace or None
                )
                pipeline_id = self._client._pipelines_api.pipeline_service_create_pipeline(body).pipeline_id
            versions = partial(self._client.list_pipeline_versions, pipeline_id)
            for item in _pages(versions, "pipeline_versions"):
                if item.display_name == version:
                    return Version(pipeline_id, item.pipeline_version_id, version, False)
            with TemporaryDirectory() as folder:
                path = Path(folder, "pipeline.yaml")
                path.write_text(text)
                made = self._client.upload_pipeline_version(
                    str(path), pipeline_version_name=version, pipeline_id=pipeline_id, description=description
                )
            return Version(pipeline_id, made.pipeline_version_id, version, True)

    def start(
        self, version: Version, name: str, experiment: str, arguments: Mapping[str, Any], service_account: str = ""
    ) -> str:
        """Start a run and return its id."""
        with self._explained():
            job = self._job(version, experiment, arguments, service_account)
            run = self._client.run_pipeline(job_name=name, **job)
        return str(run.run_id)

    def schedule(
        self,
        version: Version,
        name: str,
        experiment: str,
        arguments: Mapping[str, Any],
        cron: str,
        service_account: str,
    ) -> tuple[str, list[str], bool]:
        """Start a run at every time that ``cron`` names, instead of the schedule of the same name, model and images;
        returns its id, the experiment's other schedules of this pipeline, and whether a run of the former schedule is
        under way. Such a schedule is switched off and stays, because its runs end with it: they belong to it in
        Kubernetes.
        """
        with self._explained():
            job = self._job(version, experiment, arguments, service_account)
            schedules = partial(self._client.list_recurring_runs, experiment_id=job["experiment_id"])
            listed = _pages(schedules, "recurring_runs")
            # a schedule that somebody made from a file of their own has no version, one without arguments no settings
            named = [
                (
                    (item.display_name, model_and_images(getattr(item.runtime_config, "parameters", None) or {})),
                    item.recurring_run_id,
                )
                for item in listed
                if getattr(item.pipeline_version_reference, "pipeline_id", None) == version.pipeline_id
            ]
            same = name, model_and_images(arguments)
            before = [identity for other, identity in named if other == same]
            others = sorted({_in_words(*other) for other, _ in named if other != same})
            made = self._client.create_recurring_run(job_name=name, cron_expression=cron, no_catchup=True, **job)
            under_way = False
            for old in before:
                self._client.disable_recurring_run(old)  # first, so that no run of it starts meanwhile
                if self._has_run_under_way(job["experiment_id"], old):
                    under_way = True
                else:
                    self._client.delete_recurring_run(old)
        return str(made.recurring_run_id), others, under_way

    @property
    def page(self) -> str:
        """Address of Kubeflow's page, which is not always the API's; from the variable that kfp.Client reads, too."""
        return (os.environ.get("KF_PIPELINES_UI_ENDPOINT") or self.way.host).rstrip("/")

    def address(self, run_id: str) -> str:
        """Where the run is shown."""
        return f"{self.page}/#/runs/details/{run_id}"

    def wait(self, run_id: str, names: Mapping[str, str], report: Callable[[str], None]) -> None:
        """Report what the tasks do until the run ends.

        Args:
            run_id: The run.
            names: The tasks that are reported: those of `pipelines.run_tasks.task_names`.
            report: Takes each line.

        Raises:
            RunFailed: Naming what failed.
            ServerError: Where the server has not answered for ten minutes.
        """
        last: dict[str, str] = {}
        waits: dict[str, int] = {}
        lost, namespace = 0, self.way.namespace or NAMESPACE
        while True:
            try:
                with self._explained():
                    run = self._client.get_run(run_id)
                lost = 0
            except NotThere:
                what = "the run was deleted while it was waited for"
                raise RunFailed(
                    what, self.address(run_id), "start it again: training goes on at its last checkpoint"
                ) from None
            except ServerError as error:
                lost += 1
                if lost >= LOST:
                    raise
                if lost == 1:
                    report(f"no word of the run, asking again: {error.problems[0].what}")
                time.sleep(EVERY)
                continue
            details = (run.run_details.task_details if run.run_details else None) or []
            for task, name, state in states(details, names):
                if last.get(task) != state:
                    last[task] = state
                    report(f"{name}: {state.lower()}")
            waits = {item: waits.get(item, 0) + 1 for item in waiting(details)}
            if PENDING in waits.values():
                minutes = PENDING * EVERY / 60
                report(f"a pod has not started for {minutes:g} min; what it waits for: {reasons(details, namespace)}")
            if run.state in GOOD:
                return
            if run.state in BAD:
                what, todo = bad_end(run, names, namespace)
                raise RunFailed(what, self.address(run_id), todo)
            time.sleep(EVERY)

    def _job(
        self, version: Version, experiment: str, arguments: Mapping[str, Any], service_account: str
    ) -> dict[str, Any]:
        """What a run and a schedule have in common, for the client."""
        group = self._client.create_experiment(experiment, namespace=self.way.namespace or None)
        return {
            "experiment_id": group.experiment_id,
            "params": dict(arguments),
            "pipeline_id": version.pipeline_id,
            "version_id": version.version_id,
            "service_account": service_account or None,
        }

    def _has_run_under_way(self, experiment_id: str, schedule: str) -> bool:
        predicates = [
            {"operation": "EQUALS", "key": "recurring_run_id", "stringValue": schedule},
            {"operation": "IN", "key": "state", "stringValues": {"values": ["PENDING", "RUNNING", "PAUSED"]}},
        ]
        called = json.dumps({"predicates": predicates})
        return bool(self._client.list_runs(experiment_id=experiment_id, filter=called, page_size=1).runs)

    def _pipeline_id(self, name: str) -> str | None:
        """Of a pipeline in this namespace; the client's own get_pipeline_id asks for what all namespaces share."""
        called = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
        pipelines = self._client.list_pipelines(
            filter=json.dumps(called), namespace=self.way.namespace or None
        ).pipelines
        return str(pipelines[0].pipeline_id) if pipelines else None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the client and the network raise into a ServerError."""
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise refused(self.way, int(error.status or 0), _message(error.body)) from None
        except (HTTPError, OSError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):  # kfp.Client does not know the system's authorities
                raise self.way.fail(UNTRUSTED, TRUST) from None
            why = f"the connection broke: {' '.join(str(error).split())[:300]}"
            if "timed out" in str(error):
                why = "the server took too long to answer"
            raise self.way.fail(why) from None


def _in_words(name: str, of: tuple[str, str] | None) -> str:
    return f"{name!r} (model {of[0]}, images {of[1]})" if of else repr(name)


def _pages(fetch: Callable[..., Any], name: str) -> Iterator[Any]:
    """The items that answers have as attribute ``name``, page after page."""
    token = ""
    while True:
        answer = fetch(page_token=token, page_size=100)
        yield from getattr(answer, name) or ()
        token = answer.next_page_token or ""
        if not token:
            return


def _message(body: Any) -> str:
    """What the server says, without the middle where it is long: it begins with the call and ends with the cause."""
    try:
        content = json.loads(body)
        message = " ".join(str(content.get("message") or content.get("error") or "").split())
    except (TypeError, ValueError, AttributeError):
        return ""
    return message if len(message) <= LONGEST else f"{message[:150]} ... {message[-(LONGEST - 155) :]}"


def _limit(client: Any, seconds: float) -> None:
    """Give every request a time limit: kfp.Client has none, and waits for a silent server for ever."""
    request = client.request

    def limited(*arguments: Any, **options: Any) -> Any:
        pair = (seconds, seconds)  # to connect, to read; a single float would be ignored
        return request(*arguments, **{**options, "_request_timeout": options.get("_request_timeout") or pair})

    client.request = limited
