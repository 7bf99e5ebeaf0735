"""Images that are small on the disk and large in memory: refused at their header, or decoded in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from unit.data.hostile import png

from capnet.config import Runtime
from capnet.data.images import transform as transform_module
from capnet.data.images.decode import MOST_ASPECT, MOST_PIXELS, Unusable, open_image, read_rgb
from capnet.data.images.image_files import inspect_image
from capnet.data.images.loader import load_batches
from capnet.data.images.shards import read_bytes
from capnet.data.images.transform import Transform
from capnet.data.images.views import padded
from capnet.errors import DataError
from capnet.runtime import prepare

MEAN = (0.5, 0.5, 0.5)
# a whole process, with torch, that makes views of an image: prints its peak in MB without the pages of libraries, which
# all processes share and of which the system maps as many as it likes. Not ru_maxrss, which survives exec, so that it
# may be that of the process which started this one
VIEWS = """
import sys
from pathlib import Path
from capnet.config import Tte
from capnet.data.images.transform import Transform
transform = Transform(224, (0.5,) * 3, (0.5,) * 3, "bicubic", Tte(), resize=sys.argv[2])
transform.tensor(Path(sys.argv[1]).parent, Path(sys.argv[1]).name, "0" * 64)
status = Path("/proc/self/status").read_text()
peak, of_files = (int(status.split(f"{name}:")[1].split()[0]) for name in ("VmHWM", "RssFile"))
print((peak - of_files) // 1024)
"""


def grey_png(path: Path, width: int, height: int, bits: int = 1, colour: int = 0) -> None:
    """A valid PNG of zeros; ``colour`` 0 grey, 2 RGB, 6 RGBA."""
    row = b"\0" + bytes((width * bits * {0: 1, 2: 3, 6: 4}[colour] + 7) // 8)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    path.write_bytes(png(width, height, (b"IDAT", packed), bits=bits, colour=colour))


@pytest.mark.parametrize("size", [(2000, 1), (1, 2000), (1_000_000, 8), (8, 1_000_000), (30_000, 299)])
def test_thin_images_are_refused_by_every_reader_with_their_size(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "thin.png"
    grey_png(path, *size)
    reason = f"{size[0]} x {size[1]} pixels: the longer side is more than 100 times the shorter"
    assert inspect_image(path).fault == inspect_image(path, decode=False).fault == reason
    for resize in ("short", "pad", "squash"):
        with pytest.raises(DataError, match="100 times the shorter"):
            Transform(224, MEAN, MEAN, "bicubic", random_views=1, resize=resize).tensor(tmp_path, path.name, "0" * 64)


@pytest.mark.parametrize("size", [(100, 1), (1, 100), (700, 7)])
def test_the_thinnest_images_that_are_taken_give_full_views(tmp_path: Path, size: tuple[int, int]) -> None:
    assert max(size) == MOST_ASPECT * min(size)
    path = tmp_path / "thin.png"
    grey_png(path, *size)
    assert inspect_image(path).fault == ""
    views = Transform(224, MEAN, MEAN, "bicubic", random_views=2).tensor(tmp_path, path.name, "0" * 64)
    assert views.shape == (2, 3, 224, 224)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "height", "bits", "colour", "resize"),
    [
        (8600, 8700, 8, 6, "short"),
        (8600, 8700, 16, 0, "short"),
        (80_000, 900, 1, 0, "pad"),
    ],
)
def test_the_largest_images_that_are_taken_need_less_than_a_gigabyte(
    tmp_path: Path, width: int, height: int, bits: int, colour: int, resize: str
) -> None:
    assert width * height < MOST_PIXELS
    grey_png(tmp_path / "large.png", width, height, bits, colour)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", VIEWS, str(tmp_path / "large.png"), resize],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) < 1000


def test_more_than_75_million_pixels_are_refused_where_no_decoder_can_reduce_them(tmp_path: Path) -> None:
    grey_png(tmp_path / "a.png", 8700, 8700)
    assert "more than 75,000,000 pixels" in inspect_image(tmp_path / "a.png").fault
    Image.new("L", (8700, 8700)).save(tmp_path / "a.jpg", quality=10)
    assert read_rgb(tmp_path / "a.jpg").size == (4350, 4350)
    Image.new("L", (8700, 8700)).save(tmp_path / "b.jpg", quality=10, progressive=True)
    assert "more than 75,000,000 pixels" in inspect_image(tmp_path / "b.jpg").fault


@pytest.mark.parametrize("name", ["sparse.png", "sparse.tar/a.png"])
def test_a_file_of_a_terabyte_is_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.parent.suffix == ".tar":
        entry = tarfile.TarInfo("a.png")
        entry.size = 1 << 40
        path.parent.write_bytes(entry.tobuf(tarfile.GNU_FORMAT))
        os.truncate(path.parent, 1 << 41)
    else:
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    assert "1,099,511,627,776 bytes" in inspect_image(path).fault
    with pytest.raises(Unusable, match="1,099,511,627,776 bytes"):
        read_rgb(path)


@pytest.mark.parametrize("key", ["size", "GNU.sparse.realsize", "GNU.sparse.size"])
@pytest.mark.parametrize("value", ["1" + "0" * 30, "9" * 5000, "-5", "x"])
def test_numbers_of_a_shard_that_no_file_has_are_a_reason(tmp_path: Path, key: str, value: str) -> None:
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("a.png")
        entry.pax_headers = {key: value, "GNU.sparse.major": "0", "GNU.sparse.map": f"0,{value}"}
        tar.addfile(entry)
    with pytest.raises(OSError, match=r"tar|shard|bytes"):
        read_bytes(shard / "a.png")
    assert inspect_image(shard / "a.png").fault


def test_an_image_that_no_memory_is_left_for_is_that_images_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey_png(tmp_path / "a.png", 8, 8)

    def none(*arguments: object, **more: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", none)
    with pytest.raises(Unusable, match="needs more memory than there is"):
        read_rgb(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", none)
    with pytest.raises(Unusable, match="needs more memory than there is"), open_image(tmp_path / "a.png"):
        pass


def test_views_that_no_memory_is_left_for_are_that_images_fault_and_not_the_batchs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, side in (("a.png", 8), ("b.png", 9), ("c.png", 10)):
        grey_png(tmp_path / name, side, side)
    original = transform_module.random_view

    def no_memory_for_b(image: Image.Image, *arguments: Any) -> Image.Image:
        if image.width == 9:
            raise MemoryError
        return original(image, *arguments)

    monkeypatch.setattr(transform_module, "random_view", no_memory_for_b)
    transform = Transform(16, MEAN, MEAN, "bicubic", random_views=1)
    items = [transform.item(name, "0" * 64) for name in ("a.png", "b.png", "c.png")]
    (batch,) = load_batches([items], tmp_path, transform, prepare(Runtime(threads=1)), 1, 3)
    assert batch.faults == ["", "needs more memory than there is", ""]
    assert len(batch.canvases) == 2


def test_a_square_around_a_long_image_is_reduced_and_one_around_a_usual_image_is_not() -> None:
    long = Image.new("RGB", (20_000, 400), (255, 0, 0))
    assert padded(long).size == (8192, 8192)
    assert padded(long).getpixel((4096, 4096)) == (255, 0, 0)
    assert padded(Image.new("RGB", (8192, 10))).size == (8192, 8192)
