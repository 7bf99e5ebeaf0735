"""What a request may bring: paths only below a folder that was named, nothing that tells what lies on the disk, and no
more than the limits allow.
"""

from __future__ import annotations

import base64
import errno
import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from capnet.data.images.image_files import ImageFile
from capnet.errors import CapnetError, ConfigError, DataError
from capnet.serving import request
from capnet.serving.request import Clock, Limits, TooSlow, read_limits, request_files


def png(width: int = 8, height: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 8, 7)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows").mkdir()
    return tmp_path / "rows"


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """A folder with an image, a text, a damaged image and a link to what lies outside of it."""
    root = tmp_path / "the.root"  # no path with a dot is base64, whatever its length
    (root / "below").mkdir(parents=True)
    (root / "good.png").write_bytes(png())
    (root / "below" / "good.png").write_bytes(png())
    (root / "secret.txt").write_text("the secret")
    (root / "cut.png").write_bytes(png()[:40])
    (tmp_path / "outside.png").write_bytes(png())
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    os.mkfifo(root / "pipe.png")
    return root


def refusal(value: object, folder: Path, limits: Limits | None = None) -> str:
    clock = Clock(limits or Limits())
    with pytest.raises(DataError) as caught:
        request_files(pd.DataFrame({"image": pd.Series([value], dtype=object)}), folder, clock)
    return str(caught.value)


def everything(hidden: Path) -> list[str]:
    names = ["good.png", "secret.txt", "cut.png", "link.png", "pipe.png", "below", "gone.png", "../outside.png"]
    return [
        *(str(hidden / name) for name in names),
        *names,
        "/etc/passwd",
        "/proc/kmsg",
        "/dev/zero",
        "/no/such.png",
        "~",
    ]


def test_without_a_root_no_path_is_opened_and_no_answer_tells_what_is_there(
    hidden: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hidden)
    refusals = {refusal(path, folder).replace(repr(path[:60]), "...") for path in everything(hidden)}
    assert len(refusals) == 1, refusals
    assert "neither an image in base64 nor a file below CAPNET_SERVE_ROOT" in refusals.pop()
    assert list(folder.iterdir()) == []


def test_below_a_root_images_are_read_and_all_else_looks_alike(hidden: Path, folder: Path) -> None:
    limits = Limits(root=str(hidden))
    named = ["good.png", "below/good.png", str(hidden / "good.png")]
    files = request_files(pd.DataFrame({"image": named}), folder, Clock(limits))
    assert [path.read_bytes() for path in files] == [png()] * 3
    assert all(path.parent == folder for path in files), "later steps see a copy, which nobody can swap"
    refused = [path for path in everything(hidden) if "good" not in path]
    started = time.monotonic()
    assert len({refusal(path, folder, limits).replace(repr(path[:60]), "...") for path in refused}) == 1
    assert time.monotonic() - started < 2, "a pipe is not waited for"


def test_no_answer_shows_which_links_lie_outside_the_root(hidden: Path, folder: Path) -> None:
    """A name may leave the root and come back, through a link or through nothing at all."""
    limits = Limits(root=str(hidden))
    (hidden.parent / "link").symlink_to(folder)
    for way in ("link", "gone", "outside.png"):
        named = [f"../{way}/../the.root/good.png", f"{hidden.parent}/{way}/../the.root/good.png"]
        assert len(request_files(pd.DataFrame({"image": named}), folder, Clock(limits))) == 2, way
    (hidden.parent / "in").symlink_to(hidden)
    ways = ["../in/good.png", "../gone/good.png", f"{hidden.parent}/in/good.png", f"{hidden.parent}/gone/good.png"]
    assert len({refusal(way, folder, limits).replace(repr(way[:60]), "...") for way in ways}) == 1


