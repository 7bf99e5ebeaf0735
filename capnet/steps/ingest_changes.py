"""What changes in the data while ingest reads it: DVC would record the files of now with the rows of before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.config import Params
from capnet.data.annotations.bad_images import Fault
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.rows import Annotations
from capnet.data.sources.root import is_remote
from capnet.errors import Problem

if TYPE_CHECKING:
    import numpy as np

TODO = "run it again: `dvc repro`, or `capnet ingest`"


class DataChanges:
    """Remembers the images of a folder before ingest reads them, and says at its end what is another by then.

    Attributes:
        is_local: whether the data is a folder of this machine: copies of a remote stay as they are.
    """

    def __init__(self, params: Params, location: Path) -> None:
        """Begin with nothing.

        Args:
            params: all settings.
            location: the stage's input ``data``.
        """
        self.is_local, self._images = not is_remote(params.data, location), params.ingest.images
        self._states: np.ndarray | None = None

    def remember_images(self, root: Path, annotations: Annotations) -> None:
        """Size and time of all images, before they are read."""
        from capnet.data.images.image_files import file_states

        if self.is_local and self._images != "listed":
            self._states = file_states(root, annotations.rows["path"].tolist())

    def problems(
        self, folder: DataFolder, root: Path, annotations: Annotations, faults: Sequence[Fault], read_again: bool
    ) -> list[Problem]:
        """What changed, with what to do.

        Args:
            folder: through which all label files were read.
            root: the data folder.
            annotations: with the images' hashes.
            faults: the images that are left out.
            read_again: whether images that were replaced, or are left out, are read once more.

        Raises:
            CapnetError: the machine could not read some images.
        """
        if not self.is_local:
            return []
        changed = folder.changed()
        if read_again and self._states is not None:
            changed += self._changed_images(root, annotations, faults, self._states)
        return [Problem("changed while stage ingest ran", f"{folder}/{name}", TODO) for name in changed]

    def _changed_images(
        self, root: Path, annotations: Annotations, faults: Sequence[Fault], states: np.ndarray
    ) -> list[str]:
        """The images that were replaced, or were being copied, after ``states`` was taken, if it makes a difference."""
        from capnet.data.images.decode import NO_MEMORY
        from capnet.data.images.image_files import file_states, inspect_images, require_read

        known = {row: fault for row, fault, _ in faults}
        replaced = (file_states(root, annotations.rows["path"].tolist()) != states).any(axis=1).nonzero()[0]
        numbers = sorted({*known, *replaced.tolist()})
        rows = annotations.rows.iloc[numbers]
        paths = rows["path"].tolist()
        images = [*inspect_images(root, paths, decode=self._images == "decode")]
        require_read(images, paths, lambda number: annotations.where(numbers[number]))
        changed = []
        for row, path, sha256, image in zip(numbers, paths, rows["sha256"], images, strict=True):
            before = known.get(row, "")
            is_other = image.fault != before or (not before and image.sha256 != sha256)
            if is_other and NO_MEMORY not in (image.fault, before):
                changed.append(path)
        return changed
