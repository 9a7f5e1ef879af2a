"""Tables in csv and parquet files: what is read, and what is refused, with its place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compress.data import table_files
from compress.data.table_files import CsvFile, ParquetFile, TableFile
from compress.errors import DataError

Rows = list[tuple[int, tuple[object, ...]]]


def rows_of(file: TableFile, *wanted: str) -> Rows:
    """(place, values) of each row."""
    return [
        (place, values)
        for block in file.blocks(wanted or file.names())
        for place, values in zip(block.places, zip(*block.columns, strict=True), strict=True)
    ]


def csv_of(folder: Path, content: str | bytes, **options: object) -> CsvFile:
    path = folder / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return CsvFile(path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,x\n2,y\n",
        "a,b\r\n1,x\r\n2,y",
        "\ufeffa,b\n1,x\n2,y\n",
        ' a , b \n"1",x\n2,"y"\n',
    ],
)
def test_names_and_rows(tmp_path: Path, content: str) -> None:
    file = csv_of(tmp_path, content)
    assert file.names() == ("a", "b")
    assert rows_of(file) == [(2, ("1", "x")), (3, ("2", "y"))]
    assert rows_of(file, "b") == [(2, ("x",)), (3, ("y",))]


def test_places_are_lines_beyond_blank_ones_and_breaks_within_quotes(tmp_path: Path) -> None:
    file = csv_of(tmp_path, 'a,b\n\n"two\nlines",1\n\nx,"say ""it"""\n')
    assert rows_of(file) == [(4, ("two\nlines", "1")), (6, ("x", 'say "it"'))]


@pytest.mark.parametrize(("encoding", "separator"), [("cp1252", ";"), ("utf-16", "\t"), ("latin-1", "|")])
def test_other_encodings_and_separators(tmp_path: Path, encoding: str, separator: str) -> None:
    content = separator.join(("größe", "n")) + "\n" + separator.join(("é", "1,5")) + "\n"
    file = csv_of(tmp_path, content.encode(encoding), encoding=encoding, separator=separator)
    assert file.names() == ("größe", "n")
    assert rows_of(file) == [(2, ("é", "1,5"))]


def test_names_may_be_given_or_made_up(tmp_path: Path) -> None:
    assert rows_of(csv_of(tmp_path, "1,2\n3,4\n", columns=("a", "b")), "b") == [(1, ("2",)), (2, ("4",))]
    assert csv_of(tmp_path, ",a,\n0,1,2\n").names() == ("column_1", "a", "column_3")


def test_blocks_are_the_rows_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "PIECE_CELLS", 20)
    file = csv_of(tmp_path, "a,b\n" + "".join(f"{number},x\n" for number in range(25)))
    blocks = list(file.blocks(["a"]))
    assert [len(block.places) for block in blocks] == [10, 10, 5]
    assert [word for block in blocks for word in block.columns[0]] == list(map(str, range(25)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"t\.csv is empty\."),
        ("\n\n", r"t\.csv is empty\."),
        ("a,b\n1,2\n3\n", r"line 3: found 1 field separated by ',', and the file has 2 columns; fix the row"),
        ("a,b\n1,2\n\n3,4,5\n", r"line 4: found 3 fields"),
        ("a;b\n1;2,5\n", r"line 2: found 2 fields separated by ',', and the file has 1 column.*another `separator`"),
        ("a,b,a\n1,2,3\n", r"has the column 'a' 2 times; rename one of them"),
        ('a,b\n1,"x\n2,y\n', r"line 3: unexpected end of data; a quoted field must end"),
        ('a,b\n1,"x"y\n', r"line 2: ',' expected after '\"'"),
        ("a\n" + "x" * 200_000, r"line 2: field larger than field limit"),
        (",".join(map(str, range(20_001))), r"has 20,001 columns; the most is 20,000"),
        (b"a,b\n1,caf\xe9\n", r"is not utf-8: byte 0xe9 at position 9; name the file's own with `encoding`"),
        (b"a\n" + b"1\n" * 200_000 + b"\xff\n", r"is not utf-8: byte 0xff at position 400,002"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows_of(csv_of(tmp_path, content))


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "base64"])
def test_an_encoding_of_no_text_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(DataError, match=encoding):
        csv_of(tmp_path, "a\n1\n", encoding=encoding).names()


def test_half_a_character_at_the_end_has_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="byte 0xc3 at position 5"):
        rows_of(csv_of(tmp_path, b"a\n1\nb\xc3"))


def test_columns_that_are_named_must_be_as_many_as_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1: found 2 fields separated by ',', and the file has 3 columns"):
        csv_of(tmp_path, "1,2\n", columns=("a", "b", "c")).names()


@pytest.mark.parametrize("kind", [CsvFile, ParquetFile])
def test_a_file_that_is_no_file_is_refused(tmp_path: Path, kind: Callable[[Path], TableFile]) -> None:
    with pytest.raises(DataError, match="does not exist"):
        kind(tmp_path / "none").names()
    with pytest.raises(DataError, match="not a file; "):
        kind(tmp_path).names()


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kinds = {
        "float": pyarrow.array([0.5, None, 2.5]),
        "half": pyarrow.array(np.array([1, 2, 3], np.float16)),
        "int": pyarrow.array([1, 2**62, -3]),
        "bool": pyarrow.array([True, False, None]),
        "word": pyarrow.array(["a", None, "b"]),
        "coded": pyarrow.array(["x", "y", "x"]).dictionary_encode(),
    }
    parquet.write_table(pyarrow.table(kinds), tmp_path / "t.parquet")
    file = ParquetFile(tmp_path / "t.parquet")
    assert file.names() == tuple(kinds)
    (block,) = file.blocks(["coded", "word", "int", "bool", "half", "float"])
    assert block.columns[:2] == [["x", "y", "x"], ["a", "", "b"]]
    nan = np.nan
    wanted = [[1, 2.0**62, -3], [1, 0, nan], [1, 2, 3], [0.5, nan, 2.5]]
    np.testing.assert_array_equal(np.array(block.columns[2:]), wanted)
    assert list(block.places) == [1, 2, 3]


def test_parquet_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    file = ParquetFile(path)
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"is not a readable \.parquet file"):
        file.names()
    parquet.write_table(pyarrow.table({"day": pyarrow.array([0, 1], "date32"), "l": [[1], [2]]}), path)
    with pytest.raises(DataError, match=r"the column 'day' holds date32\[day\].*leave it out with `drop`"):
        list(file.blocks(["day"]))
    with pytest.raises(DataError, match="the column 'l' holds list"):
        list(file.blocks(["l"]))
    parquet.write_table(pyarrow.table({"a": np.zeros(500_000)}), path)
    assert sum(len(block.places) for block in file.blocks(["a"])) == 500_000
    monkeypatch.setattr(table_files, "MOST_UNPACKED", 1000)
    with pytest.raises(DataError, match="unpacks to 4,000,000; the most for so few is"):
        list(file.blocks(["a"]))


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"pip install 'softprune\[tables\]'"):
        ParquetFile(tmp_path / "t.parquet").names()