def test_an_image_that_the_machine_does_not_read_is_no_fault_of_the_request(
    hidden: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 400 would say of a good image that there is none, and whoever sent it would not try again."""
    original = os.open

    def stale(path: Path, flags: int, *more: int) -> int:
        if str(path).startswith(str(hidden)):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return original(path, flags, *more)

    monkeypatch.setattr("os.open", stale)
    good, root = base64.b64encode(png()).decode(), Clock(Limits(root=str(hidden)))
    assert request_files(pd.DataFrame({"image": [good]}), folder, root), "needs no file of the root"
    with pytest.raises(OSError, match="Stale"):
        request_files(pd.DataFrame({"image": ["good.png"]}), folder, root)
    unread = ImageFile(fault="too many open files", is_transient=True)
    monkeypatch.setattr(request, "inspect_image", lambda path: unread)
    with pytest.raises(CapnetError, match="too many open files", check=lambda error: type(error) is CapnetError):
        request_files(pd.DataFrame({"image": [png()]}), folder, root)


def test_a_root_may_be_a_link(hidden: Path, folder: Path) -> None:
    root = hidden.parent / "a.link"
    root.symlink_to(hidden)
    named = ["good.png", str(root / "good.png"), str(hidden / "below" / "good.png")]
    assert len(request_files(pd.DataFrame({"image": named}), folder, Clock(Limits(root=str(root))))) == 3


def test_fifty_requests_that_name_what_blocks_do_not_stop_the_next(hidden: Path, folder: Path) -> None:
    limits, ended = Limits(root=str(hidden)), []

    def ask(number: int) -> None:
        own = folder / str(number)
        own.mkdir()
        refusal("pipe.png" if number % 2 else "/proc/kmsg", own, limits)
        ended.append(number)

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(50)]
    for thread in threads:
        thread.start()
    assert len(request_files(pd.DataFrame({"image": [png()]}), folder, Clock(limits))) == 1
    for thread in threads:
        thread.join(timeout=20)
    assert len(ended) == 50


@pytest.mark.parametrize(
    ("limits", "values", "words"),
    [
        ({"images": 3}, [png()] * 4, "more than 3 images"),
        ({"images": 3}, [[png()] * 1000], "more than 3 images"),
        ({"megabytes": 0.0001}, [png(), png()], "row 1"),
        ({"megabytes": 0.0001}, ["AAAA" * 50], "0.0001 million bytes of images"),
        ({"megapixels": 0.01}, [png(), png(101, 100)], "101 x 100 is more than 0.01 million pixels"),
    ],
)
def test_a_request_beyond_a_limit_is_refused_with_its_name(
    folder: Path, limits: dict[str, float], values: list[object], words: str
) -> None:
    with pytest.raises(DataError, match="CAPNET_SERVE_") as caught:
        request_files(pd.DataFrame({"image": values}), folder, Clock(Limits(**limits)))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("value", "todo"),
    [
        (png(101, 100), "send a smaller image; the limit is CAPNET_SERVE_MEGAPIXELS of the server"),
        (png(90, 90) + bytes(3000), "send fewer or smaller images; the limit is CAPNET_SERVE_MEGABYTES of the server"),
        (png(2000, 2), "crop it, make it smaller (at most 0.01 million pixels), or save it anew as JPEG or PNG"),
        (png()[:-30], "send the whole file: this one is cut or damaged"),
        (b"no image", "send the bytes of an image file or their base64"),
        ("a.jpg", "send the bytes of an image file or their base64"),
    ],
)
def test_each_fault_says_what_helps(folder: Path, value: object, todo: str) -> None:
    text = refusal(value, folder, Limits(megapixels=0.01, megabytes=0.003))
    assert text.splitlines()[-1] == f"  to do: {todo}"


@pytest.mark.parametrize("content", [b"not for the log", png()[:-30], png(2000, 2)])
def test_of_base64_a_refusal_says_the_size_alone(folder: Path, content: bytes) -> None:
    """The server's log keeps it."""
    for kind in ("", "data:image/png;base64,"):
        text = refusal(kind + base64.b64encode(content).decode(), folder)
        assert f": {len(content)} bytes\n" in text
        assert base64.b64encode(content[:15]).decode() not in text


def test_a_name_that_is_base64_as_well_says_the_same_with_and_without_a_file(hidden: Path, folder: Path) -> None:
    limits = Limits(root=str(hidden))
    before = refusal("abcd", folder, limits)
    (hidden / "abcd").write_text("no image")
    assert refusal("abcd", folder, limits) == before


def test_a_file_below_the_root_is_read_no_further_than_the_limit(hidden: Path, folder: Path) -> None:
    with open(hidden / "huge.png", "wb") as file:
        file.truncate(1 << 40)
    started = time.monotonic()
    assert "neither an image" in refusal("huge.png", folder, Limits(root=str(hidden), megabytes=1))
    assert time.monotonic() - started < 2


def test_a_request_has_its_time_and_no_more(folder: Path) -> None:
    limits = Limits(seconds=0.2)
    clock = Clock(limits)
    request_files(pd.DataFrame({"image": [png()]}), folder, clock)
    time.sleep(0.25)
    with pytest.raises(TooSlow, match=r"0\.2 seconds"):
        request_files(pd.DataFrame({"image": [png()]}), folder, clock)


def test_limits_come_from_the_environment_and_wrong_ones_are_all_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert read_limits() == Limits()
    for name, value in {"ROOT": str(tmp_path), "IMAGES": "5", "SECONDS": "1.5"}.items():
        monkeypatch.setenv(f"CAPNET_SERVE_{name}", value)
    assert read_limits() == Limits(root=str(tmp_path), images=5, seconds=1.5)
    monkeypatch.setenv("CAPNET_SERVE_IMAGES", "many")
    monkeypatch.setenv("CAPNET_SERVE_SECONDS", "-1")
    with pytest.raises(ConfigError) as caught:
        read_limits()
    assert {problem.what.partition(" ")[0] for problem in caught.value.problems} == {
        "CAPNET_SERVE_IMAGES",
        "CAPNET_SERVE_SECONDS",
    }


def test_a_root_that_is_no_folder_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAPNET_SERVE_ROOT", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="is no folder"):
        read_limits()


@pytest.mark.parametrize(
    "make",
    [lambda: {"a": 1}, lambda: [[["x"]]], lambda: 1e300, lambda: True, lambda: "\ud800", lambda: "A" * 10_000_001],
)
def test_any_other_value_is_refused_in_words(folder: Path, make: Callable[[], object]) -> None:
    with pytest.raises(CapnetError):
        request_files(pd.DataFrame({"image": pd.Series([make()], dtype=object)}), folder, Clock(Limits()))


def test_base64_for_addresses_is_read_as_well(folder: Path) -> None:
    content = png() + bytes(-len(png()) % 3) + b"\xfb\xef\xbe\xff\xff\xff"  # no decoder reads what follows an image
    text = base64.urlsafe_b64encode(content).decode()
    assert {"-", "_"} <= set(text)
    (file,) = request_files(pd.DataFrame({"image": [text]}), folder, Clock(Limits()))
    assert file.read_bytes() == content


def test_a_long_text_that_is_no_base64_takes_no_time(folder: Path) -> None:
    """All threads wait where a text is translated that is not ASCII: 0.2 s for a million letters."""
    text = "a" * 20_000_000 + "\U0001f600"
    started = time.monotonic()
    assert "neither an image in base64" in refusal(text, folder)
    assert time.monotonic() - started < 1.5
    (file,) = request_files(
        pd.DataFrame({"image": [f"data:image/png;name=ä;base64,{base64.b64encode(png()).decode()}"]}),
        folder,
        Clock(Limits()),
    )
    assert file.read_bytes() == png(), "what stands before the comma may be any text"


@pytest.mark.parametrize("extra", [b"", b"\xff", b"\xff\xff"])
def test_base64_for_addresses_is_read_without_its_padding(folder: Path, extra: bytes) -> None:
    content = png() + bytes(-len(png()) % 3) + extra
    text = base64.urlsafe_b64encode(content).decode().rstrip("=")
    for value in (text, f"data:image/png;base64,{text}"):
        (file,) = request_files(pd.DataFrame({"image": [value]}), folder, Clock(Limits()))
        assert file.read_bytes() == content


def test_requests_wait_for_their_turn_until_their_time_is_over() -> None:
    turns = threading.BoundedSemaphore(1)
    with Clock(Limits()).turn(turns):
        started = time.monotonic()
        with pytest.raises(TooSlow, match=r"no turn within 0\.2 seconds"), Clock(Limits(seconds=0.2)).turn(turns):
            pytest.fail("two at once")
        assert 0.2 <= time.monotonic() - started < 2
    with pytest.raises(ZeroDivisionError), Clock(Limits()).turn(turns):
        _ = 1 / 0
    with Clock(Limits(seconds=0.2)).turn(turns):
        pass


def test_our_time_is_over_before_that_of_mlflow() -> None:
    from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT

    assert Limits().seconds <= MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get() - 10, "else its 504 hides our 503"
