"""Texts from untrusted files, one after the other: .jsonl, .csv, .txt, and folders of .txt files by class."""

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from compress.data.image_folder import class_folders, files_below, require_folder
from compress.data.reading import boundary, opened
from compress.errors import DataError
from compress.options import shown
from compress.wording import count_of, did_you_mean

LONGEST_TEXT = 16 << 20
"""Bytes of one line, or of one file of a class folder."""

PIECE = 1 << 20
"""Bytes of a plain text that are read at once."""

Label = str | int | float


class Text(NamedTuple):
    """A text, where it stands, for messages ("reviews.jsonl:12"), and what is known about it."""

    place: str
    text: str
    pair: str | None = None
    label: Label | None = None


@dataclass(frozen=True)
class Columns:
    """The keys of a .jsonl file or the columns of a .csv file; None where there is none."""

    text: str = "text"
    pair: str | None = None
    target: str | None = "label"

    def __iter__(self) -> Iterator[str]:
        return (name for name in (self.text, self.pair, self.target) if name is not None)


class Part(NamedTuple):
    """Where the texts of one part of a data set are: files with the names of their classes, or without any."""

    files: tuple[tuple[Path, str | None], ...]

    @property
    def labelled(self) -> bool:
        return any(label is not None for _, label in self.files)

    def texts(self, columns: Columns) -> Iterator[Text]:
        """All texts. Raises DataError where a file is not what its name says."""
        for path, label in self.files:
            if path.suffix == ".jsonl":
                yield from jsonl_texts(path, columns)
            elif path.suffix == ".csv":
                yield from csv_texts(path, columns)
            elif label is not None:
                yield Text(str(path), _whole(path), None, label)
            else:
                yield from (Text(str(path), piece) for piece in plain_pieces(path))


def part_of(path: Path) -> Part:
    """One file. Raises DataError where its name ends in none of .jsonl, .csv and .txt."""
    if path.suffix not in (".jsonl", ".csv", ".txt"):
        raise DataError(f"{path}: the name of a file of text ends in .jsonl, .csv or .txt, or it is a folder.")
    return Part(((path, None),))


def parts_of(folder: Path) -> dict[str, Part]:
    """The parts "train", "test" and "validation" of a folder, as far as it has them; "train" alone is the whole.

    A part has class folders with .txt files, or .txt files without a class. Raises DataError for anything else.
    """
    there = [part for part in ("train", "validation", "test") if (folder / part).is_dir()]
    if not there:
        return {"train": _listed(folder)}
    if "train" not in there:
        raise DataError(f"{folder} has a folder {there[0]} and none called train.")
    for part in there:
        require_folder(folder / part)
    found = {part: _listed(folder / part) for part in there}
    classes = {part: {label for _, label in one.files} for part, one in found.items()}
    for part in there[1:]:
        if differing := classes[part] ^ classes["train"]:
            names = ", ".join(sorted(name or "(files without a class)" for name in differing))
            raise DataError(f"{folder}: train and {part} need the same class folders; only one has {names}.")
    return found


def _listed(folder: Path) -> Part:
    with boundary(folder, "folder of texts"), os.scandir(str(folder)) as entries:
        has_classes = any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)
    names = class_folders(folder) if has_classes else [None]
    found = [(Path(path), name) for name in names for path in files_below(folder / name if name else folder)]
    if other := next((path for path, _ in found if path.suffix != ".txt"), None):
        raise DataError(f"{other} is not a .txt file; a folder of texts may have no other. Move it out of the folder.")
    if empty := [name for name in names if not any(name == label for _, label in found)]:
        raise DataError(f"{folder / (empty[0] or '')} has no .txt file; remove or fill the folder.")
    return Part(tuple(found))


