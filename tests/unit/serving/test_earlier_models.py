"""A registered model runs the copy of ``pyfunc.py`` that was registered with it, in today's program: what such a copy
calls must go on to work as it is called there.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from capnet.errors import DataError
from capnet.serving.request import Clock, Limits, TooSlow, read_limits, request_files

CALLS: dict[str, Callable[[], Sequence[Clock | Limits]]] = {
    "clock": lambda: [Clock(read_limits())],
    "limits and clock": lambda: [limits := read_limits(), Clock(limits)],
    "neither": list,
}


def request_of(images: int) -> pd.DataFrame:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 8, 7)).save(buffer, format="PNG")
    return pd.DataFrame({"image": [base64.b64encode(buffer.getvalue()).decode()] * images})


@pytest.mark.parametrize("call", CALLS)
def test_a_request_is_read_as_versions_since_26_november_2026_ask_for_it(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNET_SERVE_IMAGES", "2")
    files = request_files(request_of(2), tmp_path, *CALLS[call]())
    assert [Image.open(file).size for file in files] == [(8, 8)] * 2
    with pytest.raises(DataError, match="more than 2 images"):
        request_files(request_of(3), tmp_path, *CALLS[call]())


def test_the_time_of_an_earlier_versions_request_is_limited(tmp_path: Path) -> None:
    limits = Limits(seconds=0.001)
    clock = Clock(limits)
    time.sleep(0.01)
    with pytest.raises(TooSlow):
        request_files(request_of(1), tmp_path, limits, clock)
