"""The local copy of remote files: what it fetches, keeps, deletes, and what it leaves when something breaks."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pytest

from capnet.data.sources.cache import Cache
from capnet.data.sources.remote import Entry, is_label_file, unsafe
from capnet.errors import DataError


@dataclass
class Folder:
    """A remote that is a folder; ``broken`` files fail, ``fetched`` says what was asked for."""

    root: Path
    title: str = "shop"
    broken: frozenset[str] = frozenset()
    fetched: list[str] = field(default_factory=list)
    listed: int = 0

    @property
    def name(self) -> str:
        return f"remote://{self.title}"

    @property
    def folder(self) -> PurePosixPath:
        return PurePosixPath("made", self.title)

    def entries(self) -> dict[str, Entry]:
        self.listed += 1
        files = {
            path.relative_to(self.root).as_posix(): path.read_bytes() for path in self.root.rglob("*") if path.is_file()
        }
        return {name: Entry(len(body), hashlib.md5(body).hexdigest()) for name, body in files.items()}

    def fetch(self, path: str, entry: Entry, target: Path) -> None:
        if path in self.broken:
            target.write_bytes(b"half")
            raise DataError("the line is dead", self.name)
        self.fetched.append(path)
        shutil.copy(self.root / path, target)

    def close(self) -> None:
        """Nothing to close."""


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def remote(tmp_path: Path) -> Folder:
    """Ten pictures of 1,000 bytes and two label files."""
    generator = random.Random(3)
    root = tmp_path / "remote"
    (root / "images").mkdir(parents=True)
    for number in range(10):
        (root / "images" / f"{number}.JPG").write_bytes(generator.randbytes(1000))
    (root / "labels.csv").write_bytes(b"path,labels\n")
    (root / "images" / "notes.xml").write_bytes(b"<x/>")
    return Folder(root)


def pictures(*numbers: int) -> list[str]:
    return [f"images/{number}.JPG" for number in numbers]


def asked(*numbers: int) -> dict[str, str | None]:
    """Pictures of which no content is known."""
    return dict.fromkeys(pictures(*numbers))


def cache(tmp_path: Path, limit: int = 10**9) -> Cache:
    return Cache(tmp_path / "cache", limit, 3)


@pytest.mark.parametrize("damage", ["no database", "a byte", "another table", "empty"])
def test_a_damaged_index_is_made_again_with_its_files(tmp_path: Path, remote: Folder, damage: str) -> None:
    folder = cache(tmp_path).bring(remote, asked(*range(10)))
    expected, index = tree(folder), tmp_path / "cache" / "index.sqlite"
    if damage == "a byte":
        data = bytearray(index.read_bytes())
        data[4096:4300] = b"\xff" * 204
        index.write_bytes(data)
    else:
        index.unlink()
        if damage == "another table":
            with closing(sqlite3.connect(index)) as connection:
                connection.execute("create table files (number integer)")
        else:
            index.write_bytes({"no database": b"x" * 5000, "empty": b""}[damage])
    assert cache(tmp_path).size() in (0, sum(map(len, expected.values())))
    assert tree(cache(tmp_path).bring(remote, asked(*range(10)))) == expected
    assert cache(tmp_path).size() == sum(map(len, expected.values()))


def test_label_files_first_then_the_pictures_that_are_asked_for(tmp_path: Path, remote: Folder) -> None:
    here = cache(tmp_path)
    root = here.bring(remote)
    assert tree(root).keys() == {"labels.csv", "images/notes.xml"}
    here.bring(remote, asked(2, 5, 2))
    assert tree(root).keys() == {"labels.csv", "images/notes.xml", *pictures(2, 5)}
    assert sorted(remote.fetched) == sorted(["labels.csv", "images/notes.xml", *pictures(2, 5)]), "each file once"
    assert here.size() == sum(map(len, tree(root).values()))


def test_a_second_call_fetches_nothing_and_with_known_content_does_not_even_ask(tmp_path: Path, remote: Folder) -> None:
    here = cache(tmp_path)
    here.bring(remote, asked(1, 2))
    before, listed = list(remote.fetched), remote.listed
    here.bring(remote, asked(1, 2))
    assert (remote.fetched, remote.listed) == (before, listed + 1)
    here.bring(remote, {path: hashlib.sha256((remote.root / path).read_bytes()).hexdigest() for path in asked(1, 2)})
    assert remote.listed == listed + 1


def test_changed_deleted_and_damaged_copies_are_put_right(tmp_path: Path, remote: Folder) -> None:
    here = cache(tmp_path)
    root = here.bring(remote)
    here.bring(remote, asked(1, 2, 3))
    (remote.root / "images" / "1.JPG").write_bytes(b"another picture")
    (remote.root / "labels.csv").unlink()
    (root / "images" / "2.JPG").write_bytes(b"cut")
    (root / "images" / "3.JPG").unlink()
    remote.fetched.clear()
    here.bring(remote, asked(1, 2, 3))
    assert sorted(remote.fetched) == pictures(1, 2, 3)
    assert {name: body for name, body in tree(root).items() if name.endswith("JPG")} == {
        path: (remote.root / path).read_bytes() for path in pictures(1, 2, 3)
    }
    assert not (root / "labels.csv").exists(), "a label file of old must not be read"


def test_missing_files_are_named_all_at_once_or_left_to_the_caller(tmp_path: Path, remote: Folder) -> None:
    here = cache(tmp_path)
    with pytest.raises(DataError) as caught:
        here.bring(remote, {**asked(1), "images/x.jpg": None, "images/y.jpg": None})
    assert [problem.what for problem in caught.value.problems] == [
        f"picture 'images/{name}.jpg' is not there any more" for name in "xy"
    ]
    assert remote.fetched == [], "nothing is fetched in vain"
    assert tree(here.bring(remote, {**asked(1), "images/x.jpg": None}, strict=False)).keys() == set(pictures(1))


def test_content_other_than_ingest_saw_is_an_error(tmp_path: Path, remote: Folder) -> None:
    wrong = dict.fromkeys(pictures(4), hashlib.sha256(b"something else").hexdigest())
    with pytest.raises(DataError, match="not the one that ingest saw"):
        cache(tmp_path).bring(remote, wrong)
    cache(tmp_path).bring(remote, wrong, strict=False)
    cache(tmp_path).bring(remote, asked(4))


def test_a_failure_keeps_what_came_and_leaves_no_half_file(tmp_path: Path, remote: Folder) -> None:
    here = cache(tmp_path)
    remote.broken = frozenset(pictures(7))
    with pytest.raises(DataError, match=r"the line is dead[\s\S]*of 10 files were fetched and are kept"):
        here.bring(remote, asked(*range(10)))
    root = tmp_path / "cache" / "made" / "shop"
    assert all((remote.root / name).read_bytes() == body for name, body in tree(root).items())
    assert "images/7.JPG" not in tree(root)
    remote.broken = frozenset()
    done = set(remote.fetched)
    remote.fetched.clear()
    assert tree(here.bring(remote, asked(*range(10)))) == {
        path: (remote.root / path).read_bytes() for path in pictures(*range(10))
    }
    assert len(done & set(remote.fetched)) <= here.connections, "what was recorded is not fetched again"


def test_the_longest_unused_copies_make_room(tmp_path: Path, remote: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("capnet.data.sources.cache.time.time", lambda: float(next(clock)))
    here = cache(tmp_path, limit=3000)
    other = Folder(remote.root, title="other")
    here.bring(remote, asked(0))
    here.bring(other, asked(1))
    here.bring(remote, asked(2))
    here.bring(remote, asked(0))  # used again, so it is not the oldest
    here.bring(remote, asked(3))
    assert tree(tmp_path / "cache" / "made" / "other") == {}, "the oldest went"
    assert tree(tmp_path / "cache" / "made" / "shop").keys() == set(pictures(0, 2, 3))
    assert here.size() == 3000
    here.bring(remote, asked(4, 5, 6))
    assert tree(tmp_path / "cache" / "made" / "shop").keys() == set(pictures(4, 5, 6))


def test_more_than_the_cache_may_hold_is_refused_before_anything_is_fetched(tmp_path: Path, remote: Folder) -> None:
    with pytest.raises(DataError, match=r"data\.cache_gigabytes"):
        cache(tmp_path, limit=2500).bring(remote, asked(1, 2, 3))
    assert remote.fetched == []


def test_a_file_where_a_folder_is_needed_is_a_message(tmp_path: Path, remote: Folder) -> None:
    here = cache(tmp_path)
    root = here.bring(remote)
    (root / "images" / "notes.xml").unlink()
    (root / "images").rmdir()
    (root / "images").write_bytes(b"in the way")
    with pytest.raises(DataError, match="cannot write a copy"):
        here.bring(remote, asked(1))


def _bring(root: str, workspace: str, numbers: tuple[int, ...]) -> None:
    Cache(Path(workspace), 10**9, 3).bring(Folder(Path(root)), asked(*numbers))


class Snapshot(Folder):
    """Keeps the cache's index as it is while files are fetched."""

    index: Path
    kept: Path

    def fetch(self, path: str, entry: Entry, target: Path) -> None:
        super().fetch(path, entry, target)
        shutil.copy(self.index, self.kept)


