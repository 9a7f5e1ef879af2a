"""Files that are not files, that do not end, or that are not JSON: an error that says what was found, at once."""

import os
import socket
from pathlib import Path

import pytest

from compress.files.bounded import MAX_DEPTH, read_bytes, read_json, strange


def test_an_ordinary_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"12345")
    link.symlink_to(file)
    assert read_bytes(file, 5) == read_bytes(link, 5) == b"12345"
    assert strange(file) is None
    with pytest.raises(ValueError, match="it is larger than 4 bytes"):
        read_bytes(file, 4)
    with pytest.raises(ValueError, match="it is a link, not an ordinary file"):
        read_bytes(link, 5, links=False)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none", 5)
    assert strange(tmp_path / "none") is None


def test_what_may_never_end_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to("/dev/zero")
    kinds = {"pipe": "a pipe", "socket": "a socket", "link": "a device", ".": "a folder"}
    for name, kind in kinds.items():
        assert strange(tmp_path / name) == kind
        with pytest.raises(ValueError, match=kind):
            read_bytes(tmp_path / name, 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "delimiter"),
        (b"[NaN]", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"[1e999]", "1e999 is too large for a number"),
        (b"9" * 5000, "4300"),
        (b"\xff\xfe[\x00]\x00", "utf-8"),
        (b"\x80", "utf-8"),
        (b"\xef\xbb\xbf[]", "BOM"),
        (b"[1]\0", "Extra data"),
        (b"[" * 100_000, "nested deeper"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper than 100 levels"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested deeper than 100 levels"),
    ],
)
def test_json_of_plain_values_alone(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "file", 10**6)


def test_deep_enough_for_us(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    value = read_json(tmp_path / "file", 10**6)
    for _ in range(MAX_DEPTH - 1):
        (value,) = value
    assert value == []
