"""A file of the repository as the value of a setting: a pod has no clone, so a pipeline sends the content in place of
the path.
"""

from __future__ import annotations

import base64
import binascii
import os
import zlib
from pathlib import Path

from capnet.errors import ConfigError
from capnet.yaml_text import MOST_LETTERS

TEXT, PACKED = "text:", "zlib:"  # in front of the content; packed where it is long
SHORT = 4096  # characters up to which it stays readable
# characters: the system's limit for one argument of a process is 131,072 bytes, and a task's other settings share it
MOST = 90_000
MOST_FILE = 4 * MOST_LETTERS  # bytes of a policy
MOST_TABLE = 2**26  # bytes of a reference: those of a million images are 40 MB; and of what is packed


def inlined(path: str) -> str:
    """The content of a text file as a setting. Raises ConfigError where it is too long for a pipeline."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")  # as where the file itself is read
    setting = TEXT + text if len(text) <= SHORT else PACKED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    if len(setting) > MOST:
        raise ConfigError(
            f"{len(setting)} characters, packed, are too long for a pipeline: {MOST} fit", path, "make the file shorter"
        )
    return setting


def text_and_path(setting: str | Path, name: str, most: int = MOST_FILE) -> tuple[str | None, Path]:
    """The text that a setting names or holds.

    Args:
        setting: the path of a file, or the content of one, as ``inlined`` writes it.
        name: of the setting.
        most: bytes that a file may have.

    Returns:
        The text, None where there is no such file; and what a message calls it: the path, or ``name`` for content.

    Raises:
        ConfigError: the path is a folder, a broken link or otherwise no plain file, the file is too large, or the
            content is damaged.
    """
    text = content_of(str(setting))
    if text is not None:
        return text, Path(name)
    path = Path(setting)
    if path.is_dir():
        raise ConfigError(f"{name} is a folder", str(path), "name a file in it")
    if not os.path.lexists(path):
        return None, path
    if not path.is_file():
        raise ConfigError(f"{name} is no plain file, or a broken link", str(path), "name another file")
    if (size := path.stat().st_size) > most:
        what = f"{name} is a file of {size:,} bytes, and at most {most:,} are read"
        raise ConfigError(what, str(path), "name another file, or make this one shorter")
    return path.read_text(encoding="utf-8", errors="replace"), path


def content_of(setting: str) -> str | None:
    """The text that ``setting`` holds, None where it is a path. Raises ConfigError where it is damaged."""
    if setting.startswith(TEXT):
        return setting.removeprefix(TEXT)
    if not setting.startswith(PACKED):
        return None
    try:
        unpacked = zlib.decompressobj()
        data = unpacked.decompress(base64.b64decode(setting.removeprefix(PACKED), validate=True), MOST_TABLE)
        if not unpacked.eof:
            raise zlib.error(f"it is cut, or has more than {MOST_TABLE:,} bytes")
        return data.decode()
    except (binascii.Error, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(
            f"a packed file does not unpack: {error}", f"{setting[:20]}...", "name a file, or submit the pipeline again"
        ) from None
