"""The reader of images against PIL itself, and files that must not be decoded."""

import os
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence, PngImagePlugin

from compress.data import sources
from compress.data.image_files import read_image
from compress.data.streaming import Decoder
from compress.errors import DataError

RNG = np.random.default_rng(0)
GREY, RGB = RNG.integers(0, 256, (5, 6), dtype=np.uint8), RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
READ = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")

MOST_GROWTH = 64 << 20
"""Bytes by which the process may grow while it refuses a file of a few kilobytes."""


def saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


@contextmanager
def bounded() -> Iterator[None]:
    """The process grows by `MOST_GROWTH` at most, which Linux alone can tell of one moment."""
    status = Path("/proc/self/status")
    if not status.exists():
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before = peak(status)
    yield
    assert peak(status) - before < MOST_GROWTH


def peak(status: Path) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert found
    return 1024 * int(found[1])


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], str]:
    """Reads a file with this content, which must fail quickly and without memory; gives the error's words."""

    def read(content: bytes) -> str:
        path = tmp_path / "a.png"
        path.write_bytes(content)
        started = time.process_time()
        with bounded(), pytest.raises(DataError) as caught:
            read_image(str(path))
        assert time.process_time() - started < 5
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return read


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "colour"])
def test_the_six_formats_are_read_as_pil_reads_them(tmp_path: Path, kind: str, pixels: np.ndarray) -> None:
    path = tmp_path / "named.at-will"
    path.write_bytes(saved(Image.fromarray(pixels), kind))
    with Image.open(path) as image:
        mode = "L" if image.mode == "L" else "RGB"
        expected = np.asarray(image.convert(mode))
    expected = expected[None] if mode == "L" else expected.transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(str(path)), expected)


@pytest.mark.parametrize("how", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}])
def test_tiff_in_its_usual_compressions(tmp_path: Path, how: dict[str, str]) -> None:
    (tmp_path / "a").write_bytes(saved(Image.fromarray(RGB), "TIFF", **how))
    np.testing.assert_array_equal(read_image(str(tmp_path / "a")), RGB.transpose(2, 0, 1))


def test_whatever_else_pil_can_write_is_refused_by_its_name(refused: Callable[[bytes], str]) -> None:
    Image.init()
    tried = 0
    for kind in Image.SAVE:
        if kind in (*READ, "MPO"):  # an MPO is a JPEG with more of them behind it
            continue
        for mode in ("RGB", "1", "L", "F"):
            try:
                content = saved(Image.new(mode, (32, 32)), kind)
            except Exception:  # a mode that this format has not, or an encoder that PIL was built without
                continue
            assert "which is not read as an image" in refused(content), kind
            tried += 1
            break
    assert tried > 12


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(28), "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<svg xmlns='x'/>", "SVG"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"8BPS\0\1", "PSD"),
        (b"P6 1 1 255\n\0\0\0", "PPM"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"", "empty"),
        (b"hello", "of no known format (it begins with b'hello')"),
    ],
)
def test_the_format_is_named(refused: Callable[[bytes], str], content: bytes, name: str) -> None:
    assert name in refused(content)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\nshowpage\n"])
def test_no_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, workers: int) -> None:
    for name in ("gs", "gswin32c", "gswin64c"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "pics/a").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(GREY).save(tmp_path / f"pics/a/{number}.png")
    (tmp_path / "pics/a/z.png").write_bytes(content)
    with pytest.raises(DataError, match=r"z\.png is PostScript"):
        sources.from_folder(tmp_path / "pics", workers=workers, stream=True)
    with pytest.raises(DataError, match=r"z\.png is PostScript"):
        Decoder.like(str(tmp_path / "pics/a/z.png"), workers)
    assert not (tmp_path / "started").exists()


# --- sizes that only a header claims ---


