"""The data sets inside packages, beside the readers of those packages where they can be imported."""

import gzip
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compress.data import packaged
from compress.data.array_dataset import ArrayDataset
from compress.data.preparation import Preparation
from compress.errors import DataError

MODULES = {"shuttle": "river", "breast_cancer": "sklearn", "japanese_vowels": "aeon"}
SOURCES: dict[str, Callable[..., ArrayDataset]] = {
    "shuttle": packaged.shuttle,
    "breast_cancer": packaged.breast_cancer,
    "japanese_vowels": packaged.japanese_vowels,
}
PIP = {"shuttle": "river", "breast_cancer": "scikit-learn", "japanese_vowels": "aeon"}

TABLE = "a,b,c,d,e,f,g,h,i,anomaly\n" + "1,2,3,4,5,6,7,8,9,0\n" * 11_000
ROW = ",".join(["1.5"] * 30)
CANCER = "200,30,malignant,benign\n" + f"{ROW},0\n{ROW},1\n" * 100
SERIES = "@problemName x\n@dimensions 2\n@classLabel true a b\n@data\n1,2,3:4,5,6:a\n7,8:9,10:b\n"


def installed(name: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(MODULES[name]) is None
    return pytest.mark.skipif(absent, reason=f"{MODULES[name]} is not installed")


every = pytest.mark.parametrize("name", [pytest.param(name, marks=installed(name)) for name in SOURCES])


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, bytes]], None]:
    """Put files into an empty package of the name, which is found in the place of the real one."""

    def place(package: str, files: dict[str, bytes]) -> None:
        for name, content in {"__init__.py": b"raise RuntimeError('it was imported')", **files}.items():
            (tmp_path / package / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / package / name).write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, package, raising=False)

    return place


def shuttle_file(text: str) -> dict[str, bytes]:
    return {"datasets/shuttle.csv.gz": gzip.compress(text.encode())}


def vowel_files(train: str, test: str = SERIES) -> dict[str, bytes]:
    parts = {"TRAIN": train, "TEST": test}
    return {f"datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts": text.encode() for part, text in parts.items()}


FILES: dict[str, Callable[[str], dict[str, bytes]]] = {
    "shuttle": shuttle_file,
    "breast_cancer": lambda text: {"datasets/data/breast_cancer.csv": text.encode()},
    "japanese_vowels": vowel_files,
}


# --- the content ---


