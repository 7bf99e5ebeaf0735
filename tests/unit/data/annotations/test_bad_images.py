"""What ingest advises about one image whose file cannot be used."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from capnet.data.annotations.bad_images import advice
from capnet.data.images.shards import add_member


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff\xd8")


@pytest.mark.parametrize("name", ["images/a.jpg", "images/b\N{LATIN SMALL LETTER A WITH DIAERESIS}r.jpg"])
def test_a_file_that_is_back_is_not_called_by_another_name(tmp_path: Path, name: str) -> None:
    """A share that was away for a moment: the accents of a.jpg were in another Unicode form."""
    write(tmp_path / name)
    assert advice(tmp_path, name, "missing") == "the file is there now: run the same command again"


@pytest.mark.parametrize(
    ("listed", "there", "form"),
    [
        ("images/ba\u0308r.jpg", "images/b\u00e4r.jpg", "NFC"),
        ("b\u00e4r/\u00e4.jpg", "ba\u0308r/a\u0308.jpg", "NFD"),
        ("ba\u0308r/\u00e4.jpg", "b\u00e4r/\u00e4.jpg", "NFC"),
    ],
)
def test_accents_in_another_form_are_called_so(tmp_path: Path, listed: str, there: str, form: str) -> None:
    write(tmp_path / there)
    assert f"in another Unicode form: write the name in {form}" in advice(tmp_path, listed, "missing")


@pytest.mark.parametrize("name", ["s.tar/a.jpg", "s.tar/deep/a.jpg"])
def test_an_image_that_a_shard_lacks_is_not_sought_in_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "s.tar", "w") as tar:
        add_member(tar, "b.jpg", b"\xff\xd8")
    assert advice(tmp_path, f"shards/{name}", "missing") == (
        "the shard 'shards/s.tar' is there, and holds no such image: write it again, or correct the path"
    )
    assert "has no folder 'shards/t.tar'" in advice(tmp_path, "shards/t.tar/a.jpg", "missing")
