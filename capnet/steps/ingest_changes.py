"""What changes in the data while ingest reads it: DVC would record the files of now with the rows of before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.config import Params
from capnet.data.annotations.bad_images import Fault
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.rows import Annotations
from capnet.data.sources.remote import is_label_file
from capnet.data.sources.root import is_remote, kind_of, s3_versions
from capnet.errors import Problem

if TYPE_CHECKING:
    import numpy as np

TODO = "run it again: `dvc repro`, or `capnet ingest`"


class DataChanges:
    """Remembers the data as ingest reads it, and says at its end what is another by then.

    Attributes:
        is_local: whether the data is a folder of this machine. Copies of a remote stay as they are; only an S3 bucket
            from which DVC runs the stage is listed again.
    """

    def __init__(self, params: Params, location: Path) -> None:
        """Remember the versions of all objects of such a bucket.

        Args:
            params: all settings.
            location: the stage's input ``data``.

        Raises:
            DataError: the bucket cannot be listed.
            ConfigError: a package for such a root is not installed.
        """
        self._data, self._images = params.data, params.ingest.images
        self.is_local = not is_remote(params.data, location)
        by_dvc = "DVC_STAGE" in os.environ and not self.is_local and kind_of(params.data.root) == "s3"
        self._versions = s3_versions(params.data) if by_dvc else None
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
            DataError: the bucket cannot be listed.
            CapnetError: the machine could not read some images.
        """
        if self._versions is not None:
            where, changed = self._data.root, self._changed_objects(folder, annotations, self._versions)
        elif self.is_local:
            where, changed = str(folder), folder.changed()
            if read_again and self._states is not None:
                changed += self._changed_images(root, annotations, faults, self._states)
        else:
            return []
        return [Problem("changed while stage ingest ran", f"{where}/{name}", TODO) for name in changed]

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

    def _changed_objects(self, folder: DataFolder, annotations: Annotations, before: dict[str, str]) -> list[str]:
        """The objects of the bucket that were read and are others now; ``before`` has their versions."""
        from capnet.data.images.shards import file_of

        now = s3_versions(self._data)
        images: list[str] = [] if self._images == "listed" else annotations.rows["path"].tolist()
        used = {file_of(path, before) for path in images}
        others = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
        return [path for path in others if path in used or (is_label_file(path) and folder.is_asked_for(path))]
