"""The text that Python is shipped with: content, classes, and what is said about the version."""

import asyncio
import platform
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from compress.data import documentation
from compress.data.array_dataset import ArrayDataset
from compress.data.documentation import PACKAGES, python_docstrings, python_topics
from compress.data.texts import TextPreparation
from compress.errors import DataError


def decoded(data: ArrayDataset, subset: str) -> list[str]:
    assert isinstance(data.preparation, TextPreparation)
    batches = data.batches(subset, 100, "language_model")()  # type: ignore[arg-type]
    return [data.preparation.decode(row) for given, _ in batches for row in given.tensors[0]]


def test_the_topics_are_one_text() -> None:
    data = python_topics()
    text = "\n\n".join(topics[name] for name in sorted(topics))
    found = "".join(decoded(data, "train"))
    assert text.startswith(found)
    assert len(found) == 128 * len(data.train)
    assert len(data.test) == ((len(text) + 126) // 128) // 6
    assert str(data.note).startswith(f"The {len(topics)} topics of help() of Python {platform.python_version()}")


def test_bytes_of_the_topics_need_257_tokens() -> None:
    data = python_topics("bytes", 64, train=10, test=5)
    assert (data.count("train"), data.count("test"), data.shape) == (10, 5, (64,))
    assert data.preparation.described()["tokens"] == 257


@pytest.fixture(scope="module")
def docstrings() -> ArrayDataset:
    pytest.importorskip("tokenizers")
    return python_docstrings()


def test_docstrings_have_the_part_that_they_are_from(docstrings: ArrayDataset) -> None:
    assert docstrings.class_names == tuple(PACKAGES)
    train, test = len(docstrings.train), len(docstrings.test)
    assert test == (train + test) // 6
    assert train > 1500
    assert (docstrings.train.targets.bincount() > 50).all()  # type: ignore[union-attr]
    assert isinstance(docstrings.preparation, TextPreparation)
    text = (asyncio.Queue.__doc__ or "").lower()
    known = docstrings.preparation.decode(docstrings.preparation.encode(text).kwargs["input_ids"][0])
    assert {"queue", "useful", "for"} <= set(known.split())


@pytest.mark.extended
def test_docstrings_repeat_themselves(docstrings: ArrayDataset) -> None:
    again = python_docstrings()
    assert again.sha256 == docstrings.sha256
    assert again.preparation.described() == docstrings.preparation.described()


def test_shared_docstrings_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "PACKAGES", {"a": ("a.py",), "b": ("b.py", "c.py")})
    for name, words in (("a", "both have these words"), ("b", "both have these words"), ("c", "only c has these")):
        (tmp_path / f"{name}.py").write_text(f'"""{words}"""\n', encoding="utf-8")
    assert [(text.text, text.label) for text in documentation._docstrings(tmp_path)] == [("only c has these", "b")]
    (tmp_path / "a.py").unlink()
    with pytest.raises(DataError, match="has no sources of a: python_docstrings needs a Python with its standard"):
        next(documentation._docstrings(tmp_path))


@pytest.mark.extended
def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"pip install 'softprune\[text\]'"):
        python_docstrings()
