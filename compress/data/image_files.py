"""The reader of image files: regular files in six formats, whose size is checked before anything is decoded.

The first bytes decide the format, never the name, and PIL tries the plugin of that format alone: with all of its
plugins it would start Ghostscript for PostScript.
"""

import math
import os
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress.data.image_options import AS_STORED, ImageOptions, Shape
from compress.data.reading import opened
from compress.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as AnyImage
    from PIL.ImageFile import ImageFile

FORMATS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
"""First bytes of the formats that are read, beside WebP, and PIL's names of them."""

OTHERS = {
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "PDF",
    b"8BPS": "PSD",
    b"\0\0\1\0": "ICO",
    b"\0\0\2\0": "CUR",
    b"icns": "ICNS",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"SIMPLE": "FITS",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"\1\0\0\0": "EMF",
    b"<?xml": "XML or SVG",
    b"<svg": "SVG",
    b"\x1f\x8b": "gzip",
    b"PK\3\4": "zip",
    b"\x89HDF": "HDF5",
    b"\xff\x0a": "JPEG XL",
    **{f"P{number}".encode(): "PPM, PGM or PBM" for number in range(1, 8)},
}
"""First bytes of files that people keep among images, and their names in the error."""

# PIL's modes that 8 bits of grey or of red, green and blue can hold; 16-bit and float images are not among them.
PIL_MODES = {"1": "L", "L": "L", "LA": "L"} | dict.fromkeys(("P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"), "RGB")

TIFF_COMPRESSIONS = {
    *("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate"),
    *("tiff_ccitt", "group3", "group4"),
}
"""Those whose cost grows with the pixels alone; others are formats within the format."""

LARGEST_FILE = 512 << 20
"""The most bytes of an image file."""

LARGEST_IMAGE = 256 << 20
"""The most decoded bytes of an image, whatever the size of its file."""

SMALL_IMAGE = 16 << 20
"""Decoded bytes that are allowed for a file of any size: blank pages compress a thousandfold."""

LARGEST_FACTOR = 20
"""How many times as large as its file an image beyond `SMALL_IMAGE` may be when it is decoded."""

MOST_SCANS = 100
"""The most scans of a JPEG, each of which costs a pass over all pixels; encoders write up to a dozen."""

ORIENTATION = 0x0112
"""EXIF's tag of how an image has to be turned to be upright."""

UPRIGHT, SIDEWAYS = 1, range(5, 9)
"""The orientation of an upright image, and those with height and width exchanged."""


def read_image(
    path: str, check: Callable[[Shape], None] = lambda shape: None, options: ImageOptions = AS_STORED
) -> NDArray[np.uint8]:
    """The image at `path` as uint8 [C, H, W]: grey (C = 1) if stored so, else RGB. Of several frames, the first.

    Args:
        check: is given the shape of the result, by the header's claims, before anything is decoded, and may raise.
        options: turn, convert, resize and crop it.

    Raises:
        DataError: the file is not regular, not an image of the six formats, damaged, claims to be too large, or is
            smaller than the crop.
    """
    with opened(path, "image") as file:
        if (size := os.fstat(file.fileno()).st_size) > LARGEST_FILE:
            raise DataError(f"{path} has {size:,} bytes; the most for an image is {LARGEST_FILE:,}.")
        content = file.read(size)
        kind = format_of(content, path)
        with warnings.catch_warnings():
            # PIL warns of oddities in a file, and of sizes, for which the limits here are stricter.
            warnings.simplefilter("ignore")
            from PIL import Image

            with Image.open(BytesIO(content), formats=[kind]) as image:
                stored = _shape(image, path)
                _require_in_proportion(image, stored, content, path)
                turn = _orientation(image) if options.upright else UPRIGHT
                channels, height, width = stored
                upright = (channels, width, height) if turn in SIDEWAYS else stored
                require_small(options.resized(upright), path)
                shape = options.shape(upright, path)
                check(shape)
                pixels = np.asarray(options.prepared(_upright(_converted(image, options), turn)))
    found = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if found.shape != shape:
        raise DataError(f"{path} claims to be {shape} and decodes to {found.shape}.")
    return found


