"""Windows over a long series, against loops over the rows; what each part may know."""

from pathlib import Path

import numpy as np
import pytest
import torch

from compress.data.array_dataset import Samples
from compress.data.series import Windows, from_series
from compress.data.table_columns import TableSettings
from compress.data.table_files import CsvFile
from compress.errors import DataError

RNG = np.random.default_rng(0)
ROWS = RNG.normal(3, 2, (60, 3))


def series(path: Path, rows: np.ndarray = ROWS) -> CsvFile:
    text = "load,temp,wind\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist())
    path.write_text(text, encoding="utf-8")
    return CsvFile(path)


def looped(rows: np.ndarray, windows: Windows, targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of all windows, one after the other."""
    starts = [start for start in range(0, len(rows), windows.stride) if start + windows.rows <= len(rows)]
    inputs = [rows[start : start + windows.window] for start in starts]
    after = [rows[start + windows.window : start + windows.rows, :targets] for start in starts]
    return np.array(inputs, np.float32), np.array(after, np.float32)


def require_equal(found: Samples, wanted: tuple[np.ndarray, np.ndarray]) -> None:
    assert found.targets is not None
    np.testing.assert_allclose(found.inputs["input"].numpy(), wanted[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.targets.numpy(), wanted[1], rtol=1e-6, atol=1e-7)
    assert found.inputs["input"].shape == wanted[0].shape
    assert found.targets.shape == wanted[1].shape


@pytest.mark.parametrize("windows", [Windows(5, 2), Windows(5, 2, 3), Windows(1, 1), Windows(8, 4, 10)])
def test_windows_are_those_of_a_loop(tmp_path: Path, windows: Windows) -> None:
    settings = TableSettings(target=("wind", "load"), normalise="none")
    found = from_series(series(tmp_path / "a.csv"), None, windows, settings=settings)
    rows = ROWS[:, [2, 0, 1]]  # targets first
    require_equal(found.train, looped(rows[:50], windows, 2))
    require_equal(found.test, looped(rows[50 - windows.window :], windows, 2))
    assert found.note == "No test file: the test set predicts the last 10 of 60 rows."


def test_statistics_are_those_of_the_rows_of_training_windows(tmp_path: Path) -> None:
    windows = Windows(5, 2, 4)
    found = from_series(series(tmp_path / "a.csv"), None, windows, settings=TableSettings(("load",)), train=3)
    used = ROWS[: 2 * 4 + 7]
    scaled = (ROWS - used.mean(0)) / used.std(0)
    inputs, targets = looped(scaled[:50], windows, 1)
    require_equal(found.train, (inputs[:3], targets[:3]))
    require_equal(found.test, looped(scaled[45:], windows, 1))
    described = found.preparation.described()
    assert [column["name"] for column in described["columns"]] == ["load", "temp", "wind"]
    assert (described["window"], described["horizon"], described["targets"]) == (5, 2, ["load"])
    np.testing.assert_allclose([column["mean"] for column in described["columns"]], used.mean(0))


def test_without_a_target_all_numbers_are_predicted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("kind,a,b\n" + "".join(f"{'xy'[row % 2]},{row},{-row}\n" for row in range(30)), encoding="utf-8")
    found = from_series(CsvFile(path), None, Windows(3, 1), settings=TableSettings(categorical=("kind",)))
    assert found.train.targets is not None
    assert (found.shape, tuple(found.train.targets.shape[1:])) == ((3, 4), (1, 2))


def test_a_validation_share_lies_between_training_and_test(tmp_path: Path) -> None:
    windows = Windows(5, 2)
    settings = TableSettings(("load",), normalise="none")
    found = from_series(series(tmp_path / "a.csv"), None, windows, settings=settings, validation=0.2)
    assert found.validation is not None
    require_equal(found.train, looped(ROWS[:40], windows, 1))
    require_equal(found.validation, looped(ROWS[35:50], windows, 1))
    require_equal(found.test, looped(ROWS[45:], windows, 1))


def test_files_of_their_own_are_scaled_like_the_training_rows(tmp_path: Path) -> None:
    windows, other = Windows(5, 2), RNG.normal(0, 1, (12, 3))
    files = [series(tmp_path / f"{name}.csv", rows) for name, rows in (("a", ROWS), ("b", other), ("c", other[:9]))]
    found = from_series(files[0], files[1], windows, TableSettings(("load",)), validation=files[2])
    mean, std = ROWS.mean(0), ROWS.std(0)
    assert found.validation is not None
    require_equal(found.train, looped((ROWS - mean) / std, windows, 1))
    require_equal(found.test, looped((other - mean) / std, windows, 1))
    require_equal(found.validation, looped((other[:9] - mean) / std, windows, 1))
    assert found.note is None


@pytest.mark.parametrize(("horizon", "stride"), [(1, 1), (4, 1), (4, 2), (5, 2), (3, 7)])
def test_what_is_held_out_shares_no_target_with_training(tmp_path: Path, horizon: int, stride: int) -> None:
    rows = np.arange(180.0).reshape(60, 3)
    settings = TableSettings(normalise="none")
    found = from_series(series(tmp_path / "a.csv", rows), None, Windows(5, horizon, stride), settings=settings)
    held_out = found.held_out(0.3)
    assert held_out.train.targets is not None
    assert held_out.test.targets is not None
    assert held_out.train.targets.max() < held_out.test.targets.min()
    # No more than that are left out.
    assert len(held_out.train) + len(held_out.test) + -(-horizon // stride) - 1 == len(found.train)


def test_windows_are_views_also_of_a_file(tmp_path: Path) -> None:
    file, windows = series(tmp_path / "a.csv"), Windows(20, 5)
    small, large = (from_series(file, None, windows, limit=limit) for limit in (10**9, 100))
    assert small.sha256 == large.sha256
    for found in (small, large):
        assert found.train.inputs["input"].untyped_storage().nbytes() == ROWS.size * 4
        batches = found.batches("train", 7, "forecast")(torch.Generator().manual_seed(0))
        assert sum(len(target) for _, target in batches) == found.count("train")


def test_the_hash_depends_on_the_rows_and_on_the_windows(tmp_path: Path) -> None:
    file, other = series(tmp_path / "a.csv"), series(tmp_path / "b.csv", np.roll(ROWS, 1, 0))
    different = [
        *(
            from_series(file, None, windows)
            for windows in (Windows(5, 2), Windows(5, 3), Windows(6, 2), Windows(5, 2, 2))
        ),
        from_series(other, None, Windows(5, 2)),
        from_series(file, None, Windows(5, 2), train=20),
    ]
    assert len({found.sha256 for found in different}) == len(different)
    assert different[0].sha256 == from_series(file, None, Windows(5, 2)).sha256


@pytest.mark.parametrize(
    ("rows", "windows", "settings", "message"),
    [
        (
            6,
            Windows(5, 2),
            TableSettings(),
            "a.csv has 6 rows, of which 4 are to train on, and a window of 5 rows",
        ),
        (60, Windows(2**31 - 1, 2**31 - 1), TableSettings(), "set a smaller `window` or `horizon`"),
        (60, Windows(5, 2), TableSettings(("x",)), "has no column 'x' (target)"),
        (60, Windows(5, 2), TableSettings(("load",), drop=("load",)), "the target 'load' is categorical or dropped"),
        (60, Windows(5, 2), TableSettings(categorical=("load", "temp", "wind")), "has no column of numbers to predict"),
    ],
)
def test_what_is_refused(tmp_path: Path, rows: int, windows: Windows, settings: TableSettings, message: str) -> None:
    with pytest.raises(DataError) as caught:
        from_series(series(tmp_path / "a.csv", ROWS[:rows]), None, windows, settings=settings)
    assert message in str(caught.value)


def test_parts_that_are_too_short_are_refused(tmp_path: Path) -> None:
    file, other = series(tmp_path / "a.csv"), series(tmp_path / "b.csv", ROWS[:6])
    with pytest.raises(DataError, match=r"b\.csv: test has 6 rows, and a window of 5 rows with the 2 after it takes 7"):
        from_series(file, other, Windows(5, 2))
    with pytest.raises(DataError, match="train asks for 45 of 44 samples"):
        from_series(file, None, Windows(5, 2), train=45)
    with pytest.raises(DataError, match="of which 5 are to train on"):
        from_series(file, None, Windows(5, 2), validation=0.9)
    with pytest.raises(DataError, match="and the 9 before these share targets with them"):
        from_series(file, None, Windows(5, 10), train=11).held_out(0.2)
