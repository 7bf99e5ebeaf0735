"""source.json: where the images of a run are, and exactly which version; the images themselves stay where they
are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from capnet.config import Data
from capnet.contracts import SCHEMA, read_document, write_json
from capnet.data.annotations.paths import DataFolder
from capnet.data.sources.remote import Entry, is_label_file
from capnet.data.sources.root import kind_of, open_cache, open_source
from capnet.errors import ContractError, DataError, Problem, Problems

NAME = "source.json"
MOST_LINKED = 10_000  # folders that are reached through links: those that lead to each other multiply
FILES = "files"  # folder with source.json, for images of a local folder that tasks elsewhere could not reach


@dataclass(frozen=True)
class DataSource:
    """The images of a run. ``root`` is empty where the files lie with source.json; then ``digest`` changes with names
    and sizes alone, else with any file.
    """

    root: str
    revision: str
    path: str
    digest: str
    files: int

    def settings(self, data: Data) -> Data:
        """``data`` with this root and revision."""
        return data.model_copy(update={"root": self.root or data.root, "revision": self.revision, "path": self.path})


def write_source(data: Data, folder: Path, volume: str = "") -> DataSource:
    """Write source.json: the version of ``data.root`` as it is now, and the files too where only this machine has them.

    A branch or tag becomes its commit, so that every task of a run reads the same images.

    Args:
        data: the section ``data``.
        folder: for source.json.
        volume: folder that is mounted in every task; a data folder below it stays where it is. "" for none.

    Raises:
        DataError: the remote cannot be reached, or nothing is there.
    """
    if kind_of(data.root) == "folder":
        source = _folder(data, folder, volume)
    else:
        with open_source(data) as remote:
            open_cache(data).bring(remote)  # label files: a wrong address or missing credentials show in seconds
            entries = remote.entries()
            revision = str(getattr(remote, "commit", ""))
        source = DataSource(data.root, revision, data.path, digest(entries), len(entries))
    write_json(folder / NAME, {"schema": SCHEMA, **asdict(source)})
    return source


def read_source(folder: Path) -> DataSource:
    """What ``write_source`` wrote.

    Raises:
        ContractError: source.json is missing, damaged or of another version.
    """
    content = read_document(folder / NAME)
    try:
        return DataSource(**{key: value for key, value in content.items() if key != "schema"})
    except TypeError as error:
        what = f"not the description of a data source: {error}"
        raise ContractError(what, str(folder / NAME), "run the component fetch again") from None


def digest(entries: Mapping[str, Entry]) -> str:
    """sha256 over names, sizes and versions of all files, whatever their order."""
    lines = sorted(f"{path}\0{entry.size}\0{entry.version}\n" for path, entry in entries.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _folder(data: Data, folder: Path, volume: str) -> DataSource:
    root = Path(data.root)
    if not root.is_dir():
        todo = "correct data.root; on a cluster it is s3://BUCKET/PREFIX, a git address or a folder on a volume"
        raise DataError("there is no such folder", data.root, todo)
    stays = bool(volume) and root.resolve().is_relative_to(Path(volume).resolve())
    entries, problems = dict[str, Entry](), Problems()
    inside = DataFolder(root, data.links)
    for name, path in _files(root):
        if inside.leads_out(name) or not path.exists():
            what = f"{name!r} is a link that leads nowhere, or out of the data folder"
            todo = "put the file itself there, or remove the link; data.links: anywhere allows those that lead out"
            problems.append(Problem(what, str(root), todo))
        if problems:
            continue
        if not stays:
            _copy(path, folder / FILES / name, is_label_file(name))
        stat = path.stat()
        entries[name] = Entry(stat.st_size, str(stat.st_mtime_ns) if stays else "")
    if problems:
        raise DataError(problems=problems)
    if not entries:
        raise DataError("the folder is empty", data.root, "correct data.root")
    return DataSource(data.root if stays else "", "", data.path, digest(entries), len(entries))


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file by its name; links to folders are followed, those to a folder that they lie in are not."""
    waiting, linked = [(root, frozenset({os.path.realpath(root)}))], 0
    while waiting:
        folder, above = waiting.pop()
        for path in sorted(folder.iterdir()):
            if not path.is_dir():
                yield path.relative_to(root).as_posix(), path
            elif (real := os.path.realpath(path)) not in above:
                waiting.append((path, above | {real}))
                linked += path.is_symlink()
                if linked > MOST_LINKED:
                    todo = "remove links to folders"
                    raise DataError(f"links lead to more than {MOST_LINKED:,} folders", str(root), todo)


def _copy(path: Path, target: Path, whole: bool) -> None:
    """A second name for an image where the disk allows it; tables are copied, because people edit them in place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not whole and not path.is_symlink():
        with suppress(OSError):  # another disk, or one without links
            os.link(path, target)
            return
    shutil.copyfile(path, target)
