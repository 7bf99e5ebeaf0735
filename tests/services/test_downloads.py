"""`capnet download` against a server that breaks connections."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from services.breaking_http import Manners, serving

from capnet.cli import main
from capnet.data.sources import downloads
from capnet.data.sources.downloads import Archive, Benchmark, download, fetch_benchmark
from capnet.errors import CapnetError, DataError

BODY = random.Random(0).randbytes(3_000_000)
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "LONGEST_WAIT", 0.01)


def test_a_download_goes_on_where_it_broke(tmp_path: Path) -> None:
    manners = Manners({"/a.tar": BODY}, cut=700_000, cuts=4)
    with serving(manners) as url:
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == BODY
    starts = [int(byte_range.removeprefix("bytes=").removesuffix("-")) for _, byte_range in manners.requests]
    assert starts == sorted(set(starts)), "each attempt goes on behind the one before"
    assert len(BODY) <= manners.sent <= len(BODY) + 4 * downloads.CHUNK, "what came is kept but for the last piece"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_a_later_run_goes_on_and_a_finished_file_is_not_asked_for(tmp_path: Path) -> None:
    manners = Manners({"/a.tar": BODY})
    with serving(manners) as url:
        (tmp_path / "a.tar.part").write_bytes(BODY[:2_500_000])
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)
        assert manners.sent == 500_000
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)
    assert len(manners.requests) == 1


def test_a_whole_part_needs_a_rename_only(tmp_path: Path) -> None:
    manners = Manners({"/a.tar": BODY})
    with serving(manners) as url:
        (tmp_path / "a.tar.part").write_bytes(BODY)
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)
    assert manners.sent == 0
    assert (tmp_path / "a.tar").read_bytes() == BODY


def test_a_server_without_ranges_starts_anew(tmp_path: Path) -> None:
    manners = Manners({"/a.tar": BODY}, cut=1_000_000, cuts=2, ranges=False)
    with serving(manners) as url:
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == BODY


def test_busy_answers_are_waited_for(tmp_path: Path) -> None:
    with serving(Manners({"/a.tar": BODY}, errors=2)) as url:
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == BODY


@pytest.mark.parametrize("left", [b"x" * 1000, b"y" * len(BODY), b"z" * (len(BODY) + 5)])
def test_the_rest_of_another_file_is_replaced(tmp_path: Path, left: bytes) -> None:
    with serving(Manners({"/a.tar": BODY})) as url:
        (tmp_path / "a.tar.part").write_bytes(left)
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == BODY


def test_other_bytes_are_refused_and_removed(tmp_path: Path) -> None:
    with serving(Manners({"/a.tar": BODY[:-1] + b"?"})) as url, pytest.raises(DataError, match=f"expected is {MD5}"):
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_always_breaks_is_given_up_and_the_bytes_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.tar.part").write_bytes(BODY[:1000])
    with (
        serving(Manners({"/a.tar": BODY}, cut=0, cuts=10**6)) as url,
        pytest.raises(DataError, match="broke off 6 times") as caught,
    ):
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)
    assert "goes on from there" in str(caught.value)
    assert (tmp_path / "a.tar.part").read_bytes() == BODY[:1000]


def test_a_missing_file_and_a_missing_server_are_named(tmp_path: Path) -> None:
    with serving(Manners({})) as url, pytest.raises(DataError, match="404"):
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)
    with pytest.raises(DataError, match=url):
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5)


class _Hostile(BaseHTTPRequestHandler):
    """Answers with headers and bodies that no honest server sends."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        status, headers, body = HOSTILE[self.path[1:]]
        self.send_response(206 if self.path == "/restarts" and self.headers["Range"] == "bytes=0-" else status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            for _ in range(300 if body else 0):
                self.wfile.write(body)


HOSTILE = {
    "digits": (206, {"Content-Range": "bytes 0-1/" + "9" * 5000}, b""),
    "superscript": (206, {"Content-Range": "bytes 0-1/\u00b2"}, b""),
    "endless": (200, {}, bytes(2**20)),
    "bomb": (200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(2**20))),
    "restarts": (416, {"Content-Range": "bytes 0-9/10000"}, b"x"),
    "later": (503, {"Retry-After": "99999999", "Content-Length": "0"}, b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_server_is_refused_before_it_fills_the_disk(name: str, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, most = f"http://127.0.0.1:{server.server_port}/{name}", 10 * 2**20
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(download, url, tmp_path / "a.tar", MD5, 10 * 2**20)
        error = written.exception(timeout=20)
    server.shutdown()
    assert isinstance(error, DataError)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= most + downloads.CHUNK


def test_no_more_is_written_than_the_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(downloads, "md5_file", lambda path: sizes.append(path.stat().st_size) or "")
    with serving(Manners({"/a.tar": BODY})) as url, pytest.raises(DataError, match="it was removed"):
        download(f"{url}/a.tar", tmp_path / "a.tar", MD5, 100_000)
    assert sizes
    assert max(sizes) <= 100_000 + downloads.CHUNK


def made_benchmark() -> tuple[dict[str, bytes], Benchmark]:
    """A tar and a zip that fill one folder together, as VOC2007's two archives do."""
    tar, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as packed:
        for name in ("VOCdevkit/VOC2007/Annotations/1.xml", "VOCdevkit/VOC2007/JPEGImages/1.jpg"):
            item = tarfile.TarInfo(name)
            item.size = 9
            packed.addfile(item, io.BytesIO(b"from tar\n"))
    with zipfile.ZipFile(zipped, "w") as packed_zip:
        packed_zip.writestr("VOCdevkit/VOC2007/Annotations/2.xml", "from zip\n")
    bodies = {"/pub/a/one.tar": tar.getvalue(), "/pub/two.zip": zipped.getvalue()}
    archives = tuple(
        Archive(path.removeprefix("/pub/"), len(body), hashlib.md5(body).hexdigest()) for path, body in bodies.items()
    )
    return bodies, Benchmark("http://127.0.0.1:1", archives, "VOCdevkit")


def test_a_benchmark_is_fetched_extracted_and_then_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies, benchmark = made_benchmark()
    monkeypatch.setitem(downloads.BENCHMARKS, "voc2007", benchmark)
    manners = Manners(bodies, cut=100, cuts=5)
    with serving(manners) as url:
        command = ["download", "voc2007", "--out", str(tmp_path / "data"), "--base-url", f"{url}/pub/"]
        first = CliRunner().invoke(main, command, catch_exceptions=False)
        asked = len(manners.requests)
        second = CliRunner().invoke(main, command, catch_exceptions=False)
    assert first.exit_code == second.exit_code == 0
    assert "one.tar: 2 files" in first.output
    assert second.output.count("already there") == 2
    assert len(manners.requests) == asked
    result = {path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data" / "VOCdevkit").rglob("*.*")}
    assert result == {
        f"VOCdevkit/VOC2007/{name}" for name in ("Annotations/1.xml", "Annotations/2.xml", "JPEGImages/1.jpg")
    }
    assert not list((tmp_path / "data" / ".downloads").glob("*.tar")), "archives go once they are extracted"


def test_a_run_that_was_cut_off_between_archives_fetches_the_second_only(tmp_path: Path) -> None:
    bodies, benchmark = made_benchmark()
    manners = Manners({"/pub/a/one.tar": bodies["/pub/a/one.tar"]})
    with serving(manners) as url:
        with pytest.raises(CapnetError, match="404"):
            fetch_benchmark(benchmark, tmp_path, f"{url}/pub")
        manners.files.update(bodies)
        manners.requests.clear()
        fetch_benchmark(benchmark, tmp_path, f"{url}/pub")
    assert [path for path, _ in manners.requests] == ["/pub/two.zip"]
