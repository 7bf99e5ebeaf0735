"""data.root as a local folder, whatever it is: a folder, s3://BUCKET/PREFIX, or a git repository with a data.dvc."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from capnet.config import Data
from capnet.data.sources.cache import Cache
from capnet.data.sources.dvc_versions import DvcSource
from capnet.data.sources.s3_source import S3Source
from capnet.errors import ConfigError
from capnet.state import state_dir

if TYPE_CHECKING:
    import pandas as pd

    from capnet.data.sources.cache import Source

Kind = Literal["folder", "s3", "git"]


def kind_of(root: str) -> Kind:
    """What ``data.root`` names.

    Raises:
        ConfigError: it is an address of another kind.
    """
    if root.startswith("s3://"):
        return "s3"
    if root.startswith(("git+", "git@", "ssh://")) or (root.endswith(".git") and "://" in root):
        return "git"
    if "://" in root:
        todo = "allowed are a folder, s3://BUCKET/PREFIX, and git+https://HOST/REPOSITORY (or git+ssh, git+file)"
        raise ConfigError(f"data.root = {root!r}", "params.yaml", todo)
    return "folder"


@contextmanager
def open_source(settings: Data) -> Iterator[Source]:
    """The remote that ``settings.root`` names, closed at the end.

    Raises:
        ConfigError: a package for such a root is not installed.
    """
    source: Source
    if kind_of(settings.root) == "s3":
        source = S3Source(settings.root, settings.connections, settings.anonymous)
    else:
        source = DvcSource(settings.root, settings.revision, settings.path)
    try:
        with closing(source):
            yield source
    except ModuleNotFoundError as error:
        what = f"this address needs the package {error.name}, which is not installed"
        raise ConfigError(what, settings.root, "pip install 'capnet[data]'") from None


def open_cache(settings: Data) -> Cache:
    """The cache of remote images in the state folder."""
    return Cache(state_dir("remote"), int(settings.cache_gigabytes * 1e9), settings.connections)


def local_root(settings: Data, location: Path, rows: pd.DataFrame | None = None, strict: bool = True) -> Path:
    """Find the folder that holds the files of ``data.root``, after those that are asked for were copied there.

    Args:
        settings: the section ``data``.
        location: what the caller names as the data; a local folder is returned as it is, even for a remote root.
        rows: ``path`` and, from ingest on, ``sha256`` of the images to copy, or whose shards to copy. Without rows the
            label files are copied.
        strict: raise where an image is missing or has another content than its row says.

    Raises:
        DataError: see ``strict``, or the remote cannot be read.
        ConfigError: a package for such a root is not installed.
    """
    if not is_remote(settings, location):
        return location
    images: dict[str, str | None] | None = None
    if rows is not None:
        hashes = rows["sha256"] if "sha256" in rows else [None] * len(rows)
        images = {
            path: value if isinstance(value, str) else None for path, value in zip(rows["path"], hashes, strict=True)
        }
    with open_source(settings) as source:
        return open_cache(settings).bring(source, images, strict)


def is_remote(settings: Data, location: Path) -> bool:
    """True where ``location`` stands for the remote root of the settings: it is that address, or a pipeline's artifact
    that names it.
    """
    return kind_of(settings.root) != "folder" and (
        location == Path(settings.root) or (location / "source.json").is_file()
    )
