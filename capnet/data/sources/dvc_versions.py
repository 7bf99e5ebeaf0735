"""Data versions through DVC's Python API: the files that a git repository's data.dvc names. The only module that
imports dvc.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from capnet.contracts import md5_file
from capnet.contracts.dvc_file import dvc_output
from capnet.data.sources.remote import Entry, copies_folder, pause, unsafe
from capnet.errors import DataError, Problem

ATTEMPTS = 4
CONNECT = 10.0  # seconds until a connection: git and DVC wait two minutes, eight times over, and say nothing


def repository_url(root: str) -> str:
    """The address that git understands: git+https://HOST/REPO is https://HOST/REPO, git+PATH is a path."""
    return root.removeprefix("git+").removeprefix("file://")


def _without_password(address: str) -> str:
    return re.sub(r"//[^/@]*@", "//", address)


@dataclass(frozen=True)
class DvcSource:
    """The folder ``path`` of a git repository at ``revision`` (empty: its default branch); files come from its DVC
    remote.
    """

    root: str
    revision: str = ""
    path: str = "data"

    @property
    def name(self) -> str:
        return f"{_without_password(self.root)}@{self.revision or 'HEAD'}:{self.path}"

    @property
    def folder(self) -> PurePosixPath:
        return copies_folder("git", _without_password(repository_url(self.root)), f"{self.root} {self.path}")

    @cached_property
    def _files(self) -> Any:
        """DVC's file system over the repository. Without a revision, DVC would read the working files of a repository
        on this machine, which may differ from the commit's.
        """
        from dvc.api import DVCFileSystem

        address = repository_url(self.root)
        default = "HEAD" if Path(address).exists() else None
        if address.startswith(("http://", "https://")):
            _connect(address, self.name)
        with _explained(self.name):
            return DVCFileSystem(address, rev=self.revision or default)

    @cached_property
    def commit(self) -> str:
        """The commit that ``revision`` names now."""
        with _explained(self.name):
            return str(self._files.repo.get_rev())

    def entries(self) -> dict[str, Entry]:
        """Every file of the folder. Sizes are the average: DVC writes down the folder's total only."""
        with _explained(self.name):
            listing = self._files.find(self.path, detail=True)
            size = _average_size(self._files, self.path)
        if not listing:
            raise self._nothing_listed()
        entries = {}
        problems = []
        for name, info in listing.items():
            path = PurePosixPath(name).relative_to(self.path).as_posix()
            if fault := unsafe(path):
                what = f"file name {name!r} cannot be used: {fault}"
                problems.append(Problem(what, self.name, "rename or remove the file"))
            version = info.get("md5") or info.get("md5-dos2unix") or self.commit
            entries[path] = Entry(int(info["size"] or size), f"md5:{version}" if "md5" in info else str(version))
        if problems:
            raise DataError(problems=problems)
        return entries

    def _nothing_listed(self) -> DataError:
        """Why the folder has no files: DVC lists none, and raises nothing, where a commit names no remote."""
        if _output_with(self._files, self.path) is None or self._files.repo.config["core"].get("remote"):
            what = f"the repository has no folder {self.path!r} in this version"
            return DataError(what, self.name, "correct data.path or data.revision")
        return DataError(
            f"this version has {self.path!r}, but its .dvc/config names no default remote to fetch the files from",
            self.name,
            "take a commit with a remote, or name the store on this machine: "
            "dvc remote add --global --default store URL",
        )

    def fetch(self, path: str, entry: Entry, target: Path) -> None:
        """Write one file to ``target`` and verify its md5. Raises DataError where it cannot be had."""
        last: Exception | None = None
        for attempt in range(1, ATTEMPTS + 1):
            target.unlink(missing_ok=True)
            try:
                self._files.get_file(f"{self.path}/{path}", str(target))
                if target.is_symlink():  # DVC links to its local cache where its settings say so
                    linked = target.resolve()
                    target.unlink()
                    shutil.copyfile(linked, target)
            except Exception as error:  # what a remote raises depends on its kind
                last = error
            else:
                if not entry.version.startswith("md5:") or md5_file(target) == entry.version.removeprefix("md5:"):
                    return
                last = ValueError(f"the file has another md5 than data.dvc says ({entry.version})")
            if attempt < ATTEMPTS:
                pause(attempt)
        target.unlink(missing_ok=True)
        with _explained(f"{self.name}/{path}"):
            raise last or RuntimeError("nothing arrived")

    def close(self) -> None:
        """Remove the clone that DVC made: outside of its own command it leaves that to the caller."""
        from dvc.repo.open_repo import clean_repos

        if "_files" in self.__dict__:
            self._files.close()
        clean_repos()


