"""Hostile image files through the door that all images take, and through a request to a served model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from faults.bounded import bounded
from faults.hostile_images import damaged, made

from capnet.config import Tte
from capnet.data.checks.files import open_image_file
from capnet.data.images.image_files import inspect_image
from capnet.data.images.transform import Transform
from capnet.errors import DataError
from capnet.serving.request import Clock, Limits, request_files

EACH = 60 if os.environ.get("FAULTS") == "all" else 8  # damaged files of each format
pytestmark = pytest.mark.filterwarnings("ignore")


def cases() -> Iterator[tuple[str, bytes]]:
    yield from made()
    yield from damaged(EACH)


def test_every_hostile_image_is_views_or_a_reason_in_bounded_time_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path, wrong, peak = tmp_path / "a.jpg", [], (0, 0.0)
    for name, content in cases():
        path.write_bytes(content)

        def call(content: bytes = content) -> None:
            opened = open_image_file(path.name, str(tmp_path), full=True, dhashes=True)
            faults = {inspect_image(path).fault, opened.fault}
            try:
                Transform(224, (0.5,) * 3, (0.5,) * 3, "bicubic", Tte()).tensor(tmp_path, path.name, "0" * 64)
                is_good = True
            except DataError:
                is_good = False
            assert not is_good or faults == {""}, "what training takes, ingest took"
            request_files(pd.DataFrame({"image": [content]}), tmp_path / "rows", Clock(Limits()))

        outcome = bounded(call)
        peak = max(peak[0], outcome.megabytes), max(peak[1], outcome.seconds)
        if not (outcome.is_bounded and outcome.has_three_parts):
            wrong.append(f"{name}: {outcome}")
    print(f"{len(list(cases()))} images, at most {peak[0]} MB and {peak[1]:.1f} s")
    assert not wrong
    assert not list(Path().iterdir())
