"""Published benchmarks over HTTP: downloads that go on where they broke, checked by md5, then extracted."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capnet.contracts import md5_file
from capnet.data.sources.archives import CHUNK, ROOM, extract
from capnet.data.sources.remote import pause
from capnet.errors import ConfigError, DataError, megabytes
from capnet.machine_faults import check_room
from capnet.progress import bar

ATTEMPTS = 6  # counted anew whenever more is here than ever
LONGEST_WAIT = 30  # seconds between two attempts
LATER = "try again later, or another mirror with --base-url"
NUMBER = re.compile("[0-9]{1,18}")
TIMEOUT = (10.0, 60.0)  # seconds until a connection, and between two pieces


@dataclass(frozen=True)
class Archive:
    """One file of a benchmark: ``path`` below its base address, size in bytes, md5."""

    path: str
    size: int
    md5: str

    @property
    def file_name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Benchmark:
    """A published data set. md5 sums: torchvision's for VOC; for COCO those that its mirrors give."""

    base_url: str
    archives: tuple[Archive, ...]
    holds: str  # a path that the extracted data has, shown at the end


_VOC_2007 = (
    Archive("voc2007/VOCtrainval_06-Nov-2007.tar", 460032000, "c52e279531787c972589f7e41ab4ae64"),
    Archive("voc2007/VOCtest_06-Nov-2007.tar", 451020800, "b6e924de25625d8de591ea690078ad9f"),
)
_VOC_2012 = (Archive("voc2012/VOCtrainval_11-May-2012.tar", 1999639040, "6cd6e144f989b92b3379bac3b3de84fd"),)
_COCO_2017 = (
    Archive("annotations/annotations_trainval2017.zip", 252907541, "f4bbac642086de4f52a3fdda2de5fa2c"),
    Archive("zips/val2017.zip", 815585330, "442b8da7639aecaf257c1dceb8ba8c80"),
    Archive("zips/train2017.zip", 19336861798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
)
_VOC_URL = "https://thor.robots.ox.ac.uk/pascal/VOC"
BENCHMARKS = {
    "voc2007": Benchmark(_VOC_URL, _VOC_2007, "VOCdevkit/VOC2007"),
    "voc2012": Benchmark(_VOC_URL, _VOC_2012, "VOCdevkit/VOC2012"),
    # its https has another server's certificate
    "coco2017": Benchmark("http://images.cocodataset.org", _COCO_2017, "annotations"),
}


def download(url: str, target: Path, md5: str, size: int = 0) -> None:
    """Fetch a file, going on after the bytes of an earlier attempt.

    Args:
        url: its address.
        target: appears once the md5 is right; nothing is done where it is there already.
        md5: of the whole file.
        size: in bytes, for the progress bar.

    Raises:
        DataError: the server refuses or stays silent, then what arrived is kept for the next run; or it serves another
            file, which is removed.
    """
    if target.is_file() and md5_file(target) == md5:
        return
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    continued = part.is_file() and part.stat().st_size > 0
    _fill(url, part, size)
    content = md5_file(part)
    if continued and content != md5:  # it began with bytes of another file: once more from the start
        part.unlink()
        _fill(url, part, size)
        content = md5_file(part)
    if content != md5:
        part.unlink()
        raise DataError(f"the file has md5 {content}, expected is {md5}; it was removed", url, LATER)
    os.replace(part, target)


def _fill(url: str, part: Path, size: int) -> None:
    """Append to ``part`` until the server has no more."""
    import requests

    failed, most, last = 0, 0, ""
    with _session() as session, bar(f"downloading {url.rsplit('/', 1)[-1]} (MB)", max(1, size // 10**6)) as advance:
        shown = 0
        while failed < ATTEMPTS:
            have = part.stat().st_size if part.exists() else 0
            try:
                rest = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
                with session.get(url, stream=True, timeout=TIMEOUT, headers=rest) as answer:
                    total = _total(answer)
                    if answer.status_code == 416 and have:  # nothing behind these bytes: theirs, or another file's
                        return
                    if answer.status_code not in (200, 206):
                        raise DataError(f"the server answers {answer.status_code} {answer.reason}", url, LATER)
                    check_room(part.parent, total - have, ROOM)
                    arrived = have if answer.status_code == 206 else 0
                    with open(part, "ab" if arrived else "wb") as file:
                        for chunk in answer.iter_content(CHUNK):
                            file.write(chunk)
                            arrived += len(chunk)
                            if size and arrived > size:  # another file, perhaps without an end
                                return
                            advance(arrived // 10**6 - shown)
                            shown = arrived // 10**6
                if not total or arrived >= total:
                    return
                last = f"{arrived} of {total} bytes arrived"
            except requests.RequestException as error:
                last = " ".join(str(error).split())
            now = part.stat().st_size if part.exists() else 0
            failed, most = 1 if now > most else failed + 1, max(most, now)
            pause(failed, LONGEST_WAIT)
    kept = megabytes(part.stat().st_size) if part.exists() else "nothing"
    what = f"the download broke off {ATTEMPTS} times without progress: {last}"
    raise DataError(what, f"{url}, {kept} kept in {part}", "run it again: it goes on from there")


def _session() -> Any:
    """A session that repeats what the server asks to repeat later, and does not wait for years."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    retry = Retry(
        total=3,
        connect=0,
        read=0,
        status_forcelist=(429, 500, 502, 503, 504),
        backoff_factor=0.5,
        raise_on_status=False,
        retry_after_max=LONGEST_WAIT,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _total(answer: Any) -> int:
    """Bytes of the whole file as the answer's headers tell; 0 where they do not."""
    _, _, behind = answer.headers.get("Content-Range", "").partition("/")
    if NUMBER.fullmatch(behind):
        return int(behind)
    length = answer.headers.get("Content-Length", "")
    return int(length) if NUMBER.fullmatch(length) and answer.status_code == 200 else 0


def fetch_benchmark(benchmark: Benchmark, out: Path, base_url: str = "", keep: bool = False) -> list[str]:
    """Download and extract every archive of a benchmark; what is done already is not done again.

    Args:
        benchmark: one of BENCHMARKS.
        out: folder of the extracted data.
        base_url: of a mirror; "" for the publisher's.
        keep: keep the archives too.

    Returns:
        A line for each archive, for the user.

    Raises:
        ConfigError: ``base_url`` is no address of the web.
        DataError: an archive cannot be had or extracted.
    """
    import requests

    base = (base_url or benchmark.base_url).rstrip("/")
    try:
        if not base.startswith(("http://", "https://")):
            raise requests.exceptions.InvalidSchema
        requests.Request("GET", base).prepare()
    except requests.RequestException as error:
        why = f": {error}" if str(error) else ""
        todo = "write an address that begins with http:// or https://"
        raise ConfigError(f"--base-url {base!r}{why}", "command line", todo) from None
    lines = []
    for archive in benchmark.archives:
        done = out / ".downloads" / f"{archive.file_name}.{archive.md5}"
        if done.is_file():
            lines.append(f"{archive.file_name}: already there")
            continue
        packed = done.parent / archive.file_name
        download(f"{base}/{archive.path}", packed, archive.md5, archive.size)
        files = extract(packed, out)
        done.touch()
        if not keep:
            packed.unlink()
        lines.append(f"{archive.file_name}: {files} files")
    return lines
