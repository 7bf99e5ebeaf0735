"""Decode one image file into RGB pixels, or say why it cannot be used. No torch, so that worker processes start
fast.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from capnet.data.images.dark import brightest, is_deep
from capnet.data.images.headers import first_scan_is_partial, long_entry, long_exif
from capnet.data.images.pillow_repairs import is_clear_bmp, is_reduced, is_white_zero, repair_header
from capnet.data.images.shards import MOST_BYTES, file_or_bytes
from capnet.errors import CapnetError
from capnet.machine_faults import TRANSIENT

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")  # raster only: Pillow hands EPS to another program
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp")  # how their files usually end
MOST_PIXELS = 75_000_000  # 0.3 GB as RGB, and twice that while transparency is taken out
MOST_REDUCED = 178_956_970  # of a JPEG, whose decoder halves it then; Pillow's own limit
MOST_ASPECT = 100  # longer side over shorter: tests and training resize the shorter side to hundreds of pixels
MOST_SCANNED = 1_000_000_000  # pixels over all scans of a JPEG: ten seconds; cameras write 10 scans
MOST_COVERED = 2  # times that strips and tiles cover each band: those at the edges are no larger than the image
MOST_READS = 1_000_000  # by a decoder in Python: seconds; files of cameras take hundreds
MOST_AHEAD = 128 * 2**20  # bytes that are read before the first pixel; layers and profiles of editors have tens of MB
MOST_EXIF = 64  # blocks of a JPEG, each of which Pillow copies with all before it
WEBP_PIXEL, WEBP_BYTE = 16, 6  # bytes of memory that a WEBP's decoder takes for each, however few colours there are
MOST_WEBP = 10**9
BAND = 1024  # rows that are turned into RGB at once
RANGELESS = {"I", "F"}  # 32-bit pixels: nothing in the file says which value is white
# modes of pixels that become RGB
CONVERTED = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
CONVERTED |= {"I;16", "I;16L", "I;16B", "I;16N"}
NO_MEMORY = "needs more memory than there is"
READ_AGAIN = "run the same command again; if it stays so, look at the disk or the network, or take the image out"
BEHIND = (255, 255, 255)  # what shows through transparent pixels, as on a white page

# images that are too large are refused below, without Pillow's warning. Appended behind the filters of the user, which
# count first; catch_warnings would change the filters of all threads, too
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)
# Pillow warns of each damaged entry of EXIF data: 12 MB of text for one image
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.", append=True)


class Unusable(Exception):
    """An image file cannot be used; the text says why."""


def is_transient(error: Unusable) -> bool:
    """Whether a file cannot be used for a reason that is the machine's, and not its own: the image may be good."""
    cause = error.__context__
    return isinstance(cause, OSError) and cause.errno in TRANSIENT


def refuse_transient(error: Unusable, path: Path) -> None:
    """Raise CapnetError where the machine does not read an image, which may be good."""
    if is_transient(error):
        raise CapnetError(f"image {error}", str(path), READ_AGAIN) from error


