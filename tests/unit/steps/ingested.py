"""Three pictures with a table, and the ingest stage on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capnet.config import Data, Ingest, Params
from capnet.errors import DataError
from capnet.stages import run


def picture(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for number, name in enumerate(("a.jpg", "b.png", "c.jpg")):
        picture(root / "images" / name, 40 + number, 30, number)
    (root / "labels.csv").write_text("path,labels,group\nimages/c.jpg,dog|cat,g\nimages/a.jpg,,\nimages/b.png,cat,g\n")
    return root


def ingest(data: Path, out: Path, links: str = "inside", kind: str = "csv", **settings: Any) -> dict[str, float]:
    params = Params(data=Data.model_validate({"links": links, "format": kind}), ingest=Ingest.model_validate(settings))
    return run("ingest", params, {"data": data}, {"manifest": out})


def refused(data: Path, out: Path, **settings: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        ingest(data, out, **settings)
    assert caught.value.exit_code == 3
    assert not out.exists()
    assert [path for path in out.parent.iterdir() if path != data] == []  # nothing half-written
    return [str(problem) for problem in caught.value.problems]
