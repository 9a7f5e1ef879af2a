"""Data sets of texts: batches equal what plain Python makes of the same text, in memory and in a mapped file."""

import csv
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.data import texts as module
from compress.data.array_dataset import ArrayDataset
from compress.data.text_files import Columns
from compress.data.texts import TextPreparation, from_text
from compress.errors import DataError
from compress.wording import count_of

WORDS = ["alpha", "beta", "gamma", "delta"]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """60 texts of 5 to 24 characters, whose class is their first letter."""
    rows = [{"text": WORDS[n % 4] * (1 + n % 3) + str(n), "label": WORDS[n % 4][0]} for n in range(60)]
    return jsonl(tmp_path / "reviews.jsonl", rows)


@pytest.fixture(params=["memory", "file"])
def stored(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "file":
        monkeypatch.setattr(module, "_limit", lambda: 0)


def preparation(data: ArrayDataset) -> TextPreparation:
    assert isinstance(data.preparation, TextPreparation)
    return data.preparation


def samples(data: ArrayDataset, subset: Any = "train") -> list[tuple[str, int]]:
    """(text, label) of each sample, decoded."""
    found = []
    for given, targets in data.batches(subset, 7, "classify")():
        for ids, label in zip(given.kwargs["input_ids"], targets.tolist(), strict=True):
            found.append((preparation(data).decode(ids), label))
    return found


# --- samples ---


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("tokenizer", ["bytes", "chars"])
def test_samples_are_the_texts_in_another_order(reviews: Path, tokenizer: str) -> None:
    data = from_text(reviews, tokenizer=tokenizer, length=10)
    rows = [json.loads(line) for line in reviews.read_text(encoding="utf-8").splitlines()]
    expected = sorted((row["text"][:10], "abdg".index(row["label"])) for row in rows)
    assert sorted(samples(data, "train") + samples(data, "test")) == expected
    assert (data.count("train"), data.count("test"), data.count("validation")) == (50, 10, None)
    assert (data.classes, data.class_names, data.shape) == (4, tuple("abdg"), (10,))
    assert len({label for _, label in samples(data, "train")[:20]}) == 4  # the first ones have all classes
    assert data.note == (
        "No test file: the test set is 10 of 60 texts, always the same ones. "
        f"{sum(len(row['text']) > 10 for row in rows)} of 60 texts have more than 10 tokens and are cut."
    )


@pytest.mark.usefixtures("stored")
def test_what_the_network_gets(reviews: Path) -> None:
    data = from_text(reviews, tokenizer="bytes", length=20)
    given, targets = next(iter(data.batches("test", 4, "classify")()))
    ids, mask = given.kwargs["input_ids"], given.kwargs["attention_mask"]
    assert (ids.dtype, mask.dtype, targets.dtype) == (torch.int64,) * 3
    assert (ids.shape, mask.shape, targets.shape) == ((4, 20), (4, 20), (4,))
    for row, there in zip(ids, mask.bool(), strict=True):
        assert (row[~there] == 256).all()
        assert (row[there] < 256).all()
        assert there.sum() == min(20, len(preparation(data).decode(row)))
        assert torch.equal(there, there.sort(descending=True).values)
    assert given.kwargs.keys() == {"input_ids", "attention_mask"}


def test_inputs_by_other_names(reviews: Path) -> None:
    by_position = from_text(reviews, tokenizer="bytes", length=20, inputs=("input",)).example
    alone = from_text(reviews, tokenizer="bytes", length=20, inputs=("input_ids",)).example
    assert alone.kwargs.keys() == {"input_ids"}
    assert by_position.kwargs == {}
    assert torch.equal(by_position.args[0], alone.kwargs["input_ids"])
    with pytest.raises(DataError, match="input is passed by position, and alone"):
        from_text(reviews, tokenizer="bytes", length=20, inputs=("input", "attention_mask"))


def test_the_hash_is_of_the_content_and_repeats(reviews: Path) -> None:
    first, second = (from_text(reviews, tokenizer="chars", length=20) for _ in range(2))
    shorter = from_text(reviews, tokenizer="chars", length=20, train=40)
    assert first.sha256 == second.sha256 != shorter.sha256
    assert samples(shorter) == samples(first)[:40]
    with pytest.raises(DataError, match="train asks for the first 51 of 50 samples"):
        from_text(reviews, tokenizer="chars", length=20, train=51)


def test_files_in_memory_and_on_disk_are_the_same_data(reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = from_text(reviews, tokenizer="chars", length=20).sha256
    monkeypatch.setattr(module, "_limit", lambda: 0)
    assert from_text(reviews, tokenizer="chars", length=20).sha256 == before


def test_csv_and_jsonl_give_the_same_data(reviews: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in reviews.read_text(encoding="utf-8").splitlines()]
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["body", "kind"], *([row["text"], row["label"]] for row in rows)])
    columns = Columns("body", target="kind")
    assert from_text(tmp_path / "a.csv", tokenizer="chars", length=20, columns=columns).sha256 == (
        from_text(reviews, tokenizer="chars", length=20).sha256
    )


