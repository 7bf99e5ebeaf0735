"""The registry of backbones: one file for each, or for a family, with an entry that holds all that is known of it. A
file that defines ``BACKBONES`` is registered. How towers are built and weights are read is in capnet/model/towers.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from capnet.errors import ConfigError
from capnet.model.backbones.entry import BackboneEntry
from capnet.model.backbones.open_clip import OPEN_CLIP
from capnet.progress import waiting

if TYPE_CHECKING:
    from capnet.config import Backbone
    from capnet.model.towers import Towers

__all__ = ["BACKBONES", "BackboneEntry", "discover", "find_backbone", "load_towers"]


def discover() -> dict[str, BackboneEntry]:
    """The entries of all files of this package, by name.

    Raises:
        ValueError: two files have a backbone of one name.
    """
    files, entries = dict[str, str](), dict[str, BackboneEntry]()
    for item in iter_modules(__path__):
        for entry in getattr(import_module(f"capnet.model.backbones.{item.name}"), "BACKBONES", ()):
            if entry.name in files:
                raise ValueError(f"backbone {entry.name} is both in {files[entry.name]}.py and in {item.name}.py")
            files[entry.name], entries[entry.name] = item.name, entry
    return entries


BACKBONES = discover()


def find_backbone(name: str) -> BackboneEntry:
    """The entry of ``backbone.name``: its own, or open_clip's general one, which knows any model of open_clip."""
    return BACKBONES.get(name, OPEN_CLIP)


def load_towers(settings: Backbone, size: int = 0) -> Towers:
    """Build the frozen towers of a backbone; weights that are not there are never replaced by others.

    Args:
        settings: which backbone.
        size: width and height of the images in pixels; 0: the backbone's own.

    Returns:
        The towers; ``weight_hash`` is that of the weights as published, whatever the size.

    Raises:
        ConfigError: there is no such backbone, tag or size, or ``backbone.pretrained`` names other weights than the one
            set that the entry's files hold.
        DataError: weights are missing, or not those that the settings name.
    """
    entry = find_backbone(settings.name)
    if entry.files and settings.pretrained not in ("", entry.pretrained):
        raise ConfigError(
            f"backbone.pretrained = {settings.pretrained!r}: {entry.name} has one set of weights",
            "settings",
            f"set backbone.pretrained: {entry.pretrained}",
        )
    with waiting("loading open_clip"):  # not while weights are downloaded, which shows a bar of its own
        import open_clip  # noqa: F401
    return entry.load(entry, settings, size, sorted(BACKBONES))