def test_a_killed_run_leaves_no_file_that_is_not_accounted_for(tmp_path: Path, remote: Folder) -> None:
    """As when the power goes after files reached their places: the index is what it was when they were fetched."""
    here = cache(tmp_path)
    here.bring(remote, asked(0))
    watched = Snapshot(remote.root)
    watched.index, watched.kept = tmp_path / "cache" / "index.sqlite", tmp_path / "index of old"
    root = here.bring(watched)
    assert tree(root).keys() == {*pictures(0), "labels.csv", "images/notes.xml"}
    shutil.copy(watched.kept, watched.index)
    assert here.size() == 1000, "what is announced only is not counted as copied"
    (remote.root / "labels.csv").unlink()
    here.bring(remote)
    assert tree(root).keys() == {*pictures(0), "images/notes.xml"}, (
        "the label file of old is gone, although its fetch was never recorded"
    )


def test_a_name_may_become_a_folder(tmp_path: Path, remote: Folder) -> None:
    here = cache(tmp_path)
    (remote.root / "labels").write_bytes(b"a file")
    here.bring(remote)
    (remote.root / "labels").unlink()
    (remote.root / "labels").mkdir()
    (remote.root / "labels" / "a.csv").write_bytes(b"below")
    assert tree(here.bring(remote))["labels/a.csv"] == b"below"