def test_a_test_file_and_a_validation_folder(reviews: Path, tmp_path: Path) -> None:
    test = jsonl(tmp_path / "test.jsonl", [{"text": "gamma", "label": "g"}])
    data = from_text(reviews, test, tokenizer="chars", length=20)
    assert (data.count("train"), samples(data, "test"), data.note) == (60, [("gamma", 3)], None)
    for part in ("train", "validation", "test"):
        for name in ("x", "y"):
            path = tmp_path / "folder" / part / name / "1.txt"
            path.parent.mkdir(parents=True)
            path.write_text(f"{part} {name}", encoding="utf-8")
    data = from_text(tmp_path / "folder", tokenizer="bytes", length=20)
    assert sorted(samples(data, "validation")) == [("validation x", 0), ("validation y", 1)]
    assert data.class_names == ("x", "y")


@pytest.mark.parametrize(
    ("labels", "classes", "names"),
    [
        ([0, 1, 2] * 4, 3, None),
        ([False, True] * 6, 2, None),
        ([1, 5, -2] * 4, 3, ("-2", "1", "5")),
        (["b", "a"] * 6, 2, ("a", "b")),
    ],
)
def test_classes_are_words_or_numbers(
    tmp_path: Path, labels: list[Any], classes: int, names: tuple[str, ...] | None
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": str(int(n)) if names is None else str(n), "label": n} for n in labels])
    data = from_text(path, tokenizer="bytes", length=5)
    assert (data.classes, data.class_names) == (classes, names)
    found = names or [str(number) for number in range(classes)]
    assert all(found[label] == text for text, label in samples(data))


def test_numbers_with_a_point_are_no_classes(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"{n / 2}", "label": n / 2} for n in range(12)])
    data = from_text(path, tokenizer="bytes", length=5)
    assert data.classes is None
    for given, targets in data.batches("train", 4, "regress")():
        assert targets.dtype == torch.float32
        said = [float(preparation(data).decode(ids)) for ids in given.kwargs["input_ids"]]
        assert targets.tolist() == [[value] for value in said]


