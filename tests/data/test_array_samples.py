"""Arrays of .npz files as data sets, against numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.data.array_samples import ArrayNames, from_arrays
from compress.errors import DataError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(3, 2, (30, 5)), np.arange(30) % 3
SUPERVISED = ArrayNames("inputs", "targets")


def saved(folder: Path, name: str = "a", **arrays: Any) -> Path:
    path = folder / f"{name}.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (2, 4, 3), (1, 2, 3, 2, 1, 2, 1)])
def test_samples_of_any_shape_are_as_they_are_in_the_file(tmp_path: Path, shape: tuple[int, ...]) -> None:
    inputs = RNG.normal(size=(30, *shape))
    found = from_arrays(saved(tmp_path, inputs=inputs, targets=Y), names=SUPERVISED)
    assert (found.shape, found.classes, found.class_names) == (shape, 3, None)
    assert np.array_equal(found.train.inputs["input"].numpy(), inputs[:25].astype(np.float32))
    assert np.array_equal(found.test.inputs["input"].numpy(), inputs[25:].astype(np.float32))
    assert found.train.targets is not None
    assert found.train.targets.tolist() == Y[:25].tolist()
    assert found.note is not None
    assert "Stored as float64 and used as float32: inputs. No test file: the test set is the last 5 of 30" in found.note
    assert found.preparation.described() == {"kind": "arrays", "inputs": {"input": None}}


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        *((dtype, torch.float32) for dtype in ("float16", "float32", "float64", "longdouble", ">f4")),
        *((dtype, torch.int64) for dtype in ("int8", "uint8", "int64", "uint64", ">i2")),
        ("bool", torch.bool),
    ],
)
def test_dtypes(tmp_path: Path, dtype: str, wanted: torch.dtype) -> None:
    inputs = np.asfortranarray(RNG.integers(0, 2, (30, 4))).astype(dtype)
    found = from_arrays(saved(tmp_path, inputs=inputs)).train.inputs["input"]
    assert found.dtype == wanted
    assert np.array_equal(found.numpy(), inputs[:25])


def test_several_inputs_are_passed_by_name(tmp_path: Path) -> None:
    ids, mask = RNG.integers(0, 2**40, (30, 7)), RNG.random((30, 7)) < 0.5
    path = saved(tmp_path, ids=ids, mask=mask, y=Y.astype(np.float32)[:, None], other=np.array(["unread"]))
    found = from_arrays(path, names=ArrayNames(("mask", "ids"), "y"))
    given, target = next(iter(found.batches("test", 3, "regress")()))
    assert given.args == ()
    assert np.array_equal(given.kwargs["ids"], ids[25:28])
    assert np.array_equal(given.kwargs["mask"], mask[25:28])
    assert np.array_equal(target, Y[25:28, None])
    assert (found.classes, found.note) == (None, "No test file: the test set is the last 5 of 30 samples.")


def test_lengths_are_passed_by_keyword_beside_the_series(tmp_path: Path) -> None:
    series, lengths = RNG.normal(size=(30, 6, 2)), RNG.integers(1, 7, 30)
    path = saved(tmp_path, inputs=series, lengths=lengths, targets=Y)
    found = from_arrays(path, names=ArrayNames("inputs", "targets", "lengths"))
    assert found.example.args[0].shape == (2, 6, 2)
    assert found.example.kwargs["lengths"].tolist() == lengths[:2].tolist()
    several = from_arrays(path, names=ArrayNames(("inputs",), "targets", "lengths"))
    assert several.example.kwargs.keys() == {"inputs", "lengths"}


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5), ()])
def test_scaling_is_that_of_the_training_part(tmp_path: Path, shape: tuple[int, ...]) -> None:
    inputs = RNG.normal(3, 2, (30, *shape)).astype(np.float32)
    found = from_arrays(saved(tmp_path, inputs=inputs), normalise="dataset")
    train = inputs[:25].astype(np.float64)
    axes = tuple(range(train.ndim - 1)) if train.ndim in (2, 3) else None
    mean, std = train.mean(axes), train.std(axes)
    np.testing.assert_allclose(found.train.inputs["input"], (train - mean) / std, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.test.inputs["input"], (inputs[25:] - mean) / std, rtol=1e-5, atol=1e-6)
    scale = found.preparation.described()["inputs"]["input"]
    np.testing.assert_allclose(scale["mean"], np.atleast_1d(mean))
    np.testing.assert_allclose(scale["std"], np.atleast_1d(std))


def test_padding_is_neither_counted_nor_scaled(tmp_path: Path) -> None:
    series, lengths = RNG.normal(3, 2, (30, 6, 2)).astype(np.float32), RNG.integers(1, 7, 30)
    padding = np.arange(6) >= lengths[:, None]
    series[padding] = 0
    names = ArrayNames("inputs", lengths="lengths")
    found = from_arrays(saved(tmp_path, inputs=series, lengths=lengths), names=names, normalise="dataset")
    steps = series[:25][~padding[:25]].astype(np.float64)
    wanted = np.where(padding[..., None], 0, (series - steps.mean(0)) / steps.std(0))
    np.testing.assert_allclose(found.train.inputs["input"], wanted[:25], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.test.inputs["input"], wanted[25:], rtol=1e-5, atol=1e-6)
    assert found.train.inputs["lengths"].tolist() == lengths[:25].tolist()


def test_a_padded_series_of_single_numbers_has_one_scale(tmp_path: Path) -> None:
    series, lengths = RNG.normal(3, 2, (30, 6)).astype(np.float32), RNG.integers(1, 7, 30)
    kept = np.arange(6) < lengths[:, None]
    names = ArrayNames("inputs", lengths="lengths")
    found = from_arrays(saved(tmp_path, inputs=series, lengths=lengths), names=names, normalise="dataset")
    steps = series[:25][kept[:25]].astype(np.float64)
    wanted = np.where(kept, (series - steps.mean()) / steps.std(), series)
    np.testing.assert_allclose(found.train.inputs["input"], wanted[:25], rtol=1e-5, atol=1e-6)


def test_whole_numbers_and_constants_are_not_scaled(tmp_path: Path) -> None:
    path = saved(tmp_path, ids=Y[:, None], x=np.full((30, 2), 0.1))
    found = from_arrays(path, names=ArrayNames(("ids", "x")), normalise="dataset")
    assert found.train.inputs["ids"].flatten().tolist() == Y[:25].tolist()
    assert not found.train.inputs["x"].any()
    assert found.preparation.described()["inputs"]["x"]["std"] == [1, 1]
    assert found.preparation.described()["inputs"]["ids"] is None


def test_parts(tmp_path: Path) -> None:
    path, test = saved(tmp_path, inputs=X, targets=Y), saved(tmp_path, "b", inputs=X[:8] + 1, targets=Y[:8])
    found = from_arrays(path, test, SUPERVISED, validation=0.1, train=20, test=6)
    assert [found.count(part) for part in ("train", "validation", "test")] == [18, 2, 6]
    assert found.validation is not None
    assert np.array_equal(found.validation.inputs["input"], X[18:20].astype(np.float32))
    by_file = from_arrays(path, names=SUPERVISED, validation=test)
    assert by_file.validation is not None
    assert np.array_equal(by_file.validation.inputs["input"], (X[:8] + 1).astype(np.float32))
    assert len({found.sha256, by_file.sha256, from_arrays(path, names=SUPERVISED).sha256}) == 3


@pytest.mark.parametrize("targets", [Y.astype(float), Y[:, None], RNG.random((30, 3)) < 0.5])
def test_other_targets_are_no_classes(tmp_path: Path, targets: np.ndarray) -> None:
    found = from_arrays(saved(tmp_path, inputs=X, targets=targets), names=SUPERVISED)
    assert found.classes is None
    assert found.train.targets is not None
    assert np.array_equal(found.train.targets.numpy(), targets[:25])
    assert found.train.targets.dtype == (torch.int64 if targets.dtype == int else torch.float32)


def test_a_batch_may_be_larger_than_the_data(tmp_path: Path) -> None:
    found = from_arrays(saved(tmp_path, inputs=X[:2]))
    (batch,) = found.batches("train", 1000, "reconstruct")()
    assert (batch[0].rows, found.example.rows, found.count("test")) == (1, 2, 1)


def with_one(value: Any, dtype: Any = float) -> np.ndarray:
    array = np.zeros((30, 2, 2), dtype)
    array[17, 1, 0] = value
    return array


@pytest.mark.parametrize(
    ("arrays", "names", "message"),
    [
        ({"x": X}, None, "has no array inputs; it holds x"),
        (
            {"inputs": X, "labels": Y},
            ArrayNames("input", "labels"),
            "labels; did you mean inputs?",
        ),
        ({}, None, "has no array inputs; it holds nothing"),
        ({"inputs": X}, ArrayNames("inputs", "inputs"), "the array inputs is named 2 times in `data`"),
        ({"inputs": X, "targets": Y[:29]}, SUPERVISED, "differ in their number of samples (inputs 30, targets 29)"),
        ({"inputs": X[:0]}, None, "has no sample"),
        ({"inputs": X[:1]}, None, "has one sample; one to train on and one to test on are needed"),
        ({"inputs": np.float32(3)}, None, "the array inputs is a single number; it needs an entry for each sample"),
        ({"inputs": X + 1j}, None, "holds complex128; store real and imaginary parts as two numbers"),
        ({"inputs": X.astype(object)}, None, "holds Python objects, which are never loaded"),
        ({"inputs": X.astype(str)}, None, "only arrays of numbers are read"),
        ({"inputs": with_one(np.nan)}, None, "the array inputs has nan in sample 17 (from 0); fix the sample"),
        ({"inputs": with_one(-np.inf, np.float16)}, None, "the array inputs has -inf in sample 17"),
        ({"inputs": with_one(1e39)}, None, "has 1e+39 in sample 17 (from 0), which float32 does not hold"),
        ({"inputs": with_one(2**63, np.uint64)}, None, "has 9223372036854775808 in sample 17 (from 0), which int64"),
        ({"inputs": X, "targets": with_one(np.nan)}, SUPERVISED, "the array targets has nan in sample 17"),
        ({"inputs": X, "targets": Y - 1}, SUPERVISED, "the target -1 is negative, and classes are numbered from 0"),
        ({"inputs": X, "targets": Y * 0}, SUPERVISED, "all training samples have the class 0; there is nothing to"),
        ({"inputs": X, "targets": np.sort(Y)}, SUPERVISED, None),
        ({"inputs": X, "targets": np.arange(30)}, SUPERVISED, "has the classes 0 to 24, and another part has 25."),
        (
            {"inputs": X, "lengths": Y},
            ArrayNames(lengths="lengths"),
            "the length of sample 0 (from 0) is 0; it must be 1 to 5, the steps of inputs",
        ),
        ({"inputs": X, "lengths": Y + 4}, ArrayNames(lengths="lengths"), "the length of sample 2 (from 0) is 6"),
        (
            {"inputs": X, "lengths": Y + 0.5},
            ArrayNames(lengths="lengths"),
            "lengths are torch.float32 30 and inputs",
        ),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, Any], names: ArrayNames | None, message: str | None) -> None:
    path = saved(tmp_path, **arrays)
    if message is None:
        assert from_arrays(path, names=names).classes == 3
        return
    with pytest.raises(DataError) as caught:
        from_arrays(path, names=names)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"inputs": X[:, :3], "targets": Y}, "b.npz has torch.float32 of 3 a sample where"),
        ({"inputs": Y[:, None].repeat(5, 1), "targets": Y}, "b.npz has torch.int64 of 5 a sample where"),
        ({"inputs": X, "targets": Y.astype(float)}, "they must match"),
        ({"inputs": X, "targets": Y + 1}, "has the classes 0 to 2, and another part has 3"),
        ({"inputs": X, "targets": Y - 1}, "another part has -1"),
        ({"inputs": X}, "b.npz has no array targets"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    path, test = saved(tmp_path, inputs=X, targets=Y), saved(tmp_path, "b", **other)
    with pytest.raises(DataError) as caught:
        from_arrays(path, test, SUPERVISED)
    assert message in str(caught.value)


def test_too_few_samples(tmp_path: Path) -> None:
    path = saved(tmp_path, inputs=X)
    with pytest.raises(DataError, match="train asks for 26 of 25 samples"):
        from_arrays(path, train=26)
    with pytest.raises(DataError, match="25 training samples, and 25 of them are to be held out"):
        from_arrays(path, validation=0.99)


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path / "harmed").touch, ()

    path = saved(tmp_path, inputs=np.array([Harm()] * 30, dtype=object))
    with pytest.raises(DataError, match="never loaded"):
        from_arrays(path)
    assert not (tmp_path / "harmed").exists()