class _Metered(io.BufferedReader):
    """A file whose decoder is stopped before it reads for minutes, or fills the memory with what is no pixel."""

    _reads = _exifs = _ahead = 0
    are_pixels = False

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file; raises Unusable beyond the limits."""
        self._reads += 1
        if self._reads > MOST_READS:
            raise Unusable(f"its decoder reads more than {MOST_READS:,} times: a file that could take minutes")
        if self.are_pixels:
            return super().read(size)
        data = super().read(MOST_AHEAD + 1 if size is None or size < 0 else min(size, MOST_AHEAD + 1))
        self._ahead += len(data)
        self._exifs += data.startswith(b"Exif\0\0")
        if self._ahead > MOST_AHEAD:
            raise Unusable(f"its decoder reads more than {MOST_AHEAD:,} bytes before the first pixel")
        if self._exifs > MOST_EXIF:
            raise Unusable(f"more than {MOST_EXIF} blocks of EXIF data")
        return data


@contextmanager
def file_faults() -> Iterator[None]:
    """A file that is missing, or that the system does not read, is Unusable too."""
    try:
        yield
    except FileNotFoundError:
        raise Unusable("missing") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise Unusable(f"cannot be read: {error}") from None


@contextmanager
def decoder_faults() -> Iterator[None]:
    """Whatever a decoder raises is Unusable: damaged bytes can raise nearly anything."""
    try:
        yield
    except Unusable:
        raise
    except FileNotFoundError:
        raise Unusable("missing") from None
    except UnidentifiedImageError:
        raise Unusable(f"not a picture ({', '.join(FORMATS)} are read)") from None
    except Image.DecompressionBombError:
        raise _too_many(MOST_REDUCED) from None
    except MemoryError:
        raise Unusable(NO_MEMORY) from None
    except Exception as error:
        by_system = isinstance(error, OSError) and error.errno is not None
        raise Unusable(f"{'cannot be read' if by_system else 'does not decode'}: {error}") from None


@contextmanager
def open_image(source: Path | bytes) -> Iterator[Image.Image]:
    """Open an image and read no more than its header; its file is closed at the end.

    Args:
        source: its path, or its bytes.

    Raises:
        Unusable: missing, empty, of another format, too large or too thin to decode safely, with too much that is no
            pixel, or with pixels that have no known range.
    """
    with ExitStack() as opened:
        with decoder_faults():
            size = source.stat().st_size if isinstance(source, Path) else len(source)
            if not size:
                raise Unusable("empty file")
            if size > MOST_BYTES:
                raise Unusable(f"{size:,} bytes: a picture file has at most {MOST_BYTES:,}")
            with _opened(source) as header:
                if long := long_entry(header):
                    raise Unusable(f"{long}: a file that could fill the memory")
            file = opened.enter_context(_Metered(io.FileIO(source) if isinstance(source, Path) else io.BytesIO(source)))
            image = opened.enter_context(Image.open(file, formats=FORMATS))
            file.are_pixels = True
            repair_header(image)
        if reason := _reason_against(image, source, size):
            raise Unusable(reason)
        yield image


def _reason_against(image: Image.Image, source: Path | bytes, size: int) -> str:
    """Why the pixels of an image should not be decoded, as its header tells; "" where nothing speaks against it."""
    width, height = image.size
    has_several_scans = _has_several_scans(image, source)
    # to half, by its decoder
    is_reducible = not has_several_scans and image.format == "JPEG" and image.mode in ("RGB", "L")
    if width * height > MOST_PIXELS and not is_reducible:
        return str(_too_many(MOST_PIXELS))
    if max(width, height) > MOST_ASPECT * min(width, height):
        return f"{width} x {height} pixels: the longer side is more than {MOST_ASPECT} times the shorter"
    if has_several_scans and (scans := _scans(source)) * width * height > MOST_SCANNED:
        return f"{scans} scans of {width} x {height} pixels: a file that could take minutes is not decoded"
    if (covered := _covered(image)) > MOST_COVERED * width * height * len(image.getbands()):
        return f"strips or tiles of {covered:,} pixels for {width} x {height}: a file that could take minutes"
    if image.format == "WEBP" and WEBP_PIXEL * width * height + WEBP_BYTE * size > MOST_WEBP:
        return (
            f"a WEBP of {width} x {height} pixels and {size:,} bytes could take more than a gigabyte: save it as JPEG"
            " or PNG"
        )
    if is_reduced(image):
        return (
            f"its first page, of {width} x {height} pixels, is a small copy of another, as in a raw file of a camera:"
            " save the image itself as JPEG, PNG or TIFF"
        )
    if image.mode in RANGELESS:
        return f"32-bit pixels (mode {image.mode}) without a known range: save it with 8 or 16 bits"
    if image.mode not in CONVERTED:
        return f"pixels of mode {image.mode} cannot be turned into RGB"
    return ""


def read_rgb(path: Path, needed: Callable[[tuple[int, int]], tuple[int, int]] | None = None) -> Image.Image:
    """Decode an image, of a file or in a shard, as ``to_rgb`` says; its info has ``brightest``.

    Args:
        path: of the image.
        needed: gives, for its width and height, those that are needed; a JPEG is then decoded at the smallest of its
            reduced scales (1/2, 1/4, 1/8) that has them.

    Raises:
        Unusable: missing, damaged, or of a kind that cannot be used.
    """
    with file_faults(), open_image(file_or_bytes(path)) as image:
        if needed is not None:
            width, height = needed(image.size)
            if 2 * width <= image.width and 2 * height <= image.height:  # a decoder's scale is chosen once
                image.draft(None, (width, height))
        deep = is_deep(image)
        rgb = to_rgb(image)
        rgb.info["brightest"] = brightest(image, deep)  # in place of a text that a file may have by this name
        return rgb


def check_sha256(path: Path, sha256: str) -> None:
    """Raises Unusable where an image is another one than its row says."""
    with file_faults(), _opened(file_or_bytes(path)) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise Unusable("another file than ingest saw; run `capnet ingest` again, or put the old file back")


def to_rgb(image: Image.Image) -> Image.Image:
    """The first frame in 8-bit RGB, upright by its EXIF orientation, 16 bits scaled to 8, transparency on white; CMYK
    as Pillow converts it, and 0 white where a TIFF says so.

    Raises:
        Unusable: the file is damaged or truncated.
    """
    with decoder_faults():
        if image.width * image.height > MOST_PIXELS:
            image.draft("RGB", (image.width // 2, image.height // 2))
        image.load()
        _turn(image)
        if image.mode.startswith("I;16"):
            return _in_bands(image, _scaled_negative if is_white_zero(image) else _scaled)
        if image.has_transparency_data and not is_clear_bmp(image):
            return _in_bands(image, _on_white)
        return image if image.mode == "RGB" else image.convert("RGB")


def _opened(source: Path | bytes) -> io.BufferedReader | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _has_several_scans(image: Image.Image, source: Path | bytes) -> bool:
    """Does a JPEG come in several scans: progressive, or one component after the other?"""
    if image.info.get("progressive"):
        return True
    if image.format not in ("JPEG", "MPO"):
        return False
    with decoder_faults(), _opened(source) as file:
        return first_scan_is_partial(file)


def _covered(image: Image.Image) -> int:
    """Pixels that its strips or tiles cover together; a TIFF's may cover the same ones again and again."""
    boxes = (tile.extents for tile in getattr(image, "tile", ()))
    return sum((right - left) * (lower - upper) for left, upper, right, lower in filter(None, boxes))


