"""data.root: s3://BUCKET/PREFIX against a real server."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
from services.breaking_proxy import Weather, relaying
from services.s3_server import ACCESS, SECRET, S3Server

from capnet.config import Data
from capnet.data.sources.root import local_root
from capnet.data.sources.s3_source import S3Source
from capnet.errors import DataError
from capnet.serving.image_source import remote_images
from capnet.state import state_dir


def upload(s3: S3Server, bucket: str, files: dict[str, bytes]) -> None:
    client = s3.client()
    for key, body in files.items():
        client.put_object(Bucket=bucket, Key=key, Body=body)


def made(number: int, size: int = 5000) -> dict[str, bytes]:
    generator = random.Random(1)
    return {f"images/{k:03}.jpg": generator.randbytes(size) for k in range(number)}


def table(files: dict[str, bytes]) -> pd.DataFrame:
    return pd.DataFrame({"path": list(files), "sha256": [hashlib.sha256(body).hexdigest() for body in files.values()]})


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_only_what_is_asked_for_is_fetched(s3: S3Server, bucket: str) -> None:
    pictures, labels = made(20), {"labels.csv": b"path,labels\n", "deep/notes.txt": b"x", "empty.txt": b""}
    upload(
        s3,
        bucket,
        {f"set/{key}": body for key, body in (pictures | labels).items()} | {"other/labels.csv": b"not ours"},
    )
    settings = Data(root=f"s3://{bucket}/set/")
    location = Path(settings.root)
    root = local_root(settings, location)
    assert tree(root) == labels
    some = dict(list(pictures.items())[3:9])
    assert local_root(settings, location, table(some)) == root
    assert tree(root) == labels | some
    local_root(settings, location, pd.DataFrame({"path": list(pictures)}))
    assert tree(root) == labels | pictures


def test_a_replaced_and_a_deleted_object_are_noticed(s3: S3Server, bucket: str) -> None:
    upload(s3, bucket, {"labels.csv": b"one", "classes.csv": b"name"})
    settings = Data(root=f"s3://{bucket}")
    root = local_root(settings, Path(settings.root))
    upload(s3, bucket, {"labels.csv": b"two"})
    s3.client().delete_object(Bucket=bucket, Key="classes.csv")
    local_root(settings, Path(settings.root))
    assert tree(root) == {"labels.csv": b"two"}


def test_a_large_object_of_many_parts(s3: S3Server, bucket: str) -> None:
    body = os.urandom(20_000_000)
    s3.client().upload_fileobj(BytesIO(body), bucket, "big.json")
    settings = Data(root=f"s3://{bucket}")
    root = local_root(settings, Path(settings.root))
    assert (root / "big.json").read_bytes() == body


def test_a_wrong_secret_says_so(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(
        DataError, match=r"refuses the credentials \(SignatureDoesNotMatch\)[\s\S]*AWS_SECRET_ACCESS_KEY"
    ):
        local_root(Data(root=f"s3://{bucket}"), Path(f"s3://{bucket}"))


def test_without_credentials_it_says_where_they_were_looked_for(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(DataError, match=r"no credentials for S3 were found[\s\S]*AWS_PROFILE"):
        local_root(Data(root=f"s3://{bucket}"), Path(f"s3://{bucket}"))


def test_credentials_of_a_profile(s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(s3, bucket, {"labels.csv": b"x"})
    (tmp_path / "credentials").write_text(f"[team]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    assert tree(local_root(Data(root=f"s3://{bucket}"), Path(f"s3://{bucket}"))) == {"labels.csv": b"x"}
    monkeypatch.setenv("AWS_PROFILE", "others")
    with pytest.raises(DataError, match="others"):
        local_root(Data(root=f"s3://{bucket}"), Path(f"s3://{bucket}"))


def test_an_empty_prefix_says_so(s3: S3Server, bucket: str) -> None:
    upload(s3, bucket, {"birds-2/labels.csv": b"x"})
    for name in ("birds", "birds-2/labels.csv"):
        with pytest.raises(DataError, match=r"nothing is stored there[^|]*no single object") as caught:
            local_root(Data(root=f"s3://{bucket}/{name}"), Path(f"s3://{bucket}/{name}"))
        assert "data.root" not in str(caught.value)  # the address may also be that of predict's or label's --input


def test_hidden_images_of_a_prefix_are_not_labelled(s3: S3Server, bucket: str) -> None:
    upload(s3, bucket, {f"set/{name}": b"x" for name in ("a/b.jpg", "a/._b.jpg", ".Trashes/c.jpg", "d.mp4")})
    assert remote_images(Data(root=f"s3://{bucket}/set")).names == ["a/b.jpg"]


def test_pictures_that_are_gone_or_changed_since_ingest_are_named(s3: S3Server, bucket: str) -> None:
    pictures = made(6)
    rows = table(pictures)
    upload(s3, bucket, {**pictures, "images/001.jpg": b"another picture"})
    s3.client().delete_object(Bucket=bucket, Key="images/004.jpg")
    location, settings = Path(f"s3://{bucket}"), Data(root=f"s3://{bucket}")
    with pytest.raises(DataError, match=r"images/004.jpg' is not there any more"):
        local_root(settings, location, rows)
    with pytest.raises(DataError, match=r"images/001.jpg' is not the one that ingest saw"):
        local_root(settings, location, rows.drop(index=4))
    assert len(tree(local_root(settings, location, rows, strict=False))) == 5


def test_what_is_here_with_the_right_content_needs_no_server(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = made(5)
    upload(s3, bucket, pictures)
    location, settings = Path(f"s3://{bucket}"), Data(root=f"s3://{bucket}")
    local_root(settings, location, table(pictures))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert tree(local_root(settings, location, table(pictures))) == pictures
    (local_root(settings, location, table(pictures)) / "images" / "002.jpg").write_bytes(b"cut")
    with pytest.raises(DataError, match="does not answer"):
        local_root(settings, location, table(pictures))


def test_odd_names_come_through(s3: S3Server, bucket: str) -> None:
    files = {"ä b+c%20d#e.csv": b"1", "日本/labels.txt": b"2", ".hidden.csv": b"3"}
    upload(s3, bucket, {f"a set/{name}": body for name, body in files.items()} | {"a set/folder/": b""})
    assert tree(local_root(Data(root=f"s3://{bucket}/a set"), Path(f"s3://{bucket}/a set"))) == files


def test_a_server_that_dies_in_mid_download_and_comes_back(s3: S3Server, bucket: str) -> None:
    pictures = made(200, size=300_000)
    upload(s3, bucket, pictures)
    settings = Data(root=f"s3://{bucket}", connections=4)
    location = Path(settings.root)
    copies = state_dir("remote") / S3Source(settings.root, 1).folder / "images"
    failure: list[Exception] = []

    def fetch() -> None:
        try:
            local_root(settings, location, table(pictures))
        except DataError as error:
            failure.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    while not copies.is_dir() or len(list(copies.iterdir())) < 20:
        assert thread.is_alive(), failure
    s3.kill()
    thread.join()
    assert len(failure) == 1, "the server died before all was fetched"
    assert "of 200 files were fetched and are kept" in str(failure[0])
    assert "run the same command again" in str(failure[0])
    here = tree(copies.parent)
    assert 20 <= len(here) < 200
    assert all(pictures[name] == body for name, body in here.items()), "no half file under its name"
    before = {path: path.stat().st_mtime_ns for path in copies.iterdir()}
    s3.start()
    assert tree(local_root(settings, location, table(pictures))) == pictures
    kept = [path for path, time in before.items() if path.stat().st_mtime_ns == time]
    assert len(kept) >= len(before) - settings.connections, "what was there is not fetched again"


def test_a_large_object_goes_on_behind_each_broken_connection(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(12_000_000)
    s3.client().upload_fileobj(BytesIO(body), bucket, "annotations.json")
    weather = Weather(cut=3_000_000, cuts=3)
    with relaying(s3.port, weather) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        root = local_root(Data(root=f"s3://{bucket}"), Path(f"s3://{bucket}"))
    assert weather.cuts == 0
    assert (root / "annotations.json").read_bytes() == body
    assert weather.passed < len(body) + 1_000_000, "what came before a break is not fetched again"


def test_a_missing_bucket_says_so(s3: S3Server) -> None:
    with pytest.raises(DataError, match="no such bucket"):
        local_root(Data(root="s3://nowhere/at/all"), Path("s3://nowhere/at/all"))
