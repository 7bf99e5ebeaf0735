"""What data.root may name."""

from __future__ import annotations

import hashlib
import itertools
import sys
import tarfile
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
from unit.data.sources.test_cache import Folder

from capnet.config import Data
from capnet.data.images.shards import add_member, read_bytes
from capnet.data.sources import root as roots
from capnet.data.sources.dvc_versions import DvcSource, Version, listed_files, recorded_version, repository_url
from capnet.data.sources.remote import split_uri
from capnet.data.sources.root import is_remote, kind_of, local_root
from capnet.data.sources.s3_source import S3Source
from capnet.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("root", "kind"),
    [
        ("data", "folder"),
        ("/mnt/pictures", "folder"),
        ("data.git", "folder"),
        ("s3://bucket", "s3"),
        ("git+https://host/team/pictures", "git"),
        ("git+ssh://git@host/pictures.git", "git"),
        ("git@host:team/pictures.git", "git"),
        ("https://host/team/pictures.git", "git"),
        ("git+/srv/pictures", "git"),
    ],
)
def test_kinds(root: str, kind: str) -> None:
    assert kind_of(root) == kind


def test_of_pictures_in_shards_their_shards_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Folder(tmp_path / "remote")
    remote.root.mkdir()
    rows = []
    for shard in ("a.tar", "b.tar"):
        with tarfile.open(remote.root / shard, "w") as tar:
            for number in range(3):
                content = f"{shard} {number}".encode()
                add_member(tar, f"{number}.jpg", content)
                rows.append((f"{shard}/{number}.jpg", hashlib.sha256(content).hexdigest()))
    (remote.root / "folder.tar").mkdir()
    for name in ("plain.jpg", "folder.tar/plain.jpg"):
        (remote.root / name).write_bytes(name.encode())
        rows.append((name, hashlib.sha256(name.encode()).hexdigest()))
    monkeypatch.setattr(roots, "open_source", lambda settings: nullcontext(remote))
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    settings, table = Data(root="s3://bucket/x"), pd.DataFrame(rows, columns=["path", "sha256"])
    workspace = local_root(settings, Path(settings.root), table)
    assert sorted(remote.fetched) == ["a.tar", "b.tar", "folder.tar/plain.jpg", "plain.jpg"]
    assert [hashlib.sha256(read_bytes(workspace / path)).hexdigest() for path, _ in rows] == [
        content for _, content in rows
    ]
    table.loc[6:, "sha256"] = "0" * 64
    with pytest.raises(DataError) as caught:
        local_root(settings, Path(settings.root), table)
    assert [problem.what.split("'")[1] for problem in caught.value.problems] == ["plain.jpg", "folder.tar/plain.jpg"]


@pytest.mark.parametrize(("root", "package"), [("s3://bucket/x", "boto3"), ("git+https://host/a", "dvc")])
def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, root: str, package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package] or [package]:
        monkeypatch.setitem(sys.modules, name, None)
    expected = pytest.raises(ConfigError, match=rf"needs the package {package}[\s\S]*capnet\[data\]")
    with expected, roots.open_source(Data(root=root)) as source:
        source.entries()


@pytest.mark.parametrize("root", ["gs://bucket", "https://host/pictures.zip", "azure://x"])
def test_another_address_says_what_is_allowed(root: str) -> None:
    with pytest.raises(ConfigError, match="s3://BUCKET/PREFIX"):
        local_root(Data(root=root), Path(root))


def test_a_folder_is_left_alone_and_a_folder_that_is_given_wins(tmp_path: Path) -> None:
    assert local_root(Data(root="data"), Path("elsewhere")) == Path("elsewhere")
    assert local_root(Data(root="s3://bucket/x"), tmp_path) == tmp_path
    assert is_remote(Data(root="s3://bucket/x"), Path("s3://bucket/x"))
    assert not is_remote(Data(root="s3://bucket/x"), tmp_path / "nothing"), (
        "a folder that is not there is a mistake to be told"
    )
    (tmp_path / "source.json").write_text("{}")
    assert is_remote(Data(root="s3://bucket/x"), tmp_path)


