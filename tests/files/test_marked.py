"""Marks: whose folder it is, and what of it is whose."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import OutputError
from compress.files.marked import LARGEST, MARK, Mark, cells, dissolve, foreign, make, mark_of, require_cells, sha256

ID = 32 * "a"
Unchanged = Callable[[Path], AbstractContextManager[None]]


def test_a_folder_is_made_with_its_mark(tmp_path: Path) -> None:
    mark = Mark("run", "out")
    make(tmp_path / "deep" / "out.partial", mark)
    assert mark_of(tmp_path / "deep" / "out.partial") == mark
    assert mark_of(tmp_path / "deep" / "out.partial", "results", "cells") is None
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out.partial"]
    assert len({Mark("run").id for _ in range(9)}) == 9


@pytest.mark.parametrize("kind", ["file", "folder", "full", "dangling", "link"])
def test_nothing_is_made_where_something_is(tmp_path: Path, kind: str, unchanged: Unchanged) -> None:
    path = tmp_path / "place"
    match kind:
        case "file":
            path.touch()
        case "folder":
            path.mkdir()
        case "full":
            (path / "deep").mkdir(parents=True)
        case "dangling":
            path.symlink_to("nowhere")
        case "link":
            path.symlink_to(tmp_path)
    with unchanged(tmp_path) if kind != "link" else unchanged(path.parent), pytest.raises(FileExistsError):
        make(path, Mark("run"))


WRONG = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"7",
    b"\xff",
    b"[" * 100_000,
    b'{"softprune": "run"',
    b'{"softprune": "other"}',
    b'{"softprune": ["run"]}',
    b'{"softprune": "run", "id": "../../victim"}',
    b'{"softprune": "run", "id": "%s", "more": 1}' % ID.encode(),
    b'{"softprune": "run", "id": 7}',
    b'{"softprune": "run", "id": "%s", "of": 7}' % ID.encode(),
    b'{"softprune": "results", "id": "%s", "files": {"../victim": []}}' % ID.encode(),
    b'{"softprune": "results", "id": "%s", "files": {"/victim": []}}' % ID.encode(),
    b'{"softprune": "results", "id": "%s", "files": {"a": "b"}}' % ID.encode(),
    b'{"softprune": "results", "id": "%s", "files": []}' % ID.encode(),
    b" " * LARGEST + b'{"softprune": "run", "id": "%s"}' % ID.encode(),
]


@pytest.mark.parametrize("content", WRONG, ids=range(len(WRONG)))
def test_what_is_no_mark_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARK).write_bytes(content)
    assert mark_of(tmp_path) is None
    assert list(foreign(tmp_path)) == [MARK]
    with pytest.raises(OutputError, match="is not a mark of softprune's"):
        Mark("results").write(tmp_path)
    assert (tmp_path / MARK).read_bytes() == content


@given(
    st.binary(max_size=99) | st.from_type(dict[str, str | int | list[str]]).map(lambda one: json.dumps(one).encode())
)
def test_nothing_that_was_made_up_is_a_mark(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / MARK).write_bytes(content)
    assert mark_of(folder) is None


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_a_mark_is_a_file(tmp_path: Path, kind: str) -> None:
    make(tmp_path / "real", Mark("run"))
    folder = tmp_path / "folder"
    folder.mkdir()
    match kind:
        case "link":
            (folder / MARK).symlink_to(tmp_path / "real" / MARK)
        case "dangling":
            (folder / MARK).symlink_to("nowhere")
        case "folder":
            (folder / MARK).mkdir()
        case "pipe":
            os.mkfifo(folder / MARK)
    assert mark_of(folder) is None
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert mark_of(tmp_path / "linked") is None


def test_foreign_is_what_the_mark_does_not_list_or_what_changed(tmp_path: Path) -> None:
    for name in ("a", "deep/b", "deep/er/c", "theirs", "deep/theirs", "empty/"):
        path = tmp_path / name
        path.mkdir() if name.endswith("/") else (path.parent.mkdir(parents=True, exist_ok=True), path.write_text(name))
    own = {name: [sha256(tmp_path / name)] for name in ("a", "deep/b", "deep/er/c")}
    Mark("results", "apply", files=own).write(tmp_path)
    assert list(foreign(tmp_path)) == ["deep/theirs", "empty/", "theirs"]
    (tmp_path / "a").write_text("changed")
    assert list(foreign(tmp_path)) == ["a", "deep/theirs", "empty/", "theirs"]
    make(tmp_path / ".partial", Mark("run"))
    make(tmp_path / "nested", Mark("results", "apply"))
    (tmp_path / "nested" / "theirs").touch()
    assert list(foreign(tmp_path)) == ["a", "deep/theirs", "empty/", "nested/theirs", "theirs"]


def test_only_its_own_files_leave_a_folder_of_a_run(tmp_path: Path) -> None:
    folder, mark = tmp_path / "out.partial", Mark("run", "out")
    make(folder, mark)
    (tmp_path / "victim").mkdir()
    for name in (f"{mark.id}-1.pt", f"{mark.id}.lock", "1.pt", f"{ID}-1.pt"):
        (folder / name).touch()
    (folder / f"{mark.id}-2.pt").symlink_to(tmp_path / "victim")
    rest = ["1.pt", f"{ID}-1.pt", f"{mark.id}-2.pt"]
    assert sorted(dissolve(folder, mark)) == sorted(rest)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MARK, *rest])
    for name in rest:
        (folder / name).unlink()
    assert dissolve(folder, mark) == []
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]


def test_what_comes_in_the_last_moment_keeps_the_folder_and_its_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark, rmdir = tmp_path / "out.partial", Mark("run", "out"), os.rmdir
    make(folder, mark)

    def last_moment(path: Path, **how: int) -> None:
        (folder / "thesis").write_text("precious")
        rmdir(path, **how)

    monkeypatch.setattr(os, "rmdir", last_moment)
    assert dissolve(folder, mark) == ["thesis"]
    assert (folder / "thesis").read_text() == "precious"
    assert mark_of(folder) == mark


def test_a_folder_that_was_swapped_is_not_dissolved(tmp_path: Path, unchanged: Unchanged) -> None:
    mark = Mark("run", "out")
    make(tmp_path / "real", mark)
    (tmp_path / "out.partial").symlink_to(tmp_path / "real")
    make(tmp_path / "other", Mark("run", "out"))
    with unchanged(tmp_path):
        assert dissolve(tmp_path / "out.partial", mark) == []
        assert dissolve(tmp_path / "other", mark) == []
        assert dissolve(tmp_path / "nowhere", mark) == []


def test_a_cache_is_made_marked_or_refused(tmp_path: Path, unchanged: Unchanged) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("deep/new", "empty"):
        for _ in range(2):
            cells(tmp_path / name)
        (tmp_path / name / "0123456789abcdef.json").touch()
        require_cells(tmp_path / name)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "0123456789abcdef.json").touch()
    (tmp_path / "linked").symlink_to(tmp_path / "empty")
    with unchanged(tmp_path):
        for name, text in (
            ("theirs", "theirs is not a cache that softprune made: it holds 0123456789abcdef.json, and no mark"),
            ("theirs/0123456789abcdef.json", "is a file; name another folder with --cache"),
            ("linked", "linked is a link to"),
        ):
            with pytest.raises(OutputError, match=text):
                cells(tmp_path / name)
        with pytest.raises(OutputError, match="is not a mark of softprune's results"):
            Mark("results").write(tmp_path / "empty")
