"""The boundary between libraries' errors and ours."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from compress.data.reading import LONGEST_REASON, boundary, opened
from compress.errors import CompressError, DataError, RunError


@pytest.mark.parametrize(
    "error",
    [
        *(ValueError("bad"), KeyError("bad"), struct.error("bad"), zlib.error("bad"), zipfile.BadZipFile("bad")),
        *(NotImplementedError("bad"), RecursionError("bad"), MemoryError(), SyntaxError("bad"), OverflowError("bad")),
        *(RuntimeError("bad\nframe #0: std::function<...>\nframe #1"), OSError(5, "Input/output error", "a.bin")),
        *(AssertionError(), IndexError(), TypeError("bad"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_library_raises_names_file_and_reason(error: Exception) -> None:
    with pytest.raises(DataError) as caught, boundary("a.bin", "thing"):
        raise error
    text = str(caught.value)
    assert text.startswith("a.bin is not a readable thing (")
    assert "\n" not in text
    assert any(word in text for word in ("bad", "Input/output error", type(error).__name__))
    assert caught.value.__cause__ is error


def test_our_own_errors_and_the_users_interruption_pass() -> None:
    for error in (DataError("ours"), RunError("ours"), CompressError("ours"), KeyboardInterrupt("ours")):
        with pytest.raises(type(error), match=r"^ours$"), boundary("a.bin", "thing"):
            raise error


def test_a_reason_is_short() -> None:
    with pytest.raises(DataError) as caught, boundary("a", "thing"):
        raise ValueError("x" * 100_000)
    assert len(str(caught.value)) < LONGEST_REASON + 50


def test_a_link_is_opened_only_where_that_is_allowed(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("links as POSIX has them")
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a")
    with opened(tmp_path / "link", "thing", links=True) as file:
        assert file.read() == b"content"
    with pytest.raises(DataError, match="link is a link"), opened(tmp_path / "link", "thing"):
        pass
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "to fifo").symlink_to("fifo")
    with pytest.raises(DataError, match="is a FIFO"), opened(tmp_path / "to fifo", "thing", links=True):
        pass
