"""The ingest stage on good images that are replaced while it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.steps import ingested
from tests.unit.steps.ingested import ingest, picture, refused

data = ingested.data


def replace_once_read(monkeypatch: pytest.MonkeyPatch, path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` when ingest has read it."""

    def read(name: Path) -> bytes:
        before = name.read_bytes()
        if name == path and before != content:
            path.write_bytes(content)
        return before

    monkeypatch.setattr("capnet.data.images.image_files.read_bytes", read)


def test_an_image_that_is_replaced_by_one_of_its_size_is_not_recorded_as_the_one_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC records the images as they are when the stage ends, and called a manifest of the earlier one up to date."""
    path = data / "images" / "b.png"
    picture(tmp_path / "other" / "b.png", 41, 30, seed=7)
    content = (tmp_path / "other" / "b.png").read_bytes()
    (tmp_path / "other" / "b.png").unlink()
    (tmp_path / "other").rmdir()
    replace_once_read(monkeypatch, path, content)
    (text,) = refused(data, tmp_path / "manifest")
    assert text.startswith(f"changed while stage ingest ran\n  where: {path}")
    assert ingest(data, tmp_path / "manifest")["pictures"] == 3


def test_an_image_that_is_removed_once_it_was_read_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data / "images" / "b.png"

    def read(name: Path) -> bytes:
        content = name.read_bytes()
        if name == path:
            path.unlink()
        return content

    monkeypatch.setattr("capnet.data.images.image_files.read_bytes", read)
    assert f"changed while stage ingest ran\n  where: {path}" in refused(data, tmp_path / "manifest")[0]


def test_an_image_that_is_touched_or_copied_over_itself_is_as_good_as_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(name: Path) -> bytes:
        content = name.read_bytes()
        os.utime(name, (1, 1))
        return content

    monkeypatch.setattr("capnet.data.images.image_files.read_bytes", read)
    assert ingest(data, tmp_path / "manifest")["pictures"] == 3
