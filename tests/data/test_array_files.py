"""Arrays from .npz and idx files against what NumPy wrote, and what no array is taken from."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy

from compress.data import array_files, sources
from compress.data.array_files import read_idx, read_npz
from compress.errors import DataError

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (12, 4, 5), dtype=np.uint8), np.arange(12) % 3


def member(array: Any, version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    npy.write_array(stream, np.asarray(array), version)
    return stream.getvalue()


def claiming(shape: str, descr: str = "'|u1'", fortran: str = "False", data: bytes = IMAGES.tobytes()) -> bytes:
    """A .npy file whose header is made up."""
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def zipped(path: Path, images: bytes, labels: bytes | None = None, how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", member(LABELS) if labels is None else labels)
    return path


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[Path], str]:
    """What is said of a file that must be refused, alone and as a test set."""

    def read(path: Path) -> str:
        good = zipped(tmp_path / "good.npz", member(IMAGES))
        for train, test in ((path, None), (good, path)):
            with pytest.raises(DataError) as caught:
                sources.from_npz(train, test)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)
        return str(caught.value)

    return read


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_those_that_numpy_wrote(tmp_path: Path, save: Callable[..., None], order: Any) -> None:
    for images in (IMAGES, IMAGES.astype(">f4"), IMAGES.reshape(12, 1, 4, 5), IMAGES[:0]):
        save(tmp_path / "a.npz", images=np.asarray(images, order=order), labels=LABELS.astype(">i2"), other=np.ones(3))
        found, labels = read_npz(tmp_path / "a.npz")
        np.testing.assert_array_equal(found, images)
        np.testing.assert_array_equal(labels, LABELS)
        assert (found.dtype, labels.dtype) == (images.dtype, np.dtype(">i2"))


def test_both_versions_that_numpy_writes_for_numbers(tmp_path: Path) -> None:
    for version in ((1, 0), (2, 0)):
        found, _ = read_npz(zipped(tmp_path / "a.npz", member(IMAGES, version)))
        np.testing.assert_array_equal(found, IMAGES)


HEADERS: dict[str, tuple[bytes, str]] = {
    "huge": (claiming("(1000000000, 28, 28)"), "claims uint8 of shape [1000000000, 28, 28]"),
    "beyond 64 bits": (claiming(f"({2**62}, 4, 4)"), "claims uint8"),
    "that wraps to the right size": (claiming(f"({2**60 + 1}, 16, 15)", data=bytes(240)), "claims uint8"),
    "negative": (claiming("(-12, 4, 5)"), "0 or more"),
    "negative twice": (claiming("(-12, -4, 5)"), "0 or more"),
    "of truth values": (claiming("(True, 240)"), "0 or more"),
    "of a fraction": (claiming("(12.0, 4, 5)"), "not a readable .npz file"),
    "of no tuple": (claiming("240"), "not a readable .npz file"),
    "of many dimensions": (claiming(str((1,) * 63 + (240,))), "at most 8 lengths"),
    "of too few bytes": (claiming("(12, 4, 5)", data=IMAGES.tobytes()[:-1]), "do not fit; the file is damaged"),
    "of too many bytes": (claiming("(12, 4, 5)", data=IMAGES.tobytes() + b"\0"), "do not fit; the file is damaged"),
    "of objects": (member(np.array([{}] * 12, dtype=object)), "never loaded"),
    "of texts": (member(np.array(["a"] * 12)), "arrays of numbers"),
    "of records": (member(np.zeros(12, [("a", "u1")])), "arrays of numbers"),
    "of no bytes each": (claiming("(10**18,)".replace("10**18", str(10**18)), "'|V0'"), "arrays of numbers"),
    "of an unknown type": (claiming("(12, 4, 5)", "'|x9'"), "not a readable .npz file"),
    "of version 3": (b"\x93NUMPY\3\0" + claiming("(12, 4, 5)")[8:], "version (3, 0)"),
    "of version 9": (b"\x93NUMPY\x09\0" + claiming("(12, 4, 5)")[8:], "version (9, 0)"),
    "that is no literal": (claiming("__import__('os').abort()"), "not a readable .npz file"),
    "nested": (claiming("(" * 3000 + ")" * 3000), "not a readable .npz file"),
    "longer than ours": (claiming("(12, 4, 5)" + " " * 20_000), "not a readable .npz file"),
    "without a magic number": (b"\x94NUMPY\1\0" + claiming("(12, 4, 5)")[8:], "magic string"),
    "without anything": (b"", "not a readable .npz file"),
    "that ends within": (claiming("(12, 4, 5)")[:30], "not a readable .npz file"),
}


@pytest.mark.parametrize("which", HEADERS)
def test_a_header_is_believed_only_where_it_fits(tmp_path: Path, refused: Callable[[Path], str], which: str) -> None:
    content, words = HEADERS[which]
    assert words in refused(zipped(tmp_path / "a.npz", content))


def edited(path: Path, change: Callable[[bytearray], None]) -> Path:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def in_directory(content: bytearray, place: int, value: bytes, local: int) -> None:
    """Another value of a field of the first entry, in the archive's directory and before the entry itself."""
    start = content.index(b"PK\1\2") + place
    content[start : start + len(value)] = value
    content[local : local + len(value)] = value