def test_two_samples_are_enough(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    with pytest.raises(DataError, match=r"a\.jsonl:\d: the training part has no text of the class"):
        from_text(jsonl(tmp_path / "a.jsonl", rows), tokenizer="chars", length=5)
    data = from_text(tmp_path / "a.jsonl", tmp_path / "a.jsonl", tokenizer="chars", length=5)
    assert (data.count("train"), data.count("test"), data.example.rows) == (2, 2, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"a\.jsonl: the train part has no text"),
        ([{"text": "a", "label": 0}], "has one text; one to train on and one to test on"),
        ([{"text": "a", "label": 0}] * 9, "all labels of the training part are 0; two are needed"),
        ([{"text": "a", "label": "x"}, {"text": "", "label": "y"}], r"a\.jsonl:2: the text has no tokens; remove it"),
        (
            [{"text": "a", "label": "x"}, {"text": "a", "label": 3}] * 9,
            r"words and numbers as labels, at .*a\.jsonl:1 and .*a\.jsonl:2",
        ),
    ],
)
def test_what_is_no_data_set_of_texts(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_text(jsonl(tmp_path / "a.jsonl", rows), tokenizer="chars", length=5)


def test_unknown_characters_are_counted(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "a.jsonl", [{"text": "ab", "label": 0}, {"text": "ba", "label": 1}])
    test = jsonl(tmp_path / "b.jsonl", [{"text": "axyb", "label": 0}])
    data = from_text(train, test, tokenizer="chars", length=5)
    assert data.note == "Unknown characters, which the training part does not have: 2 of the test part's."
    assert samples(data, "test") == [("a\ufffd\ufffdb", 0)]
    assert preparation(data).described()["vocabulary"] == "ab"


# --- a tokenizer.json ---


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """Words, with marks at both ends as BERT has them."""
    library = pytest.importorskip("tokenizers")
    vocabulary = {name: number for number, name in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    made = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.post_processor = library.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.mark.usefixtures("stored")
def test_pairs_are_encoded_as_the_library_does(tmp_path: Path, tokenizer: Path) -> None:
    from tokenizers import Tokenizer

    rows = [{"one": " ".join(WORDS[: n % 4 + 1]), "two": WORDS[n % 3], "same": n % 2} for n in range(24)]
    path = jsonl(tmp_path / "pairs.jsonl", rows)
    columns, names = Columns("one", "two", "same"), ("input_ids", "token_type_ids", "attention_mask")
    data = from_text(path, path, tokenizer=str(tokenizer), length=6, columns=columns, inputs=names)
    library = Tokenizer.from_file(str(tokenizer))
    library.enable_truncation(6)
    library.enable_padding(length=6)
    theirs = [library.encode(row["one"], row["two"]) for row in rows]
    expected = {(*one.ids, *one.type_ids, *one.attention_mask) for one in theirs}
    (given, _) = next(iter(data.batches("train", 24, "classify")()))
    found = torch.cat([given.kwargs[name] for name in names], 1).tolist()
    assert {tuple(row) for row in found} == expected
    one = preparation(data).encode(rows[0]["one"], rows[0]["two"])
    assert tuple(torch.cat([one.kwargs[name] for name in names], 1)[0].tolist()) in expected
    assert data.note is not None
    assert f"{sum(len(o.overflowing) > 0 for o in theirs)} of 48 texts" not in data.note  # of both parts
    with pytest.raises(DataError, match=r"a pair of texts \(text_pair\) needs a tokenizer\.json"):
        from_text(path, tokenizer="bytes", length=6, columns=columns)


def test_a_cut_text_keeps_the_mark_at_its_end(tmp_path: Path, tokenizer: Path) -> None:
    rows = [{"text": "alpha beta gamma delta", "label": n % 2} for n in range(12)]
    data = from_text(jsonl(tmp_path / "a.jsonl", rows), tokenizer=str(tokenizer), length=4)
    assert data.example.kwargs["input_ids"].tolist() == [[1, 4, 5, 2]] * 2
    assert "12 of 12 texts have more than 4 tokens and are cut" in str(data.note)


def test_a_length_with_no_room_for_the_marks(tmp_path: Path, tokenizer: Path) -> None:
    rows = [{"text": "alpha", "label": n % 2} for n in range(12)]
    with pytest.raises(DataError, match=r"tokenizer\.json puts marks around each text"):
        from_text(jsonl(tmp_path / "a.jsonl", rows), tokenizer=str(tokenizer), length=1)


# --- one stream ---


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("size", [33, 34, 40, 41, 100, 1000])
def test_windows_are_slices_of_the_text(tmp_path: Path, size: int) -> None:
    text = "".join(chr(97 + n * n % 26) for n in range(size))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    data = from_text(tmp_path / "a.txt", tokenizer="bytes", length=8)
    ids = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    count = -(-(size - 1) // 8)
    whole = np.full(count * 8 + 1, -1)
    whole[:size] = ids
    inputs, targets = whole[:-1].reshape(count, 8), whole[1:].reshape(count, 8)
    batches = [next(iter(data.batches(part, 10**6, "language_model")())) for part in ("train", "test")]
    assert np.array_equal(torch.cat([given.args[0] for given, _ in batches]), np.where(inputs < 0, 256, inputs))
    assert np.array_equal(torch.cat([found for _, found in batches]), np.where(targets < 0, -100, targets))
    assert data.count("test") == max(1, count // 6)
    assert data.note == f"No test file: the test set is the last {count // 6 or 1} of {count_of(count, 'window')}."
    assert (data.classes, data.shape) == (None, (8,))


def test_windows_are_views(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab" * 5000, encoding="utf-8")
    data = from_text(tmp_path / "a.txt", tokenizer="chars", length=100)
    inputs, targets = data.train.tensors
    assert targets.data_ptr() == inputs.data_ptr() + inputs.element_size()
    assert inputs.untyped_storage().nbytes() == 2 * (100 * len(inputs) + 1)  # 16 bits a token


def test_texts_of_a_stream_are_put_apart(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": 1} for number in range(9)]
    path = jsonl(tmp_path / "a.jsonl", rows)
    data = from_text(path, path, tokenizer="bytes", length=20, columns=Columns(target=None))
    given, _ = next(iter(data.batches("train", 99, "language_model")()))
    assert preparation(data).decode(given.args[0].flatten()) == "\n\n".join(row["text"] for row in rows)[:80]


def test_the_preparation_of_a_language_model(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcd" * 50, encoding="utf-8")
    found = preparation(from_text(tmp_path / "a.txt", tokenizer="chars", length=8))
    assert found.encode("ab").args[0].tolist() == [[2, 3]]
    assert found.encode("abcd" * 5).args[0].tolist() == [[2, 3, 4, 5] * 2]
    assert found.decode(torch.tensor([2, 5, 0])) == "ad"
    assert found.described() == {
        "kind": "text",
        "tokenizer": "chars",
        "vocabulary": "abcd",
        "tokens": 6,
        "padding": 0,
        "unknown": 1,
        "length": 8,
        "inputs": ["input"],
        "next_token": True,
    }
    with pytest.raises(DataError, match="the text has no tokens"):
        found.encode("")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.txt: the train part has no text"),
        ("x", "has 0 tokens to predict"),
        ("x" * 8, "the train part has 0 tokens to predict, and a window has 8; give more text, or a smaller length"),
    ],
)
def test_too_little_text(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        from_text(tmp_path / "a.txt", tokenizer="bytes", length=8)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux how much memory is anonymous")
def test_memory_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of 60 MB, of which the ids are in a file: the process's own memory does not grow by as much."""

    def anonymous() -> int:
        resident, shared = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split()[1:3])
        return (resident - shared) * resource.getpagesize()

    line = "".join(chr(97 + n % 26) for n in range(999)) + "\n"
    (tmp_path / "a.txt").write_text(line * 60_000, encoding="utf-8")
    monkeypatch.setattr(module, "_limit", lambda: 1 << 20)
    before = anonymous()
    data = from_text(tmp_path / "a.txt", tokenizer="bytes", length=100)
    given, _ = next(iter(data.batches("train", 32, "language_model")(torch.Generator().manual_seed(0))))
    assert given.args[0].shape == (32, 100)
    assert anonymous() - before < 60 << 20


# --- the part that settings are chosen on ---


@pytest.mark.usefixtures("stored")
def test_a_share_of_the_training_texts(reviews: Path) -> None:
    """Its last ones; with the rest, they are what was trained on without it."""
    whole = samples(from_text(reviews, tokenizer="bytes", length=30))
    data = from_text(reviews, tokenizer="bytes", length=30, validation=0.2)
    assert [data.count(part) for part in ("train", "validation", "test")] == [40, 10, 10]  # type: ignore[arg-type]
    assert samples(data) + samples(data, "validation") == whole
    chosen = data.held_out(0.5)
    assert (samples(chosen), samples(chosen, "test")) == (whole[:40], whole[40:])


def test_a_share_of_the_windows_of_a_stream(tmp_path: Path) -> None:
    text = "".join(map(chr, range(33, 33 + 61)))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    data = from_text(tmp_path / "a.txt", tokenizer="bytes", length=5, validation=0.3)
    told = [
        "".join(preparation(data).decode(row) for row in given.tensors[0])
        for part in ("train", "validation", "test")
        for given, _ in data.batches(part, 100, "language_model")()  # type: ignore[arg-type]
    ]
    assert told == [text[:35], text[35:50], text[50:60]]


def test_a_file_of_their_own(reviews: Path, tmp_path: Path) -> None:
    other = jsonl(tmp_path / "other.jsonl", [{"text": f"beta{n}", "label": "b"} for n in range(3)])
    data = from_text(reviews, tokenizer="bytes", length=30, validation=str(other))
    assert sorted(samples(data, "validation")) == [(f"beta{n}", 1) for n in range(3)]
    assert data.count("train") == 50


def test_two_validation_parts_are_one_too_many(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        (tmp_path / "all" / part).mkdir(parents=True)
        (tmp_path / "all" / part / "a.txt").write_text("some text", encoding="utf-8")
    with pytest.raises(DataError, match="has a validation part of its own; remove `validation`, or the part"):
        from_text(tmp_path / "all", tokenizer="bytes", length=4, columns=Columns(target=None), validation=0.5)
