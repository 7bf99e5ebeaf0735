"""`capnet doctor`: in seconds, does the data's remote answer, with which credentials, and is the data complete."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capnet.cluster import names as cluster
from capnet.errors import CapnetError, DataError, Problem

if TYPE_CHECKING:
    from capnet.config import Data
    from capnet.data.sources.dvc_versions import Remote, Version

# seconds for all checks together, once the libraries are loaded: right after an installation that takes longer
DEADLINE = 3.5
SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One line of the answer; with ``problem`` it is wrong."""

    about: str
    says: str
    problem: Problem | None = None


def examine(checks: dict[str, Callable[[], Iterable[Finding]]], deadline: float = DEADLINE) -> list[Finding]:
    """Findings of all checks, run at the same time; one that has not answered by the deadline is told as such."""
    found: dict[str, list[Finding]] = {}

    def run(name: str) -> None:
        try:
            found[name] = list(checks[name]())
        except CapnetError as error:
            found[name] = [Finding(name, "", problem) for problem in error.problems]
        except ModuleNotFoundError as error:
            found[name] = [
                Finding(
                    name, "", Problem(f"the package {error.name} is not installed", name, "pip install 'capnet[data]'")
                )
            ]
        except Exception as error:  # a check that fails in an unforeseen way must not hide the others
            found[name] = [
                Finding(
                    name, "", Problem(f"the check failed: {type(error).__name__}: {error}", name, "see the message")
                )
            ]

    # daemons: a silent server holds nobody up
    threads = {name: threading.Thread(target=run, args=(name,), daemon=True) for name in checks}
    end = time.monotonic() + deadline
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, end - time.monotonic()))
    silent = "is the network there? an address that answers nothing is often behind a firewall"
    return [
        item
        for name in checks
        for item in found.get(name)
        or [Finding(name, "", Problem(f"no answer within {deadline:.0f} seconds", name, silent))]
    ]


def check_folder(folder: Path) -> Iterable[Finding]:
    """Whether a local data folder holds all that its .dvc file says."""
    from capnet.data.sources.dvc_versions import listed_files, recorded_version

    version = recorded_version(folder)
    if not folder.is_dir():
        todo = (
            "dvc pull" if version else "put your pictures there, correct data.root, or draw the demo: capnet demo-data"
        )
        yield Finding("data", "", Problem(f"there is no folder {folder}", "data.root", todo))
        return
    here = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    size = sum(here.values())
    told = f"{len(here)} files, {size / 1e6:.1f} MB in {folder}"
    if version is None:
        yield Finding("data", f"{told}; not under DVC: `dvc add {folder}` remembers exactly these")
        return
    if (len(here), size) == (version.files, version.size):
        yield Finding("data", f"{told}, as many as {folder.name}.dvc says")
        return
    missing = sorted(set(listed_files(folder.parent, version) or ()) - here.keys())
    named = (
        "; missing are"
        f" {', '.join(missing[:SHOWN])}{f' and {len(missing) - SHOWN} more' if len(missing) > SHOWN else ''}"
        if missing
        else ""
    )
    what = f"{told}, but {folder.name}.dvc says {version.files} files, {version.size / 1e6:.1f} MB{named}"
    yield Finding(
        "data",
        "",
        Problem(what, f"{folder}.dvc", "dvc pull fetches what is missing; dvc add takes the folder as it is"),
    )


def check_root(data: Data) -> Iterable[Finding]:
    """Whether a remote root answers, and how much of it is copied already."""
    from capnet.data.sources.root import kind_of, open_source
    from capnet.data.sources.s3 import S3Address, probe

    if kind_of(data.root) == "s3":
        answer = probe(S3Address(anonymous=data.anonymous), data.root)
        empty = Problem("nothing is stored there", data.root, "correct data.root, or upload the data folder")
        problem = answer.problem or (None if answer.has_object else empty)
        yield Finding("data", f"{data.root} answers at {answer.endpoint}, credentials: {answer.credentials}", problem)
        return
    with closing(open_source(data)) as source:
        yield Finding("data", f"{source.name} has {len(source.entries())} files")


def check_cache(data: Data) -> Iterable[Finding]:
    """How much of the picture cache is used."""
    from capnet.data.sources.root import open_cache

    cache = open_cache(data)
    yield Finding("cache", f"{cache.size() / 1e9:.2f} of {data.cache_gigabytes:g} GB used in {cache.root}")


def check_remotes(folder: Path) -> Iterable[Finding]:
    """Whether each DVC remote answers and has the data version of this commit."""
    from capnet.data.sources.dvc_versions import recorded_version, remotes

    version = recorded_version(folder)
    found = remotes(Path())
    if not found:
        yield Finding(
            "dvc", "no remote: pictures exist on this machine only; make one: make data-remote URL=s3://bucket/dvc"
        )
    for item in found:
        yield check_remote(item, version)