def raw(preparation: Preparation, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows of a table as they were before they were standardised."""
    columns = preparation.described()["columns"]
    mean, std = ([column[key] for column in columns] for key in ("mean", "std"))
    found: NDArray[np.float64] = rows * np.array(std) + mean
    return found


@every
def test_it_is_the_same_data_each_time_without_importing_the_package(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, MODULES[name], raising=False)
    first, again = SOURCES[name](), SOURCES[name]()
    assert first.sha256 == again.sha256
    assert first.class_names is not None
    assert first.classes == len(first.class_names)
    assert MODULES[name] not in sys.modules
    for part in (first.train, first.test):
        assert part.targets is not None
        assert set(part.targets.tolist()) == set(range(first.classes))


@installed("shuttle")
def test_shuttle_is_its_file_standardised_by_the_normal_rows_of_the_training_part() -> None:
    found = packaged.shuttle()
    path = packaged.packaged("shuttle", "river", "datasets/shuttle.csv.gz")
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    assert (found.count("train"), found.count("test"), found.shape) == (39_097, 10_000, (9,))
    train, test = (part.inputs["input"].numpy() for part in (found.train, found.test))
    assert found.train.targets is not None
    assert found.test.targets is not None
    normal = train[found.train.targets == 0].astype(np.float64)
    np.testing.assert_allclose(normal.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std(0), 1, rtol=1e-5)
    rows = raw(found.preparation, np.concatenate([train, test]))
    labels = torch.cat([found.train.targets, found.test.targets])
    whole = np.column_stack([rows.round().astype(int), labels])
    assert sorted(map(tuple, whole)) == sorted(map(tuple, table.astype(int)))
    assert int(labels.sum()) == 3511


@installed("breast_cancer")
def test_breast_cancer_is_what_scikit_learn_loads() -> None:
    from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped]

    found, expected = packaged.breast_cancer(), load_breast_cancer()
    columns = [column["name"] for column in found.preparation.described()["columns"]]
    assert found.class_names == tuple(expected.target_names)
    words = [word.replace("error", "error of") for word in expected.feature_names]
    assert columns[:10] == words[:10] == expected.feature_names[:10].tolist()
    assert sorted(" ".join(columns).split()) == sorted(" ".join(words).split())
    rows = np.concatenate([part.inputs["input"].numpy() for part in (found.train, found.test)])
    labels = torch.cat([found.train.targets, found.test.targets])  # type: ignore[list-item]
    order = np.random.default_rng(0).permutation(569)
    np.testing.assert_allclose(raw(found.preparation, rows), expected.data[order], rtol=1e-5, atol=1e-6)
    assert np.array_equal(labels, expected.target[order])
    assert (found.count("train"), found.count("test")) == (400, 169)


@installed("japanese_vowels")
def test_japanese_vowels_are_padded_and_standardised_over_valid_steps() -> None:
    found = packaged.japanese_vowels()
    assert (found.count("train"), found.count("test"), found.shape) == (270, 370, (29, 12))
    for part, least, most in ((found.train, 7, 26), (found.test, 7, 29)):
        inputs, lengths = part.inputs["inputs"], part.inputs["lengths"]
        valid = torch.arange(29) < lengths[:, None]
        assert (int(lengths.min()), int(lengths.max())) == (least, most)
        assert not inputs[~valid].any()
        assert inputs[valid].any(1).all()
        if part is found.train:
            torch.testing.assert_close(inputs[valid].mean(0), torch.zeros(12), atol=1e-5, rtol=0)
            torch.testing.assert_close(inputs[valid].std(0, correction=0), torch.ones(12))
    assert found.train.targets is not None
    assert torch.bincount(found.train.targets).tolist() == [30] * 9
    # The first test series of the file: its first value, and its number of steps.
    scale = found.preparation.described()["inputs"]["inputs"]
    path = packaged.packaged("japanese_vowels", "aeon", "datasets/data/JapaneseVowels/JapaneseVowels_TEST.ts")
    line = path.read_text(encoding="utf-8").partition("@data\n")[2].partition("\n")[0]
    channel = [float(word) for word in line.split(":")[3].split(",")]
    series = found.test.inputs["inputs"][0, : len(channel), 3].numpy()
    np.testing.assert_allclose(series * scale["std"][3] + scale["mean"][3], channel, rtol=1e-4, atol=1e-5)
    assert int(found.test.inputs["lengths"][0]) == len(channel)


@installed("japanese_vowels")
def test_limits_take_the_first_samples_and_their_statistics() -> None:
    whole, few = packaged.japanese_vowels(), packaged.japanese_vowels(train=20, test=30)
    assert (few.count("train"), few.count("test")) == (20, 30)
    assert torch.equal(few.train.inputs["lengths"], whole.train.inputs["lengths"][:20])
    assert few.preparation != whole.preparation
    with pytest.raises(DataError, match="train asks for the first 271 of 270 samples"):
        packaged.japanese_vowels(train=271)


@every
def test_a_validation_part_is_the_end_of_the_training_part(name: str) -> None:
    whole, split = SOURCES[name](), SOURCES[name](validation=0.25)
    there, trained, chosen_on = whole.count("train"), split.count("train"), split.count("validation")
    assert there is not None
    assert (trained, chosen_on) == (there - round(there / 4), round(there / 4))
    assert whole.train.targets is not None
    assert split.validation is not None
    assert torch.equal(torch.cat([split.train.targets, split.validation.targets]), whole.train.targets)  # type: ignore[list-item]
    assert split.preparation != whole.preparation
    assert split.sha256 != whole.sha256


# --- what is wrong with a file ---


def test_stand_ins_are_read(stand_in: Callable[[str, dict[str, bytes]], None]) -> None:
    """So that what the cases below change is what is refused."""
    stand_in("river", shuttle_file(TABLE))
    stand_in("sklearn", FILES["breast_cancer"](CANCER))
    stand_in("aeon", vowel_files(SERIES))
    assert packaged.shuttle().count("train") == 1_000
    assert packaged.breast_cancer().class_names == ("malignant", "benign")
    assert packaged.japanese_vowels().train.inputs["lengths"].sum() == 5


@pytest.mark.parametrize("name", SOURCES)
def test_an_absent_package_is_named_with_the_way_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(DataError, match=rf"{name} .* pip install --no-deps {PIP[name]} .*'softprune\[samples\]'"):
        SOURCES[name]()


@pytest.mark.parametrize("name", SOURCES)
def test_a_package_without_the_file(name: str, stand_in: Callable[[str, dict[str, bytes]], None]) -> None:
    stand_in(MODULES[name], {})
    with pytest.raises(DataError, match=rf"{name} is the file datasets.* does not have it: install another version"):
        SOURCES[name]()


WRONG = {
    "empty table": ("shuttle", "", "is empty"),
    "ragged": ("shuttle", TABLE + "1,2,3\n", "line 11002: found 3 values; expected 10"),
    "text": ("shuttle", TABLE.replace("9,0\n", "9,x\n", 1), "line 2: could not convert string to float: 'x'"),
    "not a number": ("shuttle", TABLE.replace("1,2", "nan,2", 1), "line 2: found a value that is not finite"),
    "class": ("shuttle", TABLE.replace("9,0\n", "9,2\n", 1), "line 2: found the class 2; expected 0 to 1"),
    "half a class": ("shuttle", TABLE.replace("9,0\n", "9,0.5\n", 1), "line 2: found the class 0.5"),
    "other columns": ("shuttle", "a,b\n1,2\n", "line 1: found 'a,b'; expected the names of 9 columns"),
    "header only": ("shuttle", TABLE.partition("\n")[0], "no row"),
    "few rows": ("shuttle", "\n".join(TABLE.splitlines()[:50]), "rows, of which 10000 are the test part"),
    "other count": ("breast_cancer", CANCER.replace("200", "201", 1), "line 1: found '201,30,malignant,benign'"),
    "no header": ("breast_cancer", f"{ROW},0\n", "line 1: found"),
    "ragged measurements": ("breast_cancer", CANCER.replace("1.5,", "", 1), "line 2: found 30 values; expected 31"),
    "no data": ("japanese_vowels", SERIES.partition("@data")[0], "is not a .ts file with classes"),
    "no series": ("japanese_vowels", SERIES.partition("@data\n")[0] + "@data\n", "has no series after @data"),
    "channels": (
        "japanese_vowels",
        SERIES + "1,2:b\n",
        "line 7: found 1 channel and the class 'b'; expected 2 and one",
    ),
    "unknown class": ("japanese_vowels", SERIES + "1,2:3,4:c\n", "line 7: found 2 channels and the class 'c'"),
    "lengths": ("japanese_vowels", SERIES + "1,2:3:a\n", "line 7: its channels have different lengths"),
    "words": ("japanese_vowels", SERIES + "1,?:3,4:a\n", "line 7: could not convert string to float"),
    "other channels": ("japanese_vowels", SERIES.replace("a b", "a b c"), "TEST.ts: its classes or channels are not"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_damaged_file_is_refused_with_its_line(case: str, stand_in: Callable[[str, dict[str, bytes]], None]) -> None:
    name, text, message = WRONG[case]
    stand_in(MODULES[name], FILES[name](text))
    with pytest.raises(DataError, match=message):
        SOURCES[name]()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(TABLE.encode())[:-20], "not a readable"),
        (b"no gzip", "not a readable"),
        (gzip.compress(b"\xff\xfe" + TABLE.encode()), "not a readable"),
    ],
    ids=["truncated", "no gzip", "encoding"],
)
def test_a_damaged_archive(content: bytes, message: str, stand_in: Callable[[str, dict[str, bytes]], None]) -> None:
    stand_in("river", {"datasets/shuttle.csv.gz": content})
    with pytest.raises(DataError, match=message):
        packaged.shuttle()


def test_an_archive_that_unpacks_to_far_more(
    stand_in: Callable[[str, dict[str, bytes]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "MOST_BYTES", 1000)
    stand_in("river", shuttle_file(TABLE))
    with pytest.raises(DataError, match="unpacks to more than 1,000 bytes"):
        packaged.shuttle()
