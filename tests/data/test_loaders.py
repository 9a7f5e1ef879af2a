"""A user's own loaders as a data set."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from compress.data.dataset import TrainingData
from compress.data.loaders import from_factory, from_loaders
from compress.errors import DataError, InputError


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(20.0).view(10, 2), torch.arange(10)), batch_size=4, **options)


def test_a_pair_of_loaders_is_training_data() -> None:
    source: TrainingData = from_loaders((loader(), loader()), "mine")
    assert (source.name, source.shape, source.count("train"), source.sha256) == ("mine", (2,), 10, None)
    batches = source.batches("test", 128, "classify")
    assert len(batches) == 3
    assert torch.cat([target for _, target in batches(torch.Generator())]).tolist() == list(range(10))


def test_a_list_of_batches_will_do_and_has_no_count() -> None:
    batches = [(torch.zeros(2, 3), torch.zeros(2))]
    assert from_loaders([batches, batches]).count("train") is None


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        (3, "gave int; it must give the pair"),
        (([],), "must give the pair"),
        (([], []), "no batch"),
        ((iter([1]), iter([1])), "no length"),
        (([torch.zeros(3)], [torch.zeros(3)]), "a batch is Tensor; it must be a pair of tensors"),
    ],
)
def test_anything_else_is_refused(loaders: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_loaders(loaders)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("what", ["inputs", "targets"])
def test_numbers_that_are_none_are_told_with_their_place(value: float, what: str) -> None:
    good, bad = torch.zeros(2, 3), torch.full((2, 3), value)
    train = [(good, good), (bad, good) if what == "inputs" else (good, bad)]
    source = from_loaders((train, [(good, good)]), "my_module:loaders")
    assert len(list(source.batches("test", 1, "reconstruct")())) == 1
    with pytest.raises(DataError, match=rf"^my_module:loaders: the train loader's batch 1 has NaN or infinite {what}"):
        list(source.batches("train", 1, "reconstruct")())


def test_from_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "factory_of_loaders.py").write_text(
        "import torch\ndef build(n):\n    b = [(torch.zeros(n, 3), torch.zeros(n))]\n    return b, b\n"
    )
    assert from_factory("factory_of_loaders:build", {"n": 2}).shape == (3,)
    with pytest.raises(InputError, match="no function absent"):
        from_factory("factory_of_loaders:absent")