def check_remote(remote: Remote, version: Version | None) -> Finding:
    """One DVC remote. S3 is asked through boto3, which says where credentials come from; others through DVC."""
    from capnet.data.sources.dvc_versions import remote_has
    from capnet.data.sources.s3 import S3Address, probe

    about = f"dvc remote {remote.name}{' (default)' if remote.default else ''}"
    missing = Problem(
        f"{remote.url} lacks this data version", f"{about}, data.dvc", "dvc push, from a machine that has the data"
    )
    if not remote.url.startswith("s3://"):
        has = version is None or remote_has(Path(), remote.name, version)
        return Finding(
            about, f"{remote.url} answers" + (" and has this data version" if version else ""), None if has else missing
        )
    given = {key: str(value) for key, value in remote.settings.items() if value}
    address = S3Address(
        endpoint=given.get("endpointurl", ""),
        profile=given.get("profile", ""),
        region=given.get("region", ""),
        access_key=given.get("access_key_id", ""),
        secret_key=given.get("secret_access_key", ""),
        session_token=given.get("session_token", ""),
        anonymous=given.get("allow_anonymous_login", "").lower() == "true",
    )
    answer = probe(address, remote.url, version.object_name if version else "")
    says = f"{remote.url} answers at {answer.endpoint}, credentials: {answer.credentials}" + (
        "; it has this data version" if version else ""
    )
    return Finding(about, says, answer.problem or (None if answer.has_object or version is None else missing))


@click.command()
@click.option("--params", default="params.yaml", show_default=True, help="Settings file.")
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated."
)
@click.option(
    "--cluster", is_flag=True, help="Look at the cluster of kubectl's context instead; the options below are for that."
)
@click.option(
    "--namespace",
    default=cluster.NAMESPACE,
    show_default=True,
    help="Where the pipelines' pods run; your profile, where there are several.",
)
@click.option("--kfp-namespace", default=cluster.NAMESPACE, show_default=True, help="Where Kubeflow Pipelines is.")
@click.option("--service-account", default=cluster.SERVICE_ACCOUNT, show_default=True, help="Account of the tasks.")
@click.option("--s3-secret", default=cluster.S3_SECRET, show_default=True, help="Secret with the bucket's credentials.")
@click.option(
    "--mlflow-secret",
    default=cluster.MLFLOW_SECRET,
    show_default=True,
    help="Secret with the MLflow server's address and credentials.",
)
@click.option("--git-secret", default=cluster.GIT_SECRET, show_default=True, help="Secret with git's credentials.")
@click.option("--state-claim", default=cluster.STATE_CLAIM, show_default=True, help="Volume claim for state.")
@click.option("--data-claim", default=cluster.DATA_CLAIM, show_default=True, help="Volume claim with pictures.")
@click.option("--accelerator-type", default=cluster.ACCELERATOR, show_default=True, help="Resource name of the GPU.")
@click.option("--accelerator-count", default=0, show_default=True, help="GPUs that a run will ask for.")
@click.option("--nodes", default=1, show_default=True, help="Nodes that a run will train on.")
@click.option(
    "--training-runtime",
    default=cluster.RUNTIME,
    show_default=True,
    help="Runtime of Kubeflow Trainer for several nodes.",
)
def command(params: str, settings: tuple[str, ...], **given: Any) -> None:
    """Look at the data: is it complete, does its remote answer, which credentials were found. Takes 5 seconds at most.

    With --cluster: secrets and their keys, volumes, the tasks' account, GPUs, Kubeflow Pipelines. Takes 10 seconds at
    most; no value of a secret is shown.

    \b
    Examples:
      capnet doctor
      capnet doctor --set data.root=s3://bucket/birds
      capnet doctor --cluster --accelerator-count 1
      capnet doctor --cluster --nodes 2
    """
    from capnet.config import load as load_params

    data = load_params(Path(params), settings).data
    if given.pop("cluster"):
        from capnet.cluster.kubernetes_api import ClusterError
        from capnet.commands.doctor_cluster import DEADLINE as LONGER
        from capnet.commands.doctor_cluster import Wanted, cluster_checks

        tell(examine(cluster_checks(Wanted(data.root, data.anonymous, **given)), LONGER), ClusterError)
    else:
        tell(examine(data_checks(data)), DataError)


def data_checks(data: Data) -> dict[str, Callable[[], Iterable[Finding]]]:
    """The checks of this machine by name; what they import is loaded before the clock runs."""
    from capnet.data.sources.dvc_versions import load_dvc
    from capnet.data.sources.root import is_remote
    from capnet.data.sources.s3 import load_boto3

    os.environ.setdefault("AWS_METADATA_SERVICE_TIMEOUT", "1")
    root = Path(data.root)
    remote = is_remote(data, root)
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "data": lambda: check_root(data) if remote else check_folder(root)
    }
    if remote:
        checks["cache"] = lambda: check_cache(data)
    if Path(".dvc").is_dir():
        checks["dvc remotes"] = lambda: check_remotes(root if not remote else Path("data"))
    for load in (load_boto3, load_dvc):
        with suppress(ModuleNotFoundError):  # the check that needs it says so
            load()
    return checks


def tell(found: Iterable[Finding], error: type[CapnetError]) -> None:
    """Print what is well; raise ``error`` with what is not."""
    problems = []
    for item in found:
        if item.problem is None:
            click.echo(f"ok     {item.about}: {item.says}")
        else:
            problems.append(item.problem)
    if problems:
        raise error(problems=problems)