def png(width: int, height: int, *chunks: bytes, data: bytes = b"\0\0") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = (b"\x89PNG\r\n\x1a\n", header, *chunks, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"".join(parts)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def patched(kind: str, place: int, *values: int, form: str) -> bytes:
    content = bytearray(saved(Image.fromarray(RGB), kind))
    content[place : place + struct.calcsize(form)] = struct.pack(form, *values)
    return bytes(content)


def jpeg(width: int, height: int) -> bytes:
    content = bytearray(saved(Image.fromarray(RGB), "JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def webp(width: int, height: int) -> bytes:
    """Lossless, whose sizes are 14 bits each behind the chunk's name, its size and a signature."""
    content = bytearray(saved(Image.fromarray(RGB), "WEBP", lossless=True))
    place = content.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", content, place)
    struct.pack_into("<I", content, place, bits >> 28 << 28 | (height - 1) << 14 | (width - 1))
    return bytes(content)


def tiff(**tags: int) -> bytes:
    """A TIFF with other values of some of its tags, by number."""
    content = bytearray(saved(Image.fromarray(RGB), "TIFF"))
    (start,) = struct.unpack_from("<I", content, 4)
    for number in range(struct.unpack_from("<H", content, start)[0]):
        place = start + 2 + 12 * number
        tag = struct.unpack_from("<H", content, place)[0]
        if f"t{tag}" in tags:
            struct.pack_into("<HII", content, place + 2, 4, 1, tags[f"t{tag}"])
    return bytes(content)


def tiled_tiff(side: int) -> bytes:
    """5 x 5 pixels in one tile of `side`², as deflated zeros."""
    data = zlib.compress(bytes(1000))
    tags = [
        (256, 5),
        (257, 5),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, side),
        (323, side),
        (324, 8),
        (325, len(data)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


HUGE = {
    "png": lambda: png(30_000, 30_000),
    "png of few pixels too many": lambda: png(2400, 2400),
    "png beyond any memory": lambda: png(2**31 - 1, 2**31 - 1),
    "jpeg": lambda: jpeg(65_000, 65_000),
    "bmp": lambda: patched("BMP", 18, 40_000, 40_000, form="<ii"),
    "bmp of negative height": lambda: patched("BMP", 18, 40_000, -40_000, form="<ii"),
    "gif": lambda: patched("GIF", 6, 65_535, 65_535, form="<HH"),
    "gif within pil's limit": lambda: patched("GIF", 6, 9_000, 9_000, form="<HH"),
    "webp": lambda: webp(16_383, 16_383),
    "webp within pil's limit": lambda: webp(9_000, 9_000),
    "tiff": lambda: tiff(t256=50_000, t257=50_000),
    "tiff of few strips": lambda: tiff(t256=5_000, t257=5_000, t278=5_000),
    "tiff of a huge tile": lambda: tiled_tiff(20_000),
}


@pytest.mark.parametrize("name", HUGE)
def test_an_image_out_of_proportion_is_refused_before_it_is_decoded(refused: Callable[[bytes], str], name: str) -> None:
    words = refused(HUGE[name]())
    assert "would decode to" in words or "bomb" in words or "large" in words, words


def test_what_is_small_in_memory_may_be_smaller_still_in_its_file(tmp_path: Path) -> None:
    blank = Image.new("RGB", (2000, 2000), "white")  # 12 MB of 12 kB
    (tmp_path / "a.png").write_bytes(saved(blank, "PNG"))
    assert read_image(str(tmp_path / "a.png")).shape == (3, 2000, 2000)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "text after the pixels"])
def test_png_texts_that_inflate(tmp_path: Path, kind: str) -> None:
    bomb = zlib.compress(bytes(100 << 20), 1)
    pixels = bytes(4 * 3)  # a filter byte and a pixel, of a 1 x 3 image
    texts = {
        "zTXt": chunk(b"zTXt", b"k\0\0" + bomb),
        "iTXt": chunk(b"iTXt", b"k\0\1\0\0\0" + bomb),
        "iCCP": chunk(b"iCCP", b"k\0\0" + bomb),
    }
    content = png(1, 3, texts.get(kind, b""), data=pixels)
    if kind not in texts:
        content = content[:-12] + texts["zTXt"] + content[-12:]
    (tmp_path / "a.png").write_bytes(content)
    with bounded(), suppress(DataError):  # by Pillow's version, the text is left out or the image refused
        assert read_image(str(tmp_path / "a.png")).tolist() == np.zeros((3, 3, 1)).tolist()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_many_frames_the_first_is_read(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("L", (8, 8), 10 + number % 200) for number in range(400)]
    content = saved(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    (tmp_path / "a").write_bytes(content)
    with Image.open(tmp_path / "a") as image:
        assert sum(1 for _ in ImageSequence.Iterator(image)) > 100
    assert set(read_image(str(tmp_path / "a")).ravel().tolist()) == {10}


def test_a_jpeg_of_many_scans_is_refused(refused: Callable[[bytes], str]) -> None:
    whole = saved(Image.fromarray(RGB), "JPEG", progressive=True)
    start, end = whole.index(b"\xff\xda"), whole.index(b"\xff\xd9")
    assert "scans; the most is 100" in refused(whole[:start] + 50 * whole[start:end] + whole[end:])


def test_a_tiff_with_another_format_inside_is_refused(refused: Callable[[bytes], str]) -> None:
    assert "compression jpeg" in refused(saved(Image.fromarray(RGB), "TIFF", compression="jpeg"))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(4, 4))
    os.truncate(path, 600 << 20)  # a hole that takes no room on the disk
    with bounded(), pytest.raises(DataError, match="the most for an image is"):
        read_image(str(path))


def test_a_file_that_changes_nothing_in_pil(tmp_path: Path) -> None:
    """The limits are ours: PIL's own, which are the whole process's, do not change."""
    before = (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK)
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(RGB), "PNG"))
    read_image(str(tmp_path / "a.png"))
    assert before == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK)
