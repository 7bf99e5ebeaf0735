"""data.root: s3://BUCKET/PREFIX against a real server."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pandas as pd
import pytest
from services.s3_server import S3Server

from capnet.config import Data
from capnet.data.roots import local_root
from capnet.errors import DataError


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))


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
    upload(s3, bucket, {f"set/{key}": body for key, body in (pictures | labels).items()} | {"other/labels.csv": b"not ours"})
    settings = Data(root=f"s3://{bucket}/set/")
    given = Path(settings.root)
    root = local_root(settings, given)
    assert tree(root) == labels
    some = dict(list(pictures.items())[3:9])
    assert local_root(settings, given, table(some)) == root
    assert tree(root) == labels | some
    local_root(settings, given, pd.DataFrame({"path": list(pictures)}))
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
    from io import BytesIO

    s3.client().upload_fileobj(BytesIO(body), bucket, "big.json")
    settings = Data(root=f"s3://{bucket}")
    root = local_root(settings, Path(settings.root))
    assert (root / "big.json").read_bytes() == body


def test_a_wrong_secret_says_so(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(DataError, match=r"refuses the credentials \(SignatureDoesNotMatch\)[\s\S]*AWS_SECRET_ACCESS_KEY"):
        local_root(Data(root=f"s3://{bucket}"), Path(f"s3://{bucket}"))


def test_a_missing_bucket_says_so(s3: S3Server) -> None:
    with pytest.raises(DataError, match="no such bucket"):
        local_root(Data(root="s3://nowhere/at/all"), Path("s3://nowhere/at/all"))