def _connect(address: str, where: str) -> None:
    """Refuse a git server to which packets get lost, as a network policy or a firewall drops them. Whatever else there
    is to say of it, cloning says.
    """
    from dulwich.client import default_urllib3_manager
    from dulwich.config import StackedConfig
    from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

    url = f"{_without_password(address).rstrip('/')}/info/refs?service=git-upload-pack"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            manager: Any = default_urllib3_manager(StackedConfig.default(), base_url=url)  # git's proxy, certificates
            manager.request("GET", url, timeout=CONNECT, retries=False, preload_content=False).close()
        except (HTTPError, OSError, ValueError) as error:
            inner = getattr(error, "original_error", error)  # of a proxy's
            if isinstance(inner, NewConnectionError) or not isinstance(inner, ConnectTimeoutError):
                return
        else:
            return
        if attempt < ATTEMPTS:
            pause(attempt)
    todo = "is the address right? In a cluster, does its network policy let tasks get there? See docs/on-kubernetes.md"
    raise DataError(f"git: no connection within {CONNECT:g} seconds, {ATTEMPTS} times", where, todo)


def _output_with(files: Any, path: str) -> Any:
    """The DVC output that is or holds ``path``; None where there is none."""
    location = PurePosixPath(files.repo.root_dir, path)
    return next((output for output in files.repo.index.outs if location.is_relative_to(output.fs_path)), None)


def _average_size(files: Any, path: str) -> int:
    """Mean size in bytes of the files of the DVC folder that holds ``path``; 0 where it is not known."""
    output = _output_with(files, path)
    meta = output.meta if output else None
    return int(meta.size / meta.nfiles) if meta and meta.size and meta.nfiles else 0


@dataclass(frozen=True)
class Version:
    """What a .dvc file says of a folder: DVC's hash, number of files, bytes."""

    md5: str
    files: int
    size: int

    @property
    def object_name(self) -> str:
        """Where a remote keeps the list of the folder's files; DVC uploads it after the files."""
        return f"files/md5/{self.md5[:2]}/{self.md5[2:]}"


@dataclass(frozen=True)
class Remote:
    """A DVC remote with its settings, as .dvc/config and .dvc/config.local have them."""

    name: str
    url: str
    default: bool
    settings: Mapping[str, Any]


def recorded_version(folder: Path) -> Version | None:
    """What FOLDER.dvc next to ``folder`` says; None where there is none, or none with a hash."""
    output = dvc_output(Path(f"{folder}.dvc"))
    return Version(output["md5"], output["nfiles"], output["size"]) if output else None


def remotes(folder: Path) -> list[Remote]:
    """The remotes of the DVC repository in ``folder``, the default one first.

    Raises:
        DataError: its settings cannot be read.
    """
    from dvc.config import Config

    with _explained(str(folder)):
        config = Config(dvc_dir=str(folder / ".dvc"))  # a Repo would do, but takes half a second to import
        default = config["core"].get("remote")
        remotes = [
            Remote(name, str(item["url"]), name == default, dict(item)) for name, item in config["remote"].items()
        ]
    return sorted(remotes, key=lambda item: (not item.default, item.name))


def listed_files(folder: Path, version: Version) -> list[str] | None:
    """Names of the files of a version, from DVC's local cache; None where that has no list that can be read."""
    from dvc.repo import Repo

    with _explained(str(folder)), Repo(str(folder)) as repo:
        path = Path(repo.cache.local.oid_to_path(version.md5))
    try:
        return [str(item["relpath"]) for item in json.loads(path.read_text())]
    except (LookupError, OSError, RecursionError, TypeError, ValueError):
        return None


def remote_has(folder: Path, name: str, version: Version) -> bool:
    """Ask a remote, of any kind, for the list of a version's files; DVC uploads it after the files.

    Args:
        folder: a DVC repository.
        name: of its remote.
        version: from ``recorded_version``.

    Raises:
        DataError: the remote cannot be asked.
    """
    from dvc.repo import Repo

    with _explained(f"remote {name}"), Repo(str(folder)) as repo:
        return bool(repo.cloud.get_remote_odb(name).exists(version.md5))


@cache
def _private_folder() -> TemporaryDirectory[str]:
    """For what DVC caches while this process runs: it reads pickles there, and its usual place is all users' of the
    machine.
    """
    return TemporaryDirectory(prefix="capnet-dvc-")


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn what git, DVC and the remote raise into a DataError with the innermost message."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    os.environ.setdefault("DVC_SITE_CACHE_DIR", _private_folder().name)
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
            chain.append(cause)
        messages = list(dict.fromkeys(text for item in chain if (text := " ".join(str(item).split()))))
        what = f"DVC: {': '.join(messages)[:600] or type(error).__name__}"
        raise DataError(what, where, _advice(" ".join(messages), chain)) from None


def _advice(text: str, chain: list[BaseException]) -> str:
    kinds = {type(item).__name__ for item in chain}
    if "RevError" in kinds:
        return "correct data.revision: a branch, a tag or a commit of that repository"
    if kinds & {"CloneError", "SCMError"}:
        return "can git clone it from here? correct data.root, or give git its credentials"
    message = re.sub(r"\S*/\S*", " ", text)  # without addresses and paths, which have numbers and words of their own
    # an expired token is 400 and nothing else where S3 is asked whether an object is there
    if re.search(r"(?i)credential|signature|forbidden|denied|InvalidAccessKey|expired|\b403\b|[(]400[)]", message):
        return "correct the credentials of the DVC remote: `capnet doctor` says which ones are found"
    return "does the remote answer, and was the data pushed (`dvc push` in that repository)? `capnet doctor` looks"