def _scans(source: Path | bytes) -> int:
    """How often a JPEG of several scans goes over its pixels; its marker stands nowhere else but in a preview."""
    return (source if isinstance(source, bytes) else source.read_bytes()).count(b"\xff\xda")


def _too_many(pixels: int) -> Unusable:
    return Unusable(f"more than {pixels:,} pixels: a file that could fill the memory is not decoded")


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An RGB image of what ``convert`` makes of a few rows at a time: whole copies would need several times the
    memory.
    """
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, BAND):
        rgb.paste(convert(image.crop((0, top, image.width, min(top + BAND, image.height)))), (0, top))
    return rgb


def _scaled(band: Image.Image) -> Image.Image:
    values = np.asarray(band).astype(np.uint32)  # Pillow's own conversion clips at 255
    grey = ((values + 128) // 257).astype(np.uint8)
    grey[values == band.info.get("transparency", -1)] = BEHIND[0]  # of a PNG
    return Image.fromarray(grey).convert("RGB")


def _scaled_negative(band: Image.Image) -> Image.Image:
    return ImageOps.invert(_scaled(band))


def _on_white(band: Image.Image) -> Image.Image:
    layer = band.convert("RGBA")
    white = Image.new("RGB", band.size, BEHIND)
    white.paste(layer, mask=layer.getchannel("A"))
    return white


def _turn(image: Image.Image) -> None:
    """Turn and mirror a loaded image as its EXIF data says; damaged EXIF data turns nothing, as in any viewer."""
    try:
        if long_exif(image.info):
            return
        image.getexif()
        image.info.pop("exif", None)  # it is read; to write it again, as Pillow would, takes gigabytes in hostile files
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # cameras and editors write all kinds of broken EXIF data around good pixels
        return
