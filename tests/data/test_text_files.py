"""Texts of files: what is read equals what Python's own readers give; what is wrong is named with its place."""

import csv
import json
import os
from pathlib import Path

import pytest

from compress.data import text_files
from compress.data.text_files import Columns, csv_texts, jsonl_texts, part_of, parts_of, plain_pieces
from compress.errors import DataError

ODD = ["plain", "with, comma", 'with "quotes"', "two\nlines", "é 漢 🙂", "\ufeffmark", " "]


def test_jsonl_is_what_json_reads(tmp_path: Path) -> None:
    rows = [{"text": text, "label": number % 2, "more": None} for number, text in enumerate(ODD)]
    content = "\n\n".join(json.dumps(row, ensure_ascii=number % 2 == 0) for number, row in enumerate(rows))
    (tmp_path / "a.jsonl").write_text("\ufeff" + content, encoding="utf-8")
    found = list(jsonl_texts(tmp_path / "a.jsonl", Columns()))
    assert [(text.text, text.label) for text in found] == [(row["text"], row["label"]) for row in rows]
    assert [text.place for text in found] == [f"{tmp_path}/a.jsonl:{2 * number + 1}" for number in range(len(ODD))]


def test_csv_is_what_csv_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["id", "first", "second", "kind"], *([n, t, t[::-1], "k"] for n, t in enumerate(ODD))]
        )
    found = list(csv_texts(path, Columns("first", "second", "kind")))
    assert [(text.text, text.pair, text.label) for text in found] == [(text, text[::-1], "k") for text in ODD]


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7, 64])
def test_pieces_of_a_plain_text_are_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    text = "ä🙂\nb漢字\n" * 3 + "x" * 20 + "🙂🙂"
    (tmp_path / "a.txt").write_text("\ufeff" + text, encoding="utf-8")
    monkeypatch.setattr(text_files, "PIECE", piece)
    assert "".join(plain_pieces(tmp_path / "a.txt")) == text


JSONL = {
    '{"text": "a", "label": 1}\n{"text": }': r"a\.jsonl:2: not JSON \(Expecting value",
    '["a"]': r"a\.jsonl:1: found an object of list; each line",
    "3": r"a\.jsonl:1: found 3; each line",
    '{"text": "a"}': r"a\.jsonl:1: no key label; it has 'text'",
    "{}": r"a\.jsonl:1: no key text; it has nothing",
    '{"text": 5, "label": 1}': r"a\.jsonl:1: text is 5; it must be a text",
    '{"text": null, "label": 1}': r"a\.jsonl:1: text is None; it must be a text",
    '{"text": "a", "label": null}': r"a\.jsonl:1: the label label is None; it must be a word or a number",
    '{"text": "a", "label": [1]}': "is an object of list",
    '{"text": "a", "label": NaN}': "is nan",
    '{"text": "a", "label": " "}': "is ' '",
    '{"text": "a", "label": 100000000000000000000000}': "is 100000000000000000000000",
    '{"text": "a", "label": ' + "1" * 5000 + "}": "not JSON",
    "[" * 100_000: r"a\.jsonl:1: not JSON",
}


@pytest.mark.parametrize(("content", "message"), JSONL.items(), ids=range(len(JSONL)))
def test_a_wrong_line_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        list(jsonl_texts(tmp_path / "a.jsonl", Columns()))


CSV = {
    "text,kind\na,1\n": r"a\.csv has no column label; it has 'text', 'kind'",
    "text,label,text\na,1,b\n": r"a\.csv has 2 columns text; keep one",
    "text,label\na,1\nb\n": r"a\.csv:3: 1 value, and the first line names 2 columns",
    'text,label\n"a,1\n': r"a\.csv:2: not a row",
    'text,label\n"a"b,1\n': r"a\.csv:2: not a row",
    "text,label\na,\n": r"a\.csv:2: the label label is ''",
}


@pytest.mark.parametrize(("content", "message"), CSV.items(), ids=range(len(CSV)))
def test_a_wrong_row_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        list(csv_texts(tmp_path / "a.csv", Columns()))


@pytest.mark.parametrize(("suffix", "start"), [("txt", b"abc\n"), ("jsonl", b'{"text": "a", "label": 1}\n')])
def test_another_encoding_is_named_with_its_byte(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(start + "fünf".encode("latin-1"))
    with pytest.raises(DataError, match=rf"byte {len(start) + 1} \(0xfc\) is not UTF-8; save the file as UTF-8"):
        list(part_of(path).texts(Columns()))


def test_a_line_has_a_longest_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LONGEST_TEXT", 50)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x" * 60, "label": 1}), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:1: the line has more than 50 bytes"):
        list(jsonl_texts(tmp_path / "a.jsonl", Columns()))


# --- folders ---


def write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {path.name}", encoding="utf-8")
    return root


def test_a_folder_by_class(tmp_path: Path) -> None:
    write(tmp_path, "b/2.txt", "b/deep/3.txt", "a/1.txt", "a/.hidden", "a/Thumbs.db")
    found = list(parts_of(tmp_path)["train"].texts(Columns()))
    assert [(text.text, text.label) for text in found] == [
        ("text of 1.txt", "a"),
        ("text of 2.txt", "b"),
        ("text of 3.txt", "b"),
    ]


def test_a_folder_with_parts(tmp_path: Path) -> None:
    parts = ("train", "validation", "test")
    write(tmp_path, *(f"{part}/{name}/{part}.txt" for part in parts for name in "ab"))
    found = parts_of(tmp_path)
    assert list(found) == list(parts)
    assert all([text.label for text in one.texts(Columns())] == ["a", "b"] for one in found.values())


def test_a_folder_of_plain_files(tmp_path: Path) -> None:
    write(tmp_path, "2.txt", "1.txt")
    part = parts_of(tmp_path)["train"]
    assert not part.labelled
    assert [text.text for text in part.texts(Columns())] == ["text of 1.txt", "text of 2.txt"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.txt", "a/2.pdf"], r"2\.pdf is not a \.txt file"),
        (["train/a/1.txt", "test/b/1.txt"], "train and test need the same class folders; only one has a, b"),
        (["train/a/1.txt", "test/1.txt"], r"only one has \(files without a class\), a"),
        (["test/a/1.txt"], "has a folder test and none called train"),
        ([".hidden"], r"has no \.txt file"),
        (["a/1.txt", "b/.hidden"], r"b has no \.txt file; remove or fill the folder"),
    ],
)
def test_a_wrong_folder_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parts_of(write(tmp_path, *names))


@pytest.mark.parametrize("target", ["..", "/etc/passwd", "nowhere"])
def test_links_in_a_folder_are_refused(tmp_path: Path, target: str) -> None:
    write(tmp_path, "a/1.txt", "b/1.txt")
    (tmp_path / "a" / "2.txt").symlink_to(target)
    with pytest.raises(DataError, match="is a link"):
        parts_of(tmp_path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(DataError, match="not a file; "):
        list(part_of(tmp_path / "a.txt").texts(Columns()))
    with pytest.raises(DataError, match="does not exist"):
        list(part_of(tmp_path / "b.jsonl").texts(Columns()))
    with pytest.raises(DataError, match=r"ends in \.jsonl, \.csv or \.txt"):
        part_of(tmp_path / "b.doc")