def require_small(shape: Shape, what: str) -> None:
    """Raise DataError where an image, `what`, would be larger than any that is read."""
    if (size := math.prod(shape)) > LARGEST_IMAGE:
        raise DataError(
            f"{what} would have {size:,} bytes after `resize`; the most is {LARGEST_IMAGE:,}. Resize to less, or to a "
            "height and a width, [H, W]."
        )


def _converted(image: "AnyImage", options: ImageOptions) -> "AnyImage":
    """Grey or RGB, as it is stored, and then as the options say."""
    stored = PIL_MODES[image.mode]
    for mode in (stored, options.mode(stored)):
        image = image if image.mode == mode else image.convert(mode)
    return image


def _orientation(image: "ImageFile") -> int:
    """EXIF's, 1 to 8; `UPRIGHT` where there is none, or another value."""
    found = image.getexif().get(ORIENTATION)
    return found if isinstance(found, int) and 1 <= found <= 8 else UPRIGHT


def _upright(image: "AnyImage", orientation: int) -> "AnyImage":
    if orientation == UPRIGHT:
        return image
    from PIL.Image import Transpose

    return image.transpose(
        (
            Transpose.FLIP_LEFT_RIGHT,
            Transpose.ROTATE_180,
            Transpose.FLIP_TOP_BOTTOM,
            Transpose.TRANSPOSE,
            Transpose.ROTATE_270,
            Transpose.TRANSVERSE,
            Transpose.ROTATE_90,
        )[orientation - 2]
    )


def format_of(content: bytes, path: str) -> str:
    """PIL's name of the format by its first bytes. Raises DataError, naming what is found, for another one."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    for start, name in FORMATS.items():
        if content.startswith(start):
            return name
    if content[4:8] == b"ftyp":
        found = "AVIF, HEIC or a video"
    else:
        found = next((name for start, name in OTHERS.items() if content.startswith(start)), "")
    if not found:
        found = f"of no known format (it begins with {content[:8]!r})" if content else "empty"
    raise DataError(
        f"{path} is {found}, which is not read as an image; convert it to PNG, JPEG, BMP, GIF, WebP or TIFF, "
        f"or move it out of the folder."
    )


def _shape(image: "ImageFile", path: str) -> Shape:
    if image.mode not in PIL_MODES:
        raise DataError(f"{path} has pixels of PIL's mode {image.mode}; convert it to 8-bit grey or RGB.")
    return (1 if PIL_MODES[image.mode] == "L" else 3, image.height, image.width)


def _require_in_proportion(image: "ImageFile", shape: Shape, content: bytes, path: str) -> None:
    """Refuse images that would cost far more than their file: claimed sizes, tiles, passes over the pixels."""
    size = math.prod(shape)
    if image.format == "TIFF":
        if (compression := image.info.get("compression", "raw")) not in TIFF_COMPRESSIONS:
            raise DataError(f"{path} is a TIFF with the compression {compression}; save it as JPEG or PNG.")
        size = max(size, _tile(image) * len(image.getbands()))
    most = min(LARGEST_IMAGE, max(SMALL_IMAGE, LARGEST_FACTOR * len(content)))
    if size > most:
        raise DataError(
            f"{path} has {len(content):,} bytes and would decode to {size:,}; the most for a file of this size is "
            f"{most:,}. Save it smaller or less compressed."
        )
    if image.format != "TIFF" and (scans := content.count(b"\xff\xda")) > MOST_SCANS and content[:2] == b"\xff\xd8":
        raise DataError(f"{path} is a JPEG of {scans:,} scans; the most is {MOST_SCANS}. Save it again.")


def _tile(image: "ImageFile") -> int:
    """Pixels of the tiles of a TIFF, which are decoded whole even where the image is smaller; 0 without tiles."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    return math.prod(int(tags.get(tag, 0)) for tag in (322, 323))  # TileWidth and TileLength
