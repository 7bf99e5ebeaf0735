"""Files of a remote data folder: its address, their version, which hold labels, which names are safe; and how long to
wait.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from dataclasses import dataclass
from pathlib import PurePosixPath

from capnet.errors import ConfigError

JPEG_2000 = (".jp2", ".j2k", ".jpx")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", *JPEG_2000)
ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zip", ".7z")
PACKED_TABLE = ".csv.gz"  # the one kind of packed file that readers open
OTHERS = (".mp4", ".avi", ".mov", ".npy", ".npz")
LONGEST_PATH = 3000  # bytes: Linux takes 4,095 with the folder that the copies are in; S3 names have 1,024


@dataclass(frozen=True, slots=True)
class Entry:
    """A remote file: its size in bytes (or the average where only a total is known) and a ``version`` that changes with
    the content.
    """

    size: int
    version: str


def is_label_file(path: str) -> bool:
    """True for a file that an annotation reader may want: all but images, archives, films and arrays."""
    name = path.lower()
    return name.endswith(PACKED_TABLE) or not name.endswith(IMAGES + ARCHIVES + OTHERS)


def unsafe(path: str) -> str:
    """Why a remote name cannot become a path below a folder; empty where it can."""
    parts = path.split("/")
    if path.startswith("/") or "\0" in path:
        return "it is no relative path"
    if any(part in ("", ".", "..") for part in parts):
        return "it has an empty part, '.' or '..'"
    if len(path.encode()) > LONGEST_PATH:
        return f"it is longer than {LONGEST_PATH} bytes"
    return "a part of it is longer than 255 bytes" if any(len(part.encode()) > 255 for part in parts) else ""


def copies_folder(kind: str, address: str, identity: str) -> PurePosixPath:
    """The folder below the cache for the copies of one root; it is never inside another root's, even where the address
    begins with another one.

    Args:
        kind: of the root.
        address: readable, without a password.
        identity: what tells roots apart.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", address).strip("-.")[-80:]
    return PurePosixPath(kind, f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}")


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and prefix (without slashes at its ends) of s3://BUCKET/PREFIX; raises ConfigError without a bucket."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError("the address names no bucket", uri, "write s3://BUCKET/PREFIX")
    if "@" in bucket:  # to quote it alone could show a password
        todo = "write s3://BUCKET/PREFIX; credentials come from the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID)"
        raise ConfigError("an address of S3 names no user", uri, todo)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", bucket):
        todo = (
            "write s3://BUCKET/PREFIX; a bucket's name has 3 to 255 letters, digits, dots, hyphens and underscores, and"
            " begins and ends with a letter or digit"
        )
        raise ConfigError(f"{bucket!r} can be no bucket's name", uri, todo)
    return bucket, prefix.strip("/")


def pause(failed: int, longest: float = 20.0) -> None:
    """Wait before another attempt: twice as long after each that ``failed``, at most ``longest`` seconds."""
    time.sleep(min(longest, 0.5 * 2 ** (failed - 1)) * random.uniform(0.5, 1.0))
