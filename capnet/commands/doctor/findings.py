"""What a check reports, how checks run side by side, and how their findings are printed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import click

from capnet.cluster import names
from capnet.errors import CapnetError, Problem
from capnet.redaction import redact

SILENT = "check the network; an address that does not answer at all is often behind a firewall"


@dataclass(frozen=True)
class Finding:
    """One line of the answer. ``problem``: what is wrong; ``warning``: what to do where something could be better."""

    about: str
    message: str
    problem: Problem | None = None
    warning: str = ""


Checks = Mapping[str, Callable[[], Iterable[Finding]]]


@dataclass(frozen=True)
class Needs:
    """What a run will use; the names are those of `python -m pipelines.submit`. ``root`` is data.root, ``anonymous``
    data.anonymous.
    """

    root: str
    anonymous: bool = False
    namespace: str = names.NAMESPACE
    kfp_namespace: str = names.NAMESPACE
    service_account: str = names.SERVICE_ACCOUNT
    s3_secret: str = names.S3_SECRET
    mlflow_secret: str = names.MLFLOW_SECRET
    git_secret: str = names.GIT_SECRET
    state_claim: str = names.STATE_CLAIM
    data_claim: str = names.DATA_CLAIM
    pull_secret: str = ""
    accelerator_type: str = names.ACCELERATOR
    accelerator_count: int = 0
    cpu: str = "2"
    memory: str = "8Gi"
    nodes: int = 1
    training_runtime: str = names.RUNTIME

    def where(self, kind: str, name: str) -> str:
        """``secret capnet-s3, namespace kubeflow``, for a Problem."""
        return f"{kind} {name}, namespace {self.namespace}"

    def deploy(self, usual: str) -> str:
        """How to make what is in deploy/: the overlays are for the usual namespace."""
        if self.namespace == names.NAMESPACE:
            return usual
        return f"make deploy, with an overlay of yours for namespace {self.namespace}, such as deploy/overlays/profile"


def wrong(about: str, what: str, where: str, todo: str) -> Finding:
    """A finding that is only a problem."""
    return Finding(about, "", Problem(what, where, todo))


def examine(checks: Checks, deadline: float) -> list[Finding]:
    """Run all checks at the same time.

    Args:
        checks: by name.
        deadline: seconds for all of them together.

    Returns:
        Their findings in the order of ``checks``; a check without an answer by the deadline is a problem.
    """
    answers: dict[str, list[Finding]] = {}

    def run(name: str) -> None:
        try:
            answers[name] = list(checks[name]())
        except CapnetError as error:
            answers[name] = [Finding(name, "", problem) for problem in error.problems]
        except ModuleNotFoundError as error:
            what = f"the package {error.name} is not installed"
            answers[name] = [wrong(name, what, name, "pip install 'capnet[data]'")]
        except Exception as error:  # a check that fails in an unforeseen way must not hide the others
            what = f"the check failed: {type(error).__name__}: {error}"
            answers[name] = [wrong(name, what, name, "see the message")]

    # daemons: a silent server holds nobody up
    threads = {name: threading.Thread(target=run, args=(name,), daemon=True) for name in checks}
    end = time.monotonic() + deadline
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, end - time.monotonic()))
    return [
        item
        for name in checks
        for item in answers.get(name) or [wrong(name, f"no answer within {deadline:.0f} seconds", name, SILENT)]
    ]


def report(findings: Iterable[Finding], error: type[CapnetError]) -> None:
    """Print what is right, and warnings; raise ``error`` with everything that is wrong."""
    problems = []
    for item in findings:
        if item.warning:
            click.echo(redact(f"warn   {item.about}: {item.message}\n  to do: {item.warning}"))
        elif item.problem is None:
            click.echo(redact(f"ok     {item.about}: {item.message}"))
        else:
            problems.append(item.problem)
    if problems:
        raise error(problems=problems)
