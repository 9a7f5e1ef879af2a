"""Files in the place of finished cells: the result of that cell or absent, never a traceback or a foreign figure."""

import json
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compress
from compress.sweep import cell_store
from compress.sweep.cell_store import Cells, UnusableCellsWarning, checksum

RESULT = {"after_removal": {"accuracy": 0.8078, "loss": 0.6125}, "steps": 10, "seconds": 1.5, "rows": [[1, 2], [3]]}
CODE = {"my_net": "f00d"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Cells(tmp_path).write("a", CODE, RESULT)
    Cells(tmp_path).write("b", CODE, {"dense": {"loss": 1.0}})
    return tmp_path


def read(folder: Path, code: dict[str, str] = CODE) -> dict[str, Any]:
    """Of the cells a, b and c, of which there is none; each that cannot be used is counted."""
    with warnings.catch_warnings(record=True) as caught, Cells(folder) as cells:
        warnings.simplefilter("always")
        found = cells.read((key, code) for key in "abc")
    assert all(issubclass(one.category, UnusableCellsWarning) for one in caught)
    count = sum(int(str(one.message).split()[0]) for one in caught)
    assert len(found) == 2 - count
    assert len(caught) == (count > 0), "one line for all of them"
    return found


def test_what_was_written_is_read(folder: Path) -> None:
    assert read(folder) == {"a": RESULT, "b": {"dense": {"loss": 1.0}}}


@settings(max_examples=25)
@given(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text()))
def test_any_result_comes_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, result: dict[str, Any]
) -> None:
    cells = Cells(tmp_path_factory.mktemp("cells"))
    cells.write("a", {}, result)
    assert cells.read([("a", {})]) == {"a": result}


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    cell = json.loads(path.read_text(encoding="utf-8"))
    change(cell)
    path.write_text(json.dumps(cell), encoding="utf-8")


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a figure": lambda cell: cell["result"]["after_removal"].update(accuracy=0.999),
    "its last bit": lambda cell: cell["result"]["after_removal"].update(
        accuracy=math.nextafter(cell["result"]["after_removal"]["accuracy"], 1)
    ),
    "its type": lambda cell: cell["result"].update(steps="10"),
    "another figure": lambda cell: cell["result"].update(diverged="no"),
    "one less": lambda cell: cell["result"].pop("steps"),
    "an order": lambda cell: cell["result"]["rows"].reverse(),
    "the key": lambda cell: cell.update(key="b"),
    "the version": lambda cell: cell["code"].update(softprune="0.0.1"),
    "the code": lambda cell: cell["code"].update(my_net="beef"),
    "more code": lambda cell: cell["code"].update(helpers="beef"),
    "the checksum": lambda cell: cell.update(sha256="0" * 64),
    "its kind": lambda cell: cell.update(sha256=None),
    "no checksum": lambda cell: cell.pop("sha256"),
    "an entry": lambda cell: cell.update(more=1),
}


@pytest.mark.parametrize("what", EDITS)
def test_what_was_edited_is_absent(folder: Path, what: str) -> None:
    edited(folder / "a.json", EDITS[what])
    assert set(read(folder)) == {"b"}


@pytest.mark.parametrize("result", [[], 0.999, "text", None, [RESULT]])
def test_a_result_of_another_kind_is_absent_even_with_a_checksum(folder: Path, result: object) -> None:
    cell = {"key": "a", "code": {"softprune": compress.__version__, **CODE}, "result": result}
    (folder / "a.json").write_text(json.dumps(cell | {"sha256": checksum(cell)}), encoding="utf-8")
    assert set(read(folder)) == {"b"}


CONTENTS = [
    *(b"", b"{}", b"[]", b"null", b"0.999", b'"text"', b"{", b"\0" * 40, b"\xff\xfe", "{}".encode("utf-16")),
    *(b"[" * 50_000, b'{"a":' * 500 + b"1" + b"}" * 500, b"9" * 5000, b'{"result": NaN}', b'{"result": -Infinity}'),
    *(b'{"key": "a", "code": {}, "sha256": 1e999, "result": {}}', b'{"dense": {"loss": 0.001}}'),
]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_what_is_no_cell_is_absent(folder: Path, content: bytes) -> None:
    (folder / "a.json").write_bytes(content)
    assert set(read(folder)) == {"b"}


def test_every_single_byte_counts(folder: Path) -> None:
    whole = (folder / "a.json").read_bytes()
    for place in range(0, len(whole) - 1, 7):  # except the line end
        (folder / "a.json").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert set(read(folder)) == {"b"}, place
        (folder / "a.json").write_bytes(whole[:place])
        assert set(read(folder)) == {"b"}, place


def test_a_copy_under_another_name_is_absent(folder: Path) -> None:
    (folder / "a.json").write_bytes((folder / "b.json").read_bytes())
    assert set(read(folder)) == {"b"}


def test_cells_of_another_version_or_other_code_are_absent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(folder, {}) == read(folder, {"my_net": "beef"}) == read(folder, CODE | {"other": "1"}) == {}
    monkeypatch.setattr(cell_store, "__version__", "9.9")
    assert read(folder) == {}


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "dangling link"])
def test_what_is_no_file_is_absent_and_left_alone(folder: Path, kind: str) -> None:
    place = folder / "a.json"
    content = place.read_bytes()
    place.rename(folder / "elsewhere")
    match kind:
        case "folder":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
        case "link":
            place.symlink_to("elsewhere")
        case _:
            place.symlink_to("nowhere")
    before = place.lstat()
    assert set(read(folder)) == {"b"}
    Cells(folder).write("a", CODE, RESULT | {"steps": 11})
    assert place.lstat().st_ino == before.st_ino
    assert (folder / "elsewhere").read_bytes() == content
    assert not (folder / "nowhere").exists()


def test_one_cell_is_told_as_one(folder: Path) -> None:
    (folder / "a.json").write_text("{}", encoding="utf-8")
    match = "^1 finished cell in .* is damaged, .* its figures are not used$"
    cells = Cells(folder)
    for _ in range(3):
        assert cells.read([("a", CODE)]) == {}
    with pytest.warns(UnusableCellsWarning, match=match):
        cells.__exit__(None, None, None)
