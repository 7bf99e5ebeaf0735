"""The champion's scores of pictures that only a candidate was tested on."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.workspace import draw
from unit.stores import Make

from capnet.config import Runtime
from capnet.contracts import read_split, write_split
from capnet.errors import CapnetError, DataError
from capnet.serving import rescore
from capnet.serving.engine import load_served


def test_a_champion_scores_the_pictures_of_the_split_and_no_others(
    make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, version, data = make_outputs(), tmp_path / "version", tmp_path / "data"
    shutil.copytree(paths["model"], version / "model")
    shutil.copy(paths["evaluation"] / "thresholds.json", version)
    for number in range(3):
        draw(data / f"{number}.jpg", ["lemon"], random.Random(number))
    files = sorted(data.iterdir())
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    table = read_split(paths["split"] / "split.parquet").iloc[:3]
    write_split(paths["split"] / "split.parquet", table.assign(sha256=hashes, path=[path.name for path in files]))
    monkeypatch.setattr(rescore, "download", lambda asked, folder: version)
    champion: Any = None  # nothing but its files is asked for
    score = rescore.rescorer(champion, Runtime(), data, paths["split"])
    rows = table[["image_id"]].assign(sha256=hashes[::-1])
    served = load_served(version / "model", version / "thresholds.json")
    np.testing.assert_allclose(score(rows), served.scores(files[::-1]), atol=1e-6)
    files[1].write_bytes(files[0].read_bytes())
    files[2].unlink()
    with pytest.raises(DataError) as caught:
        score(rows)
    assert [problem.where for problem in caught.value.problems] == [str(files[2]), str(files[1])]
    assert "another file than ingest saw" in str(caught.value)
    with pytest.raises(DataError, match="1 test images of the candidate are not in this split"):
        score(rows.assign(sha256=["0" * 64, *hashes[:2]]))
    files[2].symlink_to("/proc/self/mem")  # reading its start is an input/output error
    with pytest.raises(CapnetError, match="Input/output error") as outage:
        score(rows)
    assert outage.value.exit_code == 1
