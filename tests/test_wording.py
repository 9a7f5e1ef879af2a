"""Pieces of messages: plurals, reasons, and what may be meant by a name or path that does not exist."""

import os
from pathlib import Path

import pytest

from compress.wording import because, count_of, did_you_mean, listed, missing


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 steps"),
        (1, "1 step"),
        (2, "2 steps"),
        (1200, "1,200 steps"),
        (1.0, "1 step"),
        (1 / 3, "0.333 steps"),
        (1234.56, "1,234.6 steps"),
    ],
)
def test_a_number_with_its_noun(number: float, shown: str) -> None:
    assert count_of(number, "step") == shown


def test_a_plural_of_its_own() -> None:
    assert [count_of(number, "index", "indices") for number in (1, 2)] == ["1 index", "2 indices"]


def test_many_names_are_cut() -> None:
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"


@pytest.mark.parametrize(
    ("word", "end"), [("mnist_a", "; did you mean mnist_ae?"), ("MNIST_AE", "; did you mean mnist_ae?"), ("zzz", "")]
)
def test_what_a_word_may_mean(word: str, end: str) -> None:
    assert did_you_mean(word, ["mnist_ae", "vowels_lstm"]) == end


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("modle.pt", "modle.pt does not exist; did you mean model.pt?"),
        ("Model.pt", "Model.pt does not exist; did you mean model.pt?"),
        ("model.pth", "model.pth does not exist; did you mean model.pt?"),  # the same name with another suffix
        ("recipe.pt", "recipe.pt does not exist; did you mean recipe.yaml?"),
        ("other.pt", "other.pt does not exist; name one"),  # the same suffix does not make names similar
        ("date/train.csv", "date/train.csv does not exist; did you mean data/train.csv?"),
        ("date/test.csv", "date/test.csv does not exist; did you mean data?"),
        ("nowhere/model.pt", "nowhere/model.pt does not exist: there is no folder nowhere; name one"),
        ("model.pt/inner.pt", "model.pt/inner.pt does not exist: model.pt is a file, not a folder; name one"),
        ("data.csv", "data.csv does not exist; name one"),  # a folder is not meant by the name of a file
        ("link.pt", "link.pt is a link to gone.pt, which does not exist; name one"),
    ],
)
def test_a_path_that_does_not_exist(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.pt", "recipe.yaml", "data/train.csv", ".modle.pt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("link.pt").symlink_to("gone.pt")
    assert missing(path, "name one") == message


@pytest.mark.parametrize(
    ("path", "why"),
    [("gone", "it does not exist"), ("file/inner", "a part of its path is a file"), (".", "it is a folder")],
)
def test_reasons_of_the_system_are_sentences(
    path: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises((FileNotFoundError, NotADirectoryError, IsADirectoryError)) as found:
        Path(path).read_bytes()
    assert because(found.value).startswith(why)


def test_an_unknown_reason_is_the_system_s_own() -> None:
    assert because(OSError(5, os.strerror(5))) == os.strerror(5)
    assert because(OSError("gone away")) == "gone away"
