"""What one entry of the registry says about a backbone; light, because cards and reports read it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capnet.config import Backbone
    from capnet.model.towers import Towers


@dataclass(frozen=True)
class Licence:
    """Terms of weights: what they are in a sentence, and the addresses at which their publishers say so."""

    text: str
    addresses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.text}: {', '.join(self.addresses)}" if self.addresses else self.text


UNKNOWN = Licence("not known here: find out before the model is used or passed on")
RANDOM = Licence("none: the weights are random numbers")


@dataclass(frozen=True)
class PackagedFile:
    """A weight file inside a Python package.

    Attributes:
        distribution: the package's name in a package registry.
        path: of the file inside the package.
        sha256: of the file.
    """

    distribution: str
    path: str
    sha256: str


@dataclass(frozen=True)
class BackboneEntry:
    """All that is known of a backbone, or of a family that one loader serves.

    Attributes:
        name: ``backbone.name`` in the settings.
        pretrained: the usual ``backbone.pretrained``.
        description: what it is, for the model card.
        load: builds the frozen towers from this entry, the settings, the image size in pixels (0: its own) and the
            names of all registered backbones, for messages.
        licences: by how the tag in ``backbone.pretrained`` begins; the longest match counts. "" matches every tag,
            and alone covers a user's own weight file, whose name says nothing.
        published_files: sha256 of weight files by the tag under which they were published, so that a user's file is
            recognised by its bytes.
        files: weight files in Python packages, which a registered model therefore requires.
        timm_name: the image tower in timm, where the loader needs it.
        image_size: width and height in pixels that it was trained with, where the loader needs it.
        normalisation: mean and standard deviation of each channel, where the weights do not say themselves.
        centring: whether text features have a centring projector (``backbone.centre``).
        warning: what a reader must know before believing numbers made with it, for the report; "" for none.
    """

    name: str
    pretrained: str
    description: str
    load: Callable[[BackboneEntry, Backbone, int, Sequence[str]], Towers]
    licences: Mapping[str, Licence]
    published_files: Mapping[str, Collection[str]] = field(default_factory=dict)
    files: tuple[PackagedFile, ...] = ()
    timm_name: str = ""
    image_size: int = 0
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    centring: bool = False
    warning: str = ""

    def __post_init__(self) -> None:
        """Refuse an entry that would register models without a licence or without the packages that hold the weights.

        Raises:
            ValueError: the entry names no licence, or one without an address.
        """
        if not self.licences or not all(licence.text and licence.addresses for licence in self.licences.values()):
            raise ValueError(f"backbone {self.name}: its licences need a text and an address each, see entry.Licence")

    @property
    def requirements(self) -> tuple[str, ...]:
        """Distributions that hold its weights."""
        return tuple(dict.fromkeys(item.distribution for item in self.files))

    def weight_file(self, file: PackagedFile) -> Path:
        """Find an installed weight file: the only way to one, so that a registered model requires its package.

        Args:
            file: one of ``files``.

        Returns:
            Its path; the bytes are the expected ones.

        Raises:
            ValueError: the entry does not name the file.
            DataError: the package or the file is missing, or the file differs.
        """
        from capnet.contracts import sha256_file
        from capnet.errors import DataError

        if file not in self.files:
            raise ValueError(f"backbone {self.name}: {file.distribution} is not among the entry's files")
        spec = find_spec(file.distribution.replace("-", "_"))
        if spec is None or spec.origin is None:
            what = f"the weight package {file.distribution} is not installed"
            raise DataError(what, "backbone.name", "pip install 'capnet[demo]'")
        path = Path(spec.origin).parent / file.path
        if not path.is_file():
            todo = "pip install --force-reinstall 'capnet[demo]'"
            raise DataError(f"weight file {path.name} is missing", str(path), todo)
        digest = sha256_file(path)
        if digest != file.sha256:
            what = f"weight file {path.name} has sha256 {digest[:16]}..., expected {file.sha256[:16]}..."
            raise DataError(what, str(path), "install the version in pyproject.toml again")
        return path

    def licence(self, pretrained: str, weight_hash: str = "") -> Licence:
        """Terms of the weights; ``UNKNOWN`` where nothing is known.

        Args:
            pretrained: ``backbone.pretrained``.
            weight_hash: sha256 of the weights.
        """
        if pretrained == "random":
            return RANDOM
        named = "" if is_weight_file(pretrained) else pretrained
        tag = next((tag for tag, hashes in self.published_files.items() if weight_hash in hashes), named)
        starts = [start for start in self.licences if tag.startswith(start)]
        return self.licences[max(starts, key=len)] if starts else UNKNOWN


def is_weight_file(pretrained: str) -> bool:
    """Whether ``backbone.pretrained`` is the path of a weight file, and no tag."""
    return os.sep in pretrained or pretrained.endswith((".pt", ".pth", ".bin", ".safetensors"))