def test_processes_may_share_a_cache(tmp_path: Path, remote: Folder) -> None:
    context = multiprocessing.get_context("spawn")
    jobs = [
        context.Process(target=_bring, args=(str(remote.root), str(tmp_path / "cache"), numbers))
        for numbers in ((0, 1, 2, 3), (2, 3, 4, 5), (5, 6, 0))
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert tree(tmp_path / "cache" / "made" / "shop") == {
        path: (remote.root / path).read_bytes() for path in pictures(*range(7))
    }


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", "./a", "a\0b", "x" * 256, "é" * 130 + "/a"]
)
def test_names_that_are_no_path_below_a_folder(name: str) -> None:
    assert unsafe(name)


@pytest.mark.parametrize("name", ["a", "a/b.jpg", "..a/b..", "ä ö/日本.jpg", "a\\b", "x" * 255])
def test_names_that_are_fine(name: str) -> None:
    assert not unsafe(name)


def test_which_files_hold_labels() -> None:
    labels = ["labels.csv", "labels.csv.gz", "VOC2012/Annotations/1.xml", "annotations/i.json", "list", "m.parquet"]
    others = ["a.JPEG", "train.tar", "x.tar.gz", "scan.nii.gz", "v.mp4"]
    assert [name for name in [*labels, *others] if is_label_file(name)] == labels


def test_what_a_killed_fetch_left_under_a_name_of_dvcs_goes_and_its_own_part_stays(
    tmp_path: Path, remote: Folder
) -> None:
    unfinished = tmp_path / "cache" / "unfinished"
    unfinished.mkdir(parents=True)
    for name in (".0NmYFGGEIqUTBpfjbiOssQ.tmp", "5b3c"):
        (unfinished / name).write_bytes(b"half")
    cache(tmp_path).bring(remote, asked(1))
    assert tree(unfinished) == {"5b3c": b"half"}
