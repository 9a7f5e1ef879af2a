"""Ids are those that Python's own encodings, or the library, give; and back."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from compress.data import tokenization as module
from compress.data.tokenization import Bytes, Characters, TokenizerFile, panics_reported, tokenization
from compress.errors import DataError

TEXTS = ["hello", "é漢🙂", "", "a\nb\0c"]
SMALL = {
    "version": "1.0",
    "model": {"type": "WordLevel", "vocab": {"[PAD]": 0, "[UNK]": 1, "one": 2, "two": 5}, "unk_token": "[UNK]"},
    "pre_tokenizer": {"type": "Whitespace"},
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(json.dumps(SMALL), encoding="utf-8")
    return tmp_path / "tokenizer.json"


def test_bytes_are_utf_8() -> None:
    tokens = Bytes()
    assert [found.ids.tolist() for found in tokens.encode(TEXTS, None)] == [list(text.encode()) for text in TEXTS]
    assert tokens.encode(["hello"], 3)[0].ids.tolist() == list(b"hel")
    assert [tokens.decode([*text.encode(), tokens.padding]) for text in TEXTS] == TEXTS


def test_characters_are_places_in_the_vocabulary() -> None:
    tokens = Characters("aeé🙂")
    raw = np.concatenate([found.ids for found in tokens.encode(["aé🙂x", "e"], None)])
    assert tokens.finished(np.append(raw, -1)).tolist() == [2, 4, 5, 1, 3, -1]
    assert tokens.decode([2, 4, 5, 1, 3, 0]) == "aé🙂\ufffde"
    assert (tokens.size, tokens.padding) == (6, 0)


def test_half_a_surrogate_pair_is_no_character(small: Path) -> None:
    """JSON can spell it: "\\ud800"."""
    assert Characters().encode(["a\ud800"], None)[0].ids.tolist() == [ord("a"), ord("?")]
    assert Bytes().decode(Bytes().encode(["a\ud800"], None)[0].ids.tolist()) == "a?"
    assert tokenization(str(small)).encode(["one \ud800"], 9)[0].ids.tolist() == [2, 1]


def test_a_tokenizer_file_gives_what_the_library_gives(small: Path) -> None:
    from tokenizers import Tokenizer

    theirs, ours = Tokenizer.from_file(str(small)), tokenization(str(small))
    for text in ("one two", "two three one", ""):
        assert ours.encode([text], 10)[0].ids.tolist() == theirs.encode(text).ids
    assert (ours.size, ours.padding) == (6, 0)  # ids have a gap, and the largest counts
    assert ours.decode([2, 5]) == "one two"
    assert ours.encode(["one one one"], 2)[0].ids.tolist() == [2, 2]
    assert ours.described()["sha256"] == hashlib.sha256(small.read_bytes()).hexdigest()
    assert pickle.loads(pickle.dumps(ours)).encode(["two"], 3)[0].ids.tolist() == [5]


@pytest.mark.parametrize(
    ("change", "padding"),
    [
        ({}, 0),
        ({"padding": {"strategy": {"Fixed": 4}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 5,
                      "pad_type_id": 0, "pad_token": "two"}}, 5),
        ({"model": {"type": "WordLevel", "vocab": {"a": 0, "<pad>": 1, "[UNK]": 2}, "unk_token": "[UNK]"}}, 1),
        ({"model": {"type": "WordLevel", "vocab": {"a": 1, "[UNK]": 2}, "unk_token": "[UNK]"}}, 0),
    ],
)  # fmt: skip
def test_padding_is_what_the_file_names_or_has(small: Path, change: dict[str, object], padding: int) -> None:
    small.write_text(json.dumps({**SMALL, **change}), encoding="utf-8")
    tokens = tokenization(str(small))
    assert tokens.padding == padding
    assert len(tokens.encode(["one"], 9)[0].ids) == 1  # not padded by the library


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a readable tokenizer.json"),
        (b"{}", "is not a readable tokenizer.json"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (json.dumps({**SMALL, "model": {"type": "WordLevel", "vocab": {}, "unk_token": "x"}}).encode(), "has no token"),
        (
            json.dumps({**SMALL, "model": {"type": "WordLevel", "vocab": {"a": 2**31}, "unk_token": "a"}}).encode(),
            "has ids up to 2,147,483,648; a vocabulary has 1 to 16,777,216 tokens",
        ),
    ],
)
def test_a_damaged_file_is_refused(small: Path, content: bytes, message: str) -> None:
    small.write_bytes(content)
    with pytest.raises(DataError, match=message):
        tokenization(str(small))


def test_a_mark_beyond_the_vocabulary_is_refused(small: Path) -> None:
    """The marks that the file puts around a text name their ids themselves."""
    mark = {"type": "BertProcessing", "sep": ["[SEP]", 99], "cls": ["[CLS]", 1]}
    small.write_text(json.dumps({**SMALL, "post_processor": mark}), encoding="utf-8")
    with pytest.raises(DataError, match=r"gives the id 99, and its vocabulary has \d tokens"):
        tokenization(str(small)).encode(["one"], 9)


def test_a_huge_file_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_TOKENIZER", 50)
    with pytest.raises(DataError, match="has more than 50 bytes"):
        tokenization(str(small))


def test_an_absent_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"byte does not exist"):
        tokenization("byte")


def test_a_panic_of_the_library_is_an_error_of_the_file() -> None:
    class PanicException(BaseException):
        """As pyo3 has it."""

    with (
        pytest.raises(DataError, match=r"t\.json is not a readable tokenizer\.json \(out of range\)"),
        panics_reported("t.json"),
    ):
        raise PanicException("out of range")
    with pytest.raises(KeyboardInterrupt), panics_reported("t.json"):
        raise KeyboardInterrupt


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"pip install 'softprune\[text\]'"):
        _ = TokenizerFile("{}", "t.json").size