def jsonl_texts(path: Path, columns: Columns) -> Iterator[Text]:
    """One JSON object a line. Raises DataError with the number of the line for anything else."""
    with opened(path, ".jsonl file", links=True) as file:
        for number, line in enumerate(_lines(file, path), 1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{place}: not JSON ({error}); each line of a .jsonl file is a JSON object.") from error
            if not isinstance(found, dict):
                raise DataError(f"{place}: found {shown(found)}; each line of a .jsonl file is a JSON object.")
            yield _text(found, columns, place, "key")


def csv_texts(path: Path, columns: Columns) -> Iterator[Text]:
    """Rows below a line of column names. Raises DataError with the number of the line for anything else."""
    before = csv.field_size_limit(LONGEST_TEXT)
    try:
        with opened(path, ".csv file", links=True) as file:
            rows = csv.reader(_lines(file, path), strict=True)
            try:
                yield from _rows(rows, path, columns)
            except csv.Error as error:
                raise DataError(f"{path}:{rows.line_num}: not a row of a .csv file ({error}).") from error
    finally:
        csv.field_size_limit(before)


def _rows(rows: Any, path: Path, columns: Columns) -> Iterator[Text]:
    """The texts of a reader of the module csv."""
    names: list[str] = next(rows, [])
    if names and (absent := [name for name in columns if name not in names]):
        there = ", ".join(map(shown, names[:20]))
        raise DataError(f"{path} has no column {absent[0]}; it has {there}{did_you_mean(absent[0], names)}")
    if twice := next((name for name in columns if names.count(name) > 1), None):
        raise DataError(f"{path} has {count_of(names.count(twice), 'column')} {twice}; keep one of them.")
    for row in rows:
        place = f"{path}:{rows.line_num}"
        if row and len(row) != len(names):
            raise DataError(
                f"{place}: {count_of(len(row), 'value')}, and the first line names {count_of(len(names), 'column')}."
            )
        if row:
            yield _text(dict(zip(names, row, strict=True)), columns, place, "column")


def plain_pieces(path: Path) -> Iterator[str]:
    """A plain text in pieces, which end after a line where they can."""
    with opened(path, "text file", links=True) as file:
        start, rest, more = 0, b"", b" "
        while more:
            more = file.read(PIECE)
            content = rest + more
            end = (content.rfind(b"\n") + 1 or _whole_characters(content)) if more else len(content)
            piece, rest = content[:end], content[end:]
            if piece:
                yield decoded(piece, str(path), start).removeprefix("\ufeff" if not start else "")
            start += len(piece)


def _whole_characters(content: bytes) -> int:
    """How many bytes there are without a character of UTF-8 at the end that is not complete."""
    for back in range(1, min(4, len(content)) + 1):
        byte = content[-back]
        if byte & 0xC0 != 0x80:  # the first byte of a character, which tells its length
            length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(content) - back if length > back else len(content)
    return len(content)


def decoded(content: bytes, place: str, start: int = 0) -> str:
    """UTF-8; DataError with the position of the byte that is none, in a file where `content` begins at `start`."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: byte {start + error.start:,} (0x{content[error.start]:02x}) is not UTF-8; save the file as "
            "UTF-8."
        ) from error


def _whole(path: Path) -> str:
    with opened(path, "text file") as file:
        content = file.read(LONGEST_TEXT + 1)
    if len(content) > LONGEST_TEXT:
        raise DataError(f"{path} has more than {LONGEST_TEXT:,} bytes; one text has at most so many.")
    return decoded(content, str(path)).removeprefix("\ufeff")


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    start, number = 0, 0
    while line := file.readline(LONGEST_TEXT + 1):
        number += 1
        if len(line) > LONGEST_TEXT:
            raise DataError(f"{path}:{number}: the line has more than {LONGEST_TEXT:,} bytes.")
        yield decoded(line, f"{path}:{number}", start).removeprefix("\ufeff" if not start else "")
        start += len(line)


def _text(found: Mapping[str, Any], columns: Columns, place: str, what: str) -> Text:
    for name in columns:
        if name not in found:
            there = ", ".join(map(shown, list(found)[:20])) or "nothing"
            raise DataError(f"{place}: no {what} {name}; it has {there}{did_you_mean(name, map(str, found))}")
    texts = [found[columns.text], *([found[columns.pair]] if columns.pair else [])]
    for name, text in zip(columns, texts, strict=False):
        if not isinstance(text, str):
            raise DataError(f"{place}: {name} is {shown(text)}; it must be a text.")
    label = None if columns.target is None else _label(found[columns.target], columns.target, place)
    return Text(place, texts[0], texts[1] if columns.pair else None, label)


def _label(value: Any, name: str, place: str) -> Label:
    match value:
        case bool():
            return int(value)
        case str() if value.strip():
            return value
        case int() if abs(value) < 2**53:
            return value
        case float() if math.isfinite(value):
            return value
    raise DataError(f"{place}: the label {name} is {shown(value)}; it must be a word or a number.")
