"""The hash of a folder is the one that `dvc add` writes, whatever the names in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from capnet.contracts import tree_hash

NAMES = [
    "a/b/x.txt",
    "a-b/y",
    "a.txt",
    "a b/c",
    "B",
    "Z/z",
    "ü/é f.jpg",
    "空.jpg",
    ".hidden",
    "images/10.jpg",
    "images/9.jpg",
    'quote".txt',
    "a/b-c/x",
]


def test_as_dvc_add_writes_it(tmp_path: Path) -> None:
    folders = {"many": NAMES, "one": NAMES[:1], "data": ["labels.csv", "images/0001.jpg"]}
    for folder, names in folders.items():
        for number, name in enumerate(names):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(b"\r\n%d" % number if number else b"")
        (tmp_path / folder / "empty folder").mkdir()
    environment = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(tmp_path / "home"),
    }
    for command in (["init", "-q", "--no-scm"], ["add", "-q", *folders]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, env=environment, check=True)
    for folder, names in folders.items():
        (out,) = yaml.safe_load((tmp_path / f"{folder}.dvc").read_text())["outs"]
        assert tree_hash(tmp_path / folder) == out["md5"]
        assert out["nfiles"] == len(names)


def test_any_change_changes_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = tree_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = tree_hash(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, tree_hash(tmp_path)}) == 3