@pytest.mark.parametrize(
    ("uri", "parts"),
    [("s3://b-1.x", ("b-1.x", "")), ("s3://bucket/a/b/", ("bucket", "a/b")), ("s3://bucket//a", ("bucket", "a"))],
)
def test_bucket_and_prefix(uri: str, parts: tuple[str, str]) -> None:
    assert split_uri(uri) == parts


@pytest.mark.parametrize("uri", ["s3://", "s3:///a"])
def test_an_address_without_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"(?s)names no bucket.*BUCKET") as caught:
        split_uri(uri)
    assert caught.value.problems[0].where == uri, "it may be --input of predict, too"


@pytest.mark.parametrize(
    ("uri", "bucket"),
    [("s3://../a", ".."), ("s3://b/", "b"), ("s3://xy", "xy"), ("s3://a b c/x", "a b c"), ("s3://-bucket", "-bucket")],
)
def test_a_bucket_that_cannot_exist_is_refused_by_its_name(uri: str, bucket: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split_uri(uri)
    (problem,) = caught.value.problems
    assert (problem.what, problem.where) == (f"{bucket!r} can be no bucket's name", uri)
    assert "3 to 255 letters" in problem.todo
    assert split_uri("s3://xyz") == ("xyz", "")


def test_copies_of_different_roots_lie_apart_and_below_the_cache() -> None:
    roots = ["git+https://host/a", "git+https://host/b", "git+https://user:secret@host/a", "git+/../../etc"]
    folders = [DvcSource(root).folder for root in roots] + [
        DvcSource(roots[0], path="other").folder,
        S3Source("s3://bucket/../../x", 1).folder,
    ]
    assert len(set(folders)) == len(folders)
    for folder in folders:
        assert not folder.is_absolute()
        assert ".." not in folder.parts
    nested = [S3Source(root, 1).folder for root in ("s3://bucket", "s3://bucket/birds", "s3://bucket/birds/small")]
    for one, other in itertools.permutations([*folders, *nested], 2):
        assert not one.is_relative_to(other), "one file would be a copy of two roots, and deleted with either"
    assert S3Source("s3://bucket/birds/", 1).folder == nested[1]
    assert "secret" not in str(folders[2]) + DvcSource(roots[2]).name, (
        "a password must not become a folder's name or stand in a message"
    )


def test_addresses_for_git() -> None:
    assert repository_url("git+https://host/a") == "https://host/a"
    assert repository_url("git+file:///srv/a") == "/srv/a"
    assert repository_url("git@host:a.git") == "git@host:a.git"


@pytest.mark.parametrize("text", ["", "outs: []", "outs:\n- path: data\n", "[1", "outs:\n- md5: a\n  nfiles: many\n"])
def test_a_dvc_file_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.dvc").write_text(text)
    assert recorded_version(tmp_path / "data") is None


def test_what_a_dvc_file_says(repository: Path) -> None:
    version = recorded_version(repository / "data")
    assert version is not None
    assert version.md5.endswith(".dir")
    assert version.files > 1
    assert version.object_name == f"files/md5/{version.md5[:2]}/{version.md5[2:]}"


def test_a_damaged_list_of_files_is_none(tmp_path: Path) -> None:
    version = Version("0" * 32 + ".dir", 2, 9)
    path = tmp_path / ".dvc/cache" / version.object_name
    path.parent.mkdir(parents=True)
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    for text in ("", "[{}]", "[1]", "5", '["a"]', "[" * 100_000, '[{"relpath": "a.j'):
        path.write_text(text)
        assert listed_files(tmp_path, version) is None, text[:20]
    path.write_text('[{"md5": "0", "relpath": "a.jpg"}]')
    assert listed_files(tmp_path, version) == ["a.jpg"]


@pytest.mark.parametrize("uri", ["s3://user:hunter2pass@bucket/x", "s3://AKIAABCDEFGHIJKLMNOP:hunter2pass@bucket/x"])
def test_a_password_in_an_address_of_s3_is_not_shown(uri: str) -> None:
    with pytest.raises(ConfigError, match="names no user") as caught:
        split_uri(uri)
    assert "hunter2pass" not in str(caught.value)
