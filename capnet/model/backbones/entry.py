"""What one entry of the registry says about a backbone; light, because cards and reports read it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
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
        licences: by the beginning of ``backbone.pretrained``; "" is the beginning of all.
        published_files: sha256 of weight files by the tag under which they were published, so that a file of one's
            own is known by its bytes.
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

    @property
    def requirements(self) -> tuple[str, ...]:
        """Distributions that hold its weights."""
        return tuple(dict.fromkeys(item.distribution for item in self.files))

    def licence(self, pretrained: str, weight_hash: str = "") -> Licence:
        """Terms of the weights; ``UNKNOWN`` where nothing is known.

        Args:
            pretrained: ``backbone.pretrained``.
            weight_hash: sha256 of the weights.
        """
        if pretrained == "random":
            return RANDOM
        tag = next((tag for tag, hashes in self.published_files.items() if weight_hash in hashes), pretrained)
        return next((licence for start, licence in self.licences.items() if tag.startswith(start)), UNKNOWN)
