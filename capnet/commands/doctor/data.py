"""Does the data's remote answer, with which credentials, and is the data complete: `capnet doctor` on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from capnet.commands.doctor.findings import Checks, Finding, wrong
from capnet.errors import Problem, counted, megabytes, some

if TYPE_CHECKING:
    from capnet.config import Data
    from capnet.data.sources.dvc_versions import Remote, Version

# seconds for all checks together, once the libraries are loaded: right after an installation that takes longer
DEADLINE = 3.5
COUNTING = 2.0  # of these, for the files of a local folder: a million take longer, and nothing is wrong with them
SHOWN = 3
NO_REMOTE = "no DVC remote is set, so images cannot be fetched: make data-remote URL=s3://bucket/dvc names their store"


def data_checks(data: Data) -> Checks:
    """The checks of this machine by name; what they import is loaded before the clock runs."""
    from capnet.data.sources.root import is_remote, kind_of

    os.environ.setdefault("AWS_METADATA_SERVICE_TIMEOUT", "1")
    root = Path(data.root)
    remote = is_remote(data, root)
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "data": lambda: check_root(data) if remote else check_folder(root)
    }
    if remote:
        checks["cache"] = lambda: check_cache(data)
    if Path(".dvc").is_dir():
        checks["dvc remotes"] = lambda: check_remotes(None if remote else root)
    for library in ("boto3", "dvc.api" if kind_of(data.root) == "git" else "dvc.config"):
        with suppress(ModuleNotFoundError):  # the check that needs it says so
            import_module(library)
    return checks


def check_folder(folder: Path) -> Iterable[Finding]:
    """Whether a local data folder holds everything that its .dvc file lists."""
    from capnet.data.sources.dvc_versions import listed_files, recorded_version, remotes

    version = recorded_version(folder)
    # of the images only: outputs may never have been pushed, and then DVC fails
    pull = f"dvc pull {quote(f'{folder}.dvc')}" if Path(".dvc").is_dir() and remotes(Path()) else ""
    if not folder.is_dir():
        todo = "put your images there, correct data.root, or draw the demo: capnet demo-data"
        if version:
            todo = pull or f"{NO_REMOTE}; or {todo}"
        yield wrong("data", f"there is no folder {folder}", "data.root", todo)
        return
    files, end = dict[str, int](), time.monotonic() + COUNTING
    for path in folder.rglob("*"):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = path.stat().st_size
        if time.monotonic() > end:
            todo = f"`dvc status {folder}.dvc` compares them all" if version else ""
            what = f"more than {counted(len(files), 'file')} in {folder}, too many to count in {COUNTING:.0f} seconds"
            yield Finding("data", what, warning=todo)
            return
    size = sum(files.values())
    content = f"{counted(len(files), 'file')}, {size / 1e6:.1f} MB in {folder}"
    if version is None and os.path.lexists(described := f"{folder}.dvc"):
        todo = f"let this account read it; where its text is broken: git checkout -- {quote(described)}"
        yield wrong("data", f"{content}, but {described} cannot be read as a file that DVC wrote", described, todo)
        return
    if version is None:
        yield Finding("data", f"{content}; not under DVC: `dvc add {quote(str(folder))}` remembers exactly these")
        return
    if (len(files), size) == (version.files, version.size):
        yield Finding("data", f"{content}, as many as {folder.name}.dvc says")
        return
    present, recorded = megabytes(size), megabytes(version.size)
    if present == recorded:
        present, recorded = f"{size:,} bytes", f"{version.size:,} bytes"
    what = f"{counted(len(files), 'file')}, {present} in {folder}, but {folder.name}.dvc says"
    what += f" {counted(version.files, 'file')}, {recorded}"
    listed = listed_files(folder.parent, version)
    missing = sorted(set(listed or ()) - files.keys())
    name = quote(str(folder))
    todo = f"`dvc add {name}` records the folder as it is; `dvc checkout {name}` asks and brings back what it was"
    if missing:
        what += f"; missing are {some(missing, SHOWN)}"
    if missing or listed is None:
        fetching = f"{pull} fetches what is missing" if pull else NO_REMOTE
        todo = f"{fetching}; {todo}"
    yield wrong("data", what, f"{folder}.dvc", todo)


def check_root(data: Data) -> Iterable[Finding]:
    """Whether a remote root answers, and how many files it has."""
    from capnet.data.sources.root import kind_of, open_source
    from capnet.data.sources.s3 import S3Address, probe

    if kind_of(data.root) == "s3":
        answer = probe(S3Address(anonymous=data.anonymous), data.root)
        empty = Problem("nothing is stored there", data.root, "correct data.root, or upload the data folder")
        problem = answer.problem or (None if answer.has_object else empty)
        yield Finding("data", f"{data.root} answers at {answer.endpoint}, credentials: {answer.credentials}", problem)
        return
    with open_source(data) as source:
        yield Finding("data", f"{source.name} has {counted(len(source.entries()), 'file')}")


def check_cache(data: Data) -> Iterable[Finding]:
    """How much of the image cache is used."""
    from capnet.data.sources.root import open_cache

    cache = open_cache(data)
    yield Finding("cache", f"{cache.size() / 1e9:.2f} of {data.cache_gigabytes:g} GB used in {cache.root}")


def check_remotes(folder: Path | None) -> Iterable[Finding]:
    """Whether each DVC remote answers and has the data version of this commit; without a ``folder``, where the images
    stay in a remote root, only whether it answers.
    """
    from capnet.data.sources.dvc_versions import recorded_version, remotes

    version = recorded_version(folder) if folder is not None else None
    configured = remotes(Path())
    if not configured and folder is not None:
        none = "no remote: the images exist on this machine only; add one: make data-remote URL=s3://bucket/dvc"
        yield Finding("dvc", none)
    for remote in configured:
        yield check_remote(remote, version)


def check_remote(remote: Remote, version: Version | None) -> Finding:
    """One DVC remote. S3 is asked through boto3, which says where credentials come from; others through DVC."""
    from capnet.data.sources.dvc_versions import remote_has
    from capnet.data.sources.s3 import S3Address, probe

    about = f"dvc remote {remote.name}{' (default)' if remote.default else ''}"
    todo = "dvc push, from a machine that has the data"
    missing = Problem(f"{remote.url} lacks this data version", f"{about}, data.dvc", todo)
    if not remote.url.startswith("s3://"):
        complete = version is None or remote_has(Path(), remote.name, version)
        message = f"{remote.url} answers" + (" and has this data version" if version else "")
        return Finding(about, message, None if complete else missing)
    settings = {key: str(value) for key, value in remote.settings.items() if value}
    address = S3Address(
        endpoint=settings.get("endpointurl"),
        profile=settings.get("profile"),
        region=settings.get("region"),
        access_key=settings.get("access_key_id"),
        secret_key=settings.get("secret_access_key"),
        session_token=settings.get("session_token"),
        anonymous=settings.get("allow_anonymous_login", "").lower() == "true",
    )
    answer = probe(address, remote.url, version.object_name if version else "")
    message = f"{remote.url} answers at {answer.endpoint}, credentials: {answer.credentials}"
    if version:
        message += "; it has this data version"
    complete = answer.has_object or version is None
    return Finding(about, message, answer.problem or (None if complete else missing))
