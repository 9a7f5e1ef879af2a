"""Folders of images in which there are other things: links, FIFOs, sockets, devices, loops, odd names."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from compress.data import sources
from compress.data.dataset import Dataset
from compress.data.image_files import read_image
from compress.data.image_folder import class_folders, files_below
from compress.errors import DataError

posix = pytest.mark.skipif(os.name != "posix", reason="links, FIFOs and sockets as POSIX has them")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """pics/a and pics/b with three images each, of values 0 to 2 and 10 to 12, and images and text outside."""
    for name, first in (("pics/a", 0), ("pics/b", 10), ("outside", 20)):
        (tmp_path / name).mkdir(parents=True)
        for number in range(3):
            write(tmp_path / name / f"{number}.png", first + number)
    (tmp_path / "outside/secret.txt").write_text("secret")
    return tmp_path / "pics"


def write(path: Path, value: int) -> None:
    Image.fromarray(np.full((2, 2), value, np.uint8)).save(path, "PNG")


def values(folder: Path) -> list[int]:
    """The value of each image, in the order of the classes."""
    data = sources.from_folder(folder, workers=0)
    assert isinstance(data, Dataset)
    return sorted(int(image.flatten()[0]) for split in (data.train, data.test) for image in split.images)


def test_the_order_is_that_of_torchvision(tmp_path: Path) -> None:
    for name in ("b/z.png", "b/a/1.png", "b/a.png", "b/a/0.png", "a/10.png", "a/9.png", "a/Z.png", "c/x/y/z/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, 1)
    theirs = ImageFolder(tmp_path)
    classes = class_folders(tmp_path)
    assert classes == theirs.classes
    ours = [(path, label) for label, name in enumerate(classes) for path in files_below(tmp_path / name)]
    assert ours == theirs.samples


LINKS: dict[str, tuple[str, str]] = {
    "to a file of the same class": ("a/9.png", "0.png"),
    "to a file of another class": ("a/9.png", "../b/0.png"),
    "to a file outside": ("a/9.png", "../../outside/0.png"),
    "to a file outside that is no image": ("a/9.png", "../../outside/secret.txt"),
    "by an absolute path": ("a/9.png", "/etc/passwd"),
    "to nothing": ("a/9.png", "nowhere"),
    "to itself": ("a/9.png", "9.png"),
    "to a device": ("a/9.png", "/dev/zero"),
    "to the folder above": ("a/loop", ".."),
    "to its own folder": ("a/loop", "."),
    "to another class": ("a/loop", "../b"),
    "to a folder outside": ("a/loop", "../../outside"),
    "to the root": ("a/loop", "/"),
    "below a folder": ("a/deep/er/9.png", "../../0.png"),
    "as a class": ("c", "a"),
    "as a class, outside": ("c", "../outside"),
    "as a class, to nothing": ("c", "nowhere"),
}


@posix
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("which", LINKS)
def test_links_are_refused_wherever_they_lead(folder: Path, which: str, stream: bool) -> None:
    name, target = LINKS[which]
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(target)
    with pytest.raises(DataError) as caught:
        sources.from_folder(folder, stream=stream)
    assert f"{folder / name} is a link" in str(caught.value)


@posix
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_that_is_a_link_is_refused(folder: Path, tmp_path: Path, part: str) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / part).symlink_to(folder)
    os.rename(folder, whole / ({"train", "test"} - {part}).pop())
    (whole / part).unlink()
    (whole / part).symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match=f"{part} is a link"):
        sources.from_folder(whole)


@posix
def test_the_folder_itself_may_be_a_link_since_it_was_typed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert values(tmp_path / "link") == values(folder) == [0, 1, 2, 10, 11, 12]


@posix
def test_hard_links_are_files(folder: Path) -> None:
    os.link(folder / "a/0.png", folder / "a/9.png")
    assert values(folder) == [0, 0, 1, 2, 10, 11, 12]


SPECIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "FIFO": (os.mkfifo if os.name == "posix" else lambda path: None, "is a pipe"),
    "socket": (lambda path: bound(path), "is a socket"),
    "device": (lambda path: os.mknod(path, 0o20600, os.makedev(1, 5)), "is a device"),
}


def bound(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket has a hundred bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@posix
@pytest.mark.parametrize("where", ["a/9.png", "a/deep/9", "b/0000"])
@pytest.mark.parametrize("which", SPECIAL)
def test_what_is_neither_file_nor_folder_is_refused(folder: Path, which: str, where: str) -> None:
    make, words = SPECIAL[which]
    (folder / where).parent.mkdir(exist_ok=True)
    try:
        make(folder / where)
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(DataError, match=f"{where} {words}"):
        sources.from_folder(folder)


@posix
@pytest.mark.parametrize("which", SPECIAL)
def test_what_takes_the_place_of_an_image_later_is_not_waited_for(folder: Path, which: str) -> None:
    data = sources.from_folder(folder, stream=True, workers=0)
    for path in folder.glob("*/*.png"):
        path.unlink()
        try:
            SPECIAL[which][0](path)
        except PermissionError:
            pytest.skip("only root makes devices")
    with pytest.raises(DataError, match=SPECIAL[which][1]):
        list(data.batches("train", 2, "classify")())


@posix
def test_a_link_that_takes_the_place_of_an_image_later_is_not_followed(folder: Path, tmp_path: Path) -> None:
    data = sources.from_folder(folder, stream=True, workers=0)
    for path in folder.glob("*/*.png"):
        path.unlink()
        path.symlink_to(tmp_path / "outside/0.png")
    with pytest.raises(DataError, match="is a link"):
        list(data.batches("test", 2, "classify")())


@pytest.mark.parametrize(
    "name",
    [
        "a/.DS_Store",
        "a/._0.png",
        "a/Thumbs.db",
        "a/desktop.ini",
        "a/.ipynb_checkpoints/0.png",
        ".git/config",
        "README.md",
    ],
)
def test_what_is_hidden_or_beside_the_classes_is_left_out(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("nothing to see")
    assert values(folder) == [0, 1, 2, 10, 11, 12]
    assert class_folders(folder) == ["a", "b"]


def test_everything_else_must_be_an_image(folder: Path) -> None:
    (folder / "a/labels.csv").write_text("0,1,2")
    with pytest.raises(DataError, match=r"labels\.csv is of no known format"):
        sources.from_folder(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux only")
def test_names_are_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = os.fsdecode(b"\xff\xfe \xe9\n\x1b[2J.png")
    os.rename(folder / "a", folder / os.fsdecode(b"cl\xff"))
    write(folder / os.fsdecode(b"cl\xff") / odd, 5)
    assert values(folder) == [0, 1, 2, 5, 10, 11, 12]
    (folder / os.fsdecode(b"cl\xff") / odd).write_bytes(b"%!PS")
    with pytest.raises(DataError, match="is PostScript"):
        sources.from_folder(folder)


@posix
@pytest.mark.parametrize("name", ["a", "a/0.png", "."])
def test_what_may_not_be_read_is_named(folder: Path, name: str) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (folder / name).chmod(0)
    try:
        with pytest.raises(DataError, match="permission denied"):
            sources.from_folder(folder)
    finally:
        (folder / name).chmod(0o700)


def test_what_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: object, flags: int) -> int:
        raise PermissionError(13, "Permission denied", os.fspath(path))  # type: ignore[call-overload]

    monkeypatch.setattr("compress.data.reading.os.open", denied)
    with pytest.raises(DataError, match=r"0\.png cannot be read: permission denied"):
        read_image(str(folder / "a/0.png"))


def test_small_files_that_decode_to_much_stream_and_then_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LARGEST_FACTOR", 0)
    monkeypatch.setattr(sources, "SMALL_SET", 24)  # six images of 4 bytes
    assert isinstance(sources.from_folder(folder), Dataset)
    monkeypatch.setattr(sources, "SMALL_SET", 23)
    streamed = sources.from_folder(folder)
    assert not isinstance(streamed, Dataset)
    assert streamed.note is not None
    assert isinstance(sources.from_folder(folder, stream=False), Dataset)
    monkeypatch.setattr(sources, "MOST_FACTOR", 0)
    monkeypatch.setattr(sources, "MOST_DECODED", 23)
    with pytest.raises(DataError, match="would decode to 24; the most for so few is 23"):
        sources.from_folder(folder)