class TestArchives:
    @pytest.fixture
    def whole(self, tmp_path: Path) -> Path:
        return zipped(tmp_path / "a.npz", member(IMAGES))

    def test_encrypted(self, whole: Path, refused: Callable[[Path], str]) -> None:
        assert "encrypted" in refused(edited(whole, lambda content: in_directory(content, 8, b"\1\0", 6)))

    @pytest.mark.parametrize("method", [1, 6, 9, 12, 14, 93, 95, 98, 65535])
    def test_compressed_in_another_way(self, whole: Path, refused: Callable[[Path], str], method: int) -> None:
        value = struct.pack("<H", method)
        assert f"zip method {method}" in refused(edited(whole, lambda content: in_directory(content, 10, value, 8)))

    @pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_really_compressed_in_another_way(self, tmp_path: Path, refused: Callable[[Path], str], how: int) -> None:
        assert "zip method" in refused(zipped(tmp_path / "a.npz", member(IMAGES), how=how))

    def test_damaged_data(self, whole: Path, refused: Callable[[Path], str]) -> None:
        place = whole.read_bytes().index(IMAGES.tobytes()) + 7
        words = refused(edited(whole, lambda content: content.__setitem__(place, content[place] ^ 1)))
        assert "Bad CRC-32" in words

    def test_a_crc_that_is_wrong_itself(self, whole: Path, refused: Callable[[Path], str]) -> None:
        assert "Bad CRC-32" in refused(edited(whole, lambda content: in_directory(content, 16, b"abcd", 14)))

    def test_an_entry_that_is_cut_short(self, whole: Path, refused: Callable[[Path], str]) -> None:
        def cut(content: bytearray) -> None:
            size = struct.pack("<I", len(member(IMAGES)) - 100)
            in_directory(content, 20, size, 18)
            in_directory(content, 24, size, 22)

        assert "Bad CRC-32" in refused(edited(whole, cut))

    @pytest.mark.parametrize("size", [2**32 - 2, 2**31, 10**6])
    def test_a_size_that_is_not_there(self, whole: Path, refused: Callable[[Path], str], size: int) -> None:
        assert refused(edited(whole, lambda content: in_directory(content, 24, struct.pack("<I", size), 22)))

    def test_an_offset_behind_the_end(self, whole: Path, refused: Callable[[Path], str]) -> None:
        assert refused(edited(whole, lambda content: in_directory(content, 42, b"\xff\xff\xff\x7f", 0)))

    def test_arrays_that_are_there_twice(self, whole: Path, refused: Callable[[Path], str]) -> None:
        with zipfile.ZipFile(whole, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("images.npy", member(IMAGES + 1))
        assert "has the array images 2 times" in refused(whole)

    def test_entries_that_lie_upon_each_other(self, whole: Path, refused: Callable[[Path], str]) -> None:
        """Both stretch over the whole file, as in archives that inflate by quoting themselves."""

        def overlap(content: bytearray) -> None:
            first = content.index(b"PK\1\2")
            for start in (first, content.index(b"PK\1\2", first + 1)):
                struct.pack_into("<II", content, start + 20, len(content), len(content))

        assert refused(edited(whole, overlap))

    def test_names_that_are_not_utf_8(self, whole: Path, refused: Callable[[Path], str]) -> None:
        def rename(content: bytearray) -> None:
            in_directory(content, 8, b"\0\x08", 6)  # which says that they are
            in_directory(content, 46, b"\xff\xfe\xfd", 30)

        assert refused(edited(whole, rename))

    def test_the_first_ten_names_are_told(self, tmp_path: Path, refused: Callable[[Path], str]) -> None:
        np.savez(tmp_path / "a.npz", **{f"a{number}\x1b[2J": LABELS for number in range(3000)})
        assert "and 2,990 more" in refused(tmp_path / "a.npz")

    @pytest.mark.parametrize("save", [lambda path: path.mkdir(), lambda path: path.write_bytes(b""), lambda path: None])
    def test_no_file(self, tmp_path: Path, refused: Callable[[Path], str], save: Callable[[Path], Any]) -> None:
        save(tmp_path / "a.npz")
        assert refused(tmp_path / "a.npz")


def test_an_archive_that_inflates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.npz", member(np.zeros((12, 300, 300), np.uint8)), how=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 3000
    assert read_npz(path)[0].shape == (12, 300, 300)  # a megabyte is little, whatever the file
    monkeypatch.setattr(array_files, "SMALL_BYTES", 1_000_000)
    with pytest.raises(DataError, match=r"unpacks to 1,080,\d+; the most is 1,000,000\. Save it uncompressed"):
        read_npz(path)
    zipped(path, member(np.zeros((12, 300, 300), np.uint8)))
    assert read_npz(path)[0].shape == (12, 300, 300)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0, 1, 10**9] * 4), "label 2 is missing and 1000000000 is there"),
        (np.array([0, 1, 2**63 - 1] * 4), "label 2 is missing and 9223372036854775807 is there"),
        (np.array([0, 1, 2**64 - 1] * 4, np.uint64), "label 18446744073709551615 is out of range"),
        (np.array([0, 1, -1] * 4), "label -1 is negative"),
        (np.array([0, 1, -(2**63)] * 4), "label -9223372036854775808 is negative"),
        (np.array([5, 6, 7] * 4), "label 0 is missing and 5 is there"),
        (np.array([0.0, 1.0, np.nan] * 4), "labels are float64"),
        (np.array([True, False, True] * 4), "labels are bool"),
        (np.zeros((12, 1), int), r"of shape \(12, 1\)"),
        (np.zeros((), int), r"of shape \(\)"),
    ],
)
def test_labels_count_classes_from_0(tmp_path: Path, labels: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        sources.from_npz(zipped(tmp_path / "a.npz", member(IMAGES), member(labels)))


@pytest.mark.parametrize("label", [3, 10**9, 2**63 - 1, -1, -(2**63)])
def test_a_test_label_beyond_the_classes(tmp_path: Path, label: int) -> None:
    good = zipped(tmp_path / "a.npz", member(IMAGES))
    with pytest.raises(DataError, match=f"label {label} is out of range"):
        sources.from_npz(good, zipped(tmp_path / "b.npz", member(IMAGES), member([label] * 12)))


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "begins with nothing"),
        (idx(IMAGES)[:10], "begins with 00000803"),
        (idx(IMAGES)[:-1], "which take 256 bytes, and it has 255"),
        (idx(IMAGES) + b"\0", "which take 256 bytes, and it has 257"),
        (idx(LABELS.astype(np.uint8)), "begins with 00000801"),
        (b"\0\0\x0d\3" + idx(IMAGES)[4:], "begins with 00000d03"),
        (b"\x1f\x8b\x08\0" + idx(IMAGES)[4:], "begins with 1f8b0800"),
        (idx(IMAGES)[:4] + b"\xff" * 12 + IMAGES.tobytes(), r"\[4294967295, 4294967295, 4294967295\]"),
        (idx(IMAGES)[:4] + bytes(12) + IMAGES.tobytes(), "which take 16 bytes"),
    ],
)
def test_an_idx_file_is_as_long_as_it_says(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_idx(tmp_path / "images", 3)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(0, 2**32))
def test_idx_files_come_back(tmp_path_factory: pytest.TempPathFactory, shape: list[int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / "a"
    path.write_bytes(idx(array))
    np.testing.assert_array_equal(read_idx(path, array.ndim), array)
