"""Tables as data sets, against numpy on the same rows: statistics, inputs, targets, parts; and bad values by place."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.data.array_dataset import ArrayDataset, Samples
from compress.data.table_columns import TableSettings
from compress.data.table_files import CsvFile, ParquetFile
from compress.data.tables import from_table
from compress.errors import DataError

RNG = np.random.default_rng(0)
CITIES = ("Rome", "Bonn", "Oslo")


def table_of(rows: int = 60) -> dict[str, list[Any]]:
    return {
        "age": RNG.integers(18, 90, rows).tolist(),
        "city": [CITIES[place] for place in RNG.integers(0, 3, rows)],
        "height": np.round(RNG.normal(1.7, 0.1, rows), 3).tolist(),
        "ill": [("yes", "no")[number] for number in RNG.integers(0, 2, rows)],
    }


def written(path: Path, columns: dict[str, Sequence[Any]]) -> CsvFile:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return CsvFile(path)


def lines(path: Path, text: str) -> CsvFile:
    path.write_text(text, encoding="utf-8")
    return CsvFile(path)


def shuffled(count: int) -> np.ndarray:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()


def only(samples: Samples) -> np.ndarray:
    (tensor,) = samples.inputs.values()
    return tensor.numpy()


SETTINGS = TableSettings(target=("ill",), categorical=("city",))


def test_inputs_and_targets_are_those_that_numpy_makes(tmp_path: Path) -> None:
    columns, others = table_of(), table_of(20)
    found = from_table(written(tmp_path / "a.csv", columns), written(tmp_path / "b.csv", others), SETTINGS)
    for part, rows in ((found.train, columns), (found.test, others)):
        order = torch.randperm(len(rows["age"]), generator=torch.Generator().manual_seed(0)).numpy()
        age, height = (
            (np.array(rows[name]) - np.mean(columns[name])) / np.std(columns[name]) for name in ("age", "height")
        )
        city = np.array(rows["city"])[:, None] == np.array(sorted(CITIES))
        np.testing.assert_allclose(only(part), np.column_stack([age, city, height])[order], rtol=1e-6, atol=1e-7)
        assert part.targets is not None
        assert part.targets.tolist() == [["no", "yes"].index(word) for word in np.array(rows["ill"])[order]]
    assert (found.classes, found.class_names, found.note) == (2, ("no", "yes"), None)
    assert found.shape == (5,)


def test_the_preparation_repeats_the_inputs(tmp_path: Path) -> None:
    columns = table_of()
    found = from_table(written(tmp_path / "a.csv", columns), written(tmp_path / "b.csv", columns), SETTINGS)
    described = json.loads(json.dumps(found.preparation.described()))
    order = shuffled(60)
    made: list[np.ndarray] = []
    for column in described["columns"]:
        values = np.array(columns[column["name"]])
        if column["kind"] == "number":
            made.append((values - column["mean"]) / column["std"])
        else:
            made += [values == category for category in column["categories"]]
    np.testing.assert_array_equal(only(found.train), np.stack(made, 1)[order].astype(np.float32))
    assert described["targets"] == [{"name": "ill", "kind": "category", "categories": ["no", "yes"], "fill": None}]


def test_without_a_test_file_rows_are_held_out_and_not_learned_from(tmp_path: Path) -> None:
    columns = table_of()
    found = from_table(written(tmp_path / "a.csv", columns), settings=SETTINGS)
    order = shuffled(60)
    assert (found.count("train"), found.count("validation"), found.count("test")) == (50, None, 10)
    trained_on = np.array(columns["age"])[order[:50]]
    age = found.preparation.described()["columns"][0]
    assert age["mean"] == pytest.approx(trained_on.mean(), rel=1e-12)
    assert age["std"] == pytest.approx(trained_on.std(), rel=1e-12)
    np.testing.assert_allclose(
        only(found.test)[:, 0], (np.array(columns["age"])[order[50:]] - age["mean"]) / age["std"], rtol=1e-6, atol=1e-7
    )
    assert found.note is not None
    assert "the test set is 10 of 60 rows, chosen at random" in found.note


def test_fewer_rows_are_the_first_of_them(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", table_of())
    settings = TableSettings(target=("ill",), categorical=("city",), normalise="none")
    whole, some = from_table(file, settings=settings), from_table(file, settings=settings, train=20, test=5)
    assert np.array_equal(only(some.train), only(whole.train)[:20])
    assert np.array_equal(only(some.test), only(whole.test)[:5])
    with pytest.raises(DataError, match="train asks for 51 of 50 samples"):
        from_table(file, settings=settings, train=51)


def test_a_validation_share_is_no_part_of_training(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", table_of())
    settings = TableSettings(target=("ill",), categorical=("city",), normalise="none")
    whole, split = from_table(file, settings=settings), from_table(file, settings=settings, validation=0.2)
    assert split.validation is not None
    assert np.array_equal(np.concatenate([only(split.train), only(split.validation)]), only(whole.train))
    assert split.count("validation") == 10
    assert np.array_equal(only(split.held_out(0.5).test), only(split.validation))
    with pytest.raises(DataError, match="50 of them are to be held out"):
        from_table(file, settings=settings, validation=0.999)


def test_a_validation_file_is_prepared_like_the_training_rows(tmp_path: Path) -> None:
    columns = table_of()
    file = written(tmp_path / "a.csv", columns)
    found = from_table(file, file, SETTINGS, validation=file)
    assert found.validation is not None
    assert np.array_equal(only(found.validation), only(found.train))


@pytest.mark.parametrize("embed", [False, True])
@pytest.mark.parametrize("target", [("ill",), ("height", "age")])
def test_a_table_beyond_memory_is_the_same_bit_for_bit(tmp_path: Path, embed: bool, target: tuple[str, ...]) -> None:
    columns = table_of()
    columns["ill"][3] = "perhaps"
    file = written(tmp_path / "a.csv", columns)
    categorical = ("city",) if target == ("ill",) else ("city", "ill")
    settings = TableSettings(target=target, categorical=categorical, embed=embed, impute="median")
    small, large = (from_table(file, settings=settings, limit=limit) for limit in (10**9, 100))
    assert small.sha256 == large.sha256
    assert small.preparation.described() == large.preparation.described()
    for one, other in zip(small.train.tensors, large.train.tensors, strict=True):
        assert torch.equal(one, other)


def test_categories_as_codes(tmp_path: Path) -> None:
    columns = table_of()
    settings = TableSettings(target=("ill",), categorical=("city",), embed=True)
    found = from_table(written(tmp_path / "a.csv", columns), settings=settings)
    order = shuffled(60)[:50]
    assert set(found.train.inputs) == {"numbers", "codes"}
    assert found.train.inputs["codes"].dtype == torch.int64
    assert found.train.inputs["codes"][:, 0].tolist() == [
        sorted(CITIES).index(columns["city"][row]) + 1 for row in order
    ]
    assert found.example.kwargs.keys() == {"numbers", "codes"}
    assert found.preparation.described()["categories_as"] == "codes"


def test_an_unknown_category_is_an_error_or_zeros(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.csv", "a,c,y\n1,x,0\n2,y,1\n3,x,0\n4,y,1\n")
    test_file = lines(tmp_path / "b.csv", "a,c,y\n1,x,0\n2,z,1\n")
    with pytest.raises(DataError, match=r"b\.csv, line 3, column 'c': found 'z', a category.*or set `unknown: zero`"):
        from_table(file, test_file, TableSettings(("y",), ("c",)))
    found = from_table(file, test_file, TableSettings(("y",), ("c",), unknown="zero"))
    assert sorted(only(found.test)[:, 1:].tolist()) == [[0, 0], [1, 0]]
    found = from_table(file, test_file, TableSettings(("y",), ("c",), unknown="zero", embed=True))
    assert sorted(found.test.inputs["codes"].tolist()) == [[0], [1]]


def test_missing_values_are_errors_or_filled_from_the_training_rows(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.csv", "a,c,y\n1,x,0\n,y,1\n7,NA,0\n9,y,1\nn/a,y,0\n")
    test_file = lines(tmp_path / "b.csv", "a,c,y\nNaN,null,0\n")
    with pytest.raises(DataError, match=r"a\.csv, line 3, column 'a': the value is missing; leave the row out, or set"):
        from_table(file, test_file, TableSettings(("y",), ("c",)))
    settings = TableSettings(("y",), ("c",), impute="median", normalise="none")
    found = from_table(file, test_file, settings)
    assert only(found.test).tolist() == [[7, 0, 1]]
    assert sorted(only(found.train)[:, 0].tolist()) == [1, 7, 7, 7, 9]
    assert [column["fill"] for column in found.preparation.described()["columns"]] == [7, "y"]
    scaled = from_table(file, test_file, TableSettings(("y",), ("c",), impute="median")).preparation.described()
    assert scaled["columns"][0]["mean"] == pytest.approx(np.mean([1, 7, 7, 7, 9]))
    assert scaled["columns"][0]["std"] == pytest.approx(np.std([1, 7, 7, 7, 9]))


@pytest.mark.parametrize("value", ["0.1", "-3", "1e30", "0"])
def test_a_constant_column_becomes_zero(tmp_path: Path, value: str) -> None:
    found = from_table(lines(tmp_path / "a.csv", "a,b,y\n" + f"{value},1,0\n{value},2,1\n" * 50))
    assert np.abs(only(found.train)[:, 0]).max() < 1e-6
    assert found.preparation.described()["columns"][0]["std"] == 1


@pytest.mark.parametrize(
    ("values", "classes", "names"),
    [
        (["b", "a", "c"], 3, ("a", "b", "c")),
        (["10", "9", "-1"], 3, ("-1", "9", "10")),
        (["yes", "1", "no"], 3, ("1", "no", "yes")),
        (["0.5", "2", "1"], None, None),
        (["1e3", "2", "3"], 3, ("2", "3", "1000")),
    ],
)
def test_a_target_is_classes_or_numbers(
    tmp_path: Path, values: list[str], classes: int | None, names: tuple[str, ...] | None
) -> None:
    rows = [values[number % 3] for number in range(30)]
    file = written(tmp_path / "a.csv", {"a": list(range(30)), "y": rows})
    found = from_table(file, file, TableSettings(("y",)))
    assert (found.classes, found.class_names) == (classes, names)
    order = shuffled(30).tolist()
    assert found.train.targets is not None
    if names is None:
        assert found.train.targets.dtype == torch.float32
        assert found.train.targets.tolist() == [[float(rows[row])] for row in order]
    elif "1000" not in names:
        assert [names[label] for label in found.train.targets.tolist()] == [rows[row] for row in order]


def test_what_a_target_is_can_be_said(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", {"a": list(range(120)), "y": [f"{number // 1}" for number in range(120)]})
    with pytest.raises(DataError, match=r"'y' has more than 100 different whole numbers; say whether"):
        from_table(file, file, TableSettings(("y",)))
    assert from_table(file, file, TableSettings(("y",), classes=True)).classes == 120
    numbers = from_table(file, file, TableSettings(("y",), classes=False)).train.targets
    assert numbers is not None
    assert sorted(numbers.flatten().tolist()) == list(range(120))


def test_several_targets_are_numbers_which_may_be_scaled(tmp_path: Path) -> None:
    columns = {"a": RNG.normal(size=30), "y": RNG.normal(5, 3, 30), "z": RNG.integers(0, 2, 30)}
    file = written(tmp_path / "a.csv", columns)
    found = from_table(file, file, TableSettings(("z", "y"), normalise_target=True))
    order = shuffled(30)
    wanted = np.stack([(columns[name] - columns[name].mean()) / columns[name].std() for name in ("z", "y")], 1)
    assert found.train.targets is not None
    np.testing.assert_allclose(found.train.targets.numpy(), wanted[order], rtol=1e-5, atol=1e-6)
    assert [column["name"] for column in found.preparation.described()["targets"]] == ["z", "y"]
    assert (found.classes, found.shape) == (None, (1,))


def test_without_a_target_the_inputs_are_compared(tmp_path: Path) -> None:
    found = from_table(written(tmp_path / "a.csv", {"a": range(30), "b": range(30)}))
    assert found.train.targets is None
    given, target = next(iter(found.batches("train", 4, "reconstruct")()))
    assert given.tensors[0] is target


def test_columns_may_be_in_another_order_in_the_test_file(tmp_path: Path) -> None:
    columns = table_of()
    file = written(tmp_path / "a.csv", columns)
    other = written(
        tmp_path / "b.csv", {name: columns[name] for name in ("ill", "height", "city", "age")} | {"more": [0] * 60}
    )
    found = from_table(file, other, SETTINGS)
    assert np.array_equal(only(found.train), only(found.test))


def test_parquet_is_the_same_as_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = table_of()
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    one = from_table(written(tmp_path / "a.csv", columns), settings=SETTINGS)
    other = from_table(ParquetFile(tmp_path / "a.parquet"), settings=SETTINGS)
    assert one.sha256 == other.sha256


def test_numbers_of_parquet_may_be_categories(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"a": [10, 9, 10, 9], "b": [0.5, 1.0, 0.5, 1.0], "y": [1, 2, 1, 2]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    file = ParquetFile(tmp_path / "a.parquet")
    described = from_table(file, file, TableSettings(("y",), ("a", "b"))).preparation.described()
    assert [column["categories"] for column in described["columns"]] == [["9", "10"], ["0.5", "1"]]


def test_a_batch_may_be_larger_than_the_data(tmp_path: Path) -> None:
    found = from_table(lines(tmp_path / "a.csv", "a,y\n1,0.5\n2,1.5\n"), settings=TableSettings(("y",)))
    assert (found.count("train"), found.count("test")) == (1, 1)
    (batch,) = list(found.batches("train", 1000, "regress")())
    assert batch[0].rows == 1
    assert found.example.rows == 2  # of the only sample, twice


def test_a_column_of_identifiers_is_noted(tmp_path: Path) -> None:
    columns = {"id": RNG.permutation(1000)[:60], "name": [f"n{number}" for number in range(60)], **table_of()}
    found = from_table(written(tmp_path / "a.csv", columns), settings=TableSettings(("ill",), ("city", "name")))
    assert found.note is not None
    assert "The column 'id' has another value in each row" in found.note
    assert "The column 'name' has another value in each row" in found.note
    assert "'height'" not in found.note
    assert "'age'" not in found.note


def refused(tmp_path: Path, text: str, settings: TableSettings | None = None, test: str | None = None) -> str:
    file = lines(tmp_path / "a.csv", text)
    test_file = None if test is None else lines(tmp_path / "b.csv", test)
    with pytest.raises(DataError) as caught:
        from_table(file, test_file, settings or TableSettings(("y",)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


GOOD = "age,y\n1,0\n2,1\n3,0\n4,1\n"


@pytest.mark.parametrize(
    ("text", "settings", "test", "message"),
    [
        (GOOD, TableSettings(("Y",)), None, "has no column 'Y' (target); it has age, y; did you mean y?"),
        (
            GOOD,
            TableSettings(("y",), ("agee",)),
            None,
            "(categorical); it has age, y; did you mean age?",
        ),
        (GOOD, TableSettings(("y",), (), ("x",)), None, "has no column 'x' (drop)"),
        ("1,2\n3,4\n", None, None, "it has 1, 2; if the file has no header, name its columns with `columns`"),
        (GOOD, TableSettings(("y",), ("y",)), None, "'y' is the target, which is not an input"),
        (GOOD, TableSettings(("y",), ("age",), ("age",)), None, "'age' is both categorical and to be dropped"),
        (GOOD, TableSettings(("y",), (), ("age",)), None, "has no column besides the target"),
        ("age,y\n", None, None, "has a header and no row; samples are rows"),
        ("age,y\n1,0.5\n", None, None, "has one row; one to train on and one to test on are needed"),
        ("age,y\n1,a\n2,a\n", None, None, "the target 'y' is the same in all rows; there is nothing to predict"),
        ("age,y\n3.5,0\nx,1\n", None, None, "line 3, column 'age': found 'x', which is not a number; fix it, or name"),
        ("age,y\n3.5,0\nn/a,1\n", None, None, "line 3, column 'age': the value is missing (found 'n/a')"),
        (
            'age,y\n3.5,0\n"1,5",1\n',
            None,
            None,
            "found '1,5', which is not a number; write numbers with a decimal point",
        ),
        (
            "age,y\n2020-01-31,0\n",
            None,
            None,
            "found '2020-01-31', which is not a number; a date is not a number: leave",
        ),
        ("age,y\n31.1.2020 10:00,0\n", None, None, "a date is not a number"),
        ("age,y\n1,0\ninf,1\n", None, None, "line 3, column 'age': found 'inf', beyond what float32 holds"),
        (f"age,y\n{'9' * 400},0\n", None, None, "line 2, column 'age': found '9999"),
        ("age,y\n1e39,0\n", None, None, "found '1e39', beyond what float32 holds; rescale the column"),
        (
            "age,y\n1,0\n2,\n",
            None,
            None,
            "line 3, column 'y': the value is missing; leave the row out: a target is not",
        ),
        ("age,y\n1,\n2,0\n", TableSettings(("y",), impute="median"), None, "column 'y': the value is missing"),
        (
            "age,y\n,0\n,1\n,0\n",
            TableSettings(("y",), impute="median"),
            None,
            "'age' has no value in the training part",
        ),
        ("age,y,z\n1,0,a\n", TableSettings(("y", "z")), None, "found 'a', which is not a number; several targets must"),
        (GOOD, TableSettings(("y", "age"), classes=True), None, "has no column besides the target"),
        ("a,y,z\n1,0,1\n2,1,0\n", TableSettings(("y", "z"), classes=True), None, "`classes: true` is for one target"),
        ("age,y\n1,a\n2,b\n", TableSettings(("y",), classes=False), None, "classes in words need `classes: true`"),
        (GOOD, None, "age\n1\n", "b.csv has no column 'y'"),
        (
            GOOD,
            None,
            "age,y\n1,2\n",
            "b.csv, line 2, column 'y': found '2', a class that the training file does not have",
        ),
        ("age,y\n1,a\n2,b\n", None, "age,y\n1,c\n", "b.csv, line 2, column 'y': found 'c', a class that"),
        ("age,y\n1,0.5\n2,1.5\n", None, "age,y\n1,c\n", "b.csv, line 2, column 'y': found 'c', which is not a number"),
        (GOOD, None, "age,y\n", "b.csv has a header and no row"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, settings: TableSettings | None, test: str | None, message: str) -> None:
    assert message in refused(tmp_path, text, settings, test)


def test_a_class_without_a_training_row_is_refused(tmp_path: Path) -> None:
    order = shuffled(60).tolist()
    rows = ["ab"[number % 2] for number in range(60)]
    rows[order[-1]] = "rare"
    text = "age,y\n" + "".join(f"{number},{word}\n" for number, word in enumerate(rows))
    assert "the class 'rare' has no training row, and is in another part; add rows of it" in refused(tmp_path, text)


def test_words_that_appear_late_in_a_column_of_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.data.table_files.PIECE_CELLS", 20)
    text = "age,y\n" + "1,0\n2,1\n" * 20 + "3,many\n"
    assert "line 42, column 'y': found 'many', which is not a number; classes in words" in refused(tmp_path, text)
    assert (
        from_table(
            lines(tmp_path / "a.csv", text + "3,many\n" * 9), settings=TableSettings(("y",), classes=True)
        ).classes
        == 3
    )


def test_too_many_categories(tmp_path: Path) -> None:
    text = "c,y\n" + "".join(f"n{number},{number % 2}\n" for number in range(1001))
    message = refused(tmp_path, text, TableSettings(("y",), ("c",)))
    assert "line 1002, column 'c': the column has more than 1,000 categories; leave it out with `drop`, or" in message
    found = from_table(lines(tmp_path / "a.csv", text), settings=TableSettings(("y",), ("c",), embed=True))
    assert found.shape == (1,)


def test_data_of_a_table_are_a_data_set(tmp_path: Path) -> None:
    found: ArrayDataset = from_table(written(tmp_path / "a.csv", table_of()), settings=SETTINGS)
    again = from_table(written(tmp_path / "b.csv", table_of()), settings=SETTINGS)
    assert found.sha256 != again.sha256
    batches = found.batches("train", 16, "classify")
    rows = [given.tensors[0] for given, _ in batches(torch.Generator().manual_seed(1))]
    assert len(batches) == len(rows) == 4
    assert sorted(torch.cat(rows).tolist()) == sorted(only(found.train).tolist())
