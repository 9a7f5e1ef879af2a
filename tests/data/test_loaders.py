"""A user's own loaders as a data set."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from compress.data.dataset import TrainingData
from compress.data.loaders import begun, from_factory, from_loaders
from compress.errors import DataError, InputError
from compress.tasks import loss


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
        (3, r"gave int; it must give two loaders, \(train, test\), or three"),
        (([],), "gave tuple of 1; it must give two loaders"),
        (([], []), "no batch"),
        ((iter([1]), iter([1])), "no length"),
        (([3], [3]), "loaders: found 3; a batch is a pair"),
        (([(torch.zeros(2, 3),) * 3], [3]), "found a tuple of 3; a batch is a pair"),
    ],
)
def test_anything_else_is_refused(loaders: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_loaders(loaders)


BATCH = {"ids": torch.arange(12).view(4, 3), "mask": torch.full((4, 3), -torch.inf), "labels": torch.arange(4)}


def test_batches_of_dicts() -> None:
    source = from_loaders(([BATCH], [BATCH, (BATCH, None), (({"x": BATCH["ids"]}, 2.0), BATCH["labels"])]), "mine")
    assert source.shape == (3,)
    assert source.example.kwargs.keys() == {"ids", "mask"}
    assert torch.equal(source.example.kwargs["ids"], BATCH["ids"][:2])
    labelled, without, nested = list(source.batches("test", 1, "classify")())
    assert torch.equal(labelled[1], BATCH["labels"])
    assert without[1] is None
    assert nested[0].args[1] == 2.0
    assert all(inputs.rows == 4 for inputs, _ in (labelled, without, nested))


def test_the_example_is_read_outside_of_the_order_of_random_numbers() -> None:
    torch.manual_seed(0)
    source = from_loaders((loader(shuffle=True), loader()), "mine")
    found = torch.cat([target for _, target in source.batches("train", 1, "classify")()])
    torch.manual_seed(0)
    assert torch.equal(found, torch.cat([target for _, target in loader(shuffle=True)]))


def test_a_later_batch_of_another_form_is_told_with_its_place() -> None:
    source = from_loaders(([(torch.zeros(2, 3), torch.zeros(2)), "words"], [3]), "mine")
    with pytest.raises(DataError, match="mine: the train loader's batch 1, batches: found 'words'; a batch is a pair"):
        list(source.batches("train", 1, "reconstruct")())


def test_masks_may_be_infinite_beside_other_inputs_and_nothing_else_may() -> None:
    for name, value in (("mask", torch.inf), ("mask", torch.nan), ("labels", -torch.inf)):
        wrong = {**BATCH, name: torch.full((4,), value)}
        source = from_loaders(([BATCH, wrong], [BATCH]), "mine")
        what = "targets" if name == "labels" else "inputs"
        with pytest.raises(DataError, match=f"batch 1 has NaN or infinite {what}"):
            list(source.batches("train", 1, "classify")())


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


def test_labels_that_are_the_input_ids_are_shifted_as_transformers_does_it() -> None:
    ids = torch.tensor([[5, 6, 7, 8], [1, 2, 0, 0]])
    labels = ids.masked_fill(ids == 0, -100)
    batches = [{"input_ids": ids, "labels": labels}]
    found = from_loaders((batches, batches))
    ((given, target),) = found.batches("test", 2, "language_model")()
    assert target.tolist() == [[6, 7, 8, -100], [2, -100, -100, -100]]
    assert set(given.kwargs) == {"input_ids"}
    # Other tasks, and labels that are the tokens that follow, do not change.
    ((given, target),) = found.batches("test", 2, "classify")()
    assert torch.equal(target, labels)
    batches = [{"input_ids": ids, "labels": ids.roll(-1, 1)}]
    ((given, target),) = from_loaders((batches, batches)).batches("test", 2, "language_model")()
    assert torch.equal(target, ids.roll(-1, 1))
    assert set(given.kwargs) == {"input_ids", "labels"}


def test_the_shifted_loss_is_that_of_a_network_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    torch.manual_seed(0)
    network = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.randint(11, (3, 8))
    batches = [{"input_ids": ids, "labels": ids}]
    ((given, target),) = from_loaders((batches, batches)).batches("test", 3, "language_model")()
    with torch.no_grad():
        output = given.call(network)
        expected = network(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(loss("language_model")(output, target), expected)


class Signalled(Dataset[int]):
    """Each of its workers gets a signal as from a terminal or a batch system, and works on."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), (signal.SIGTERM, signal.SIGINT)[index])
        return index


def noted(worker: int) -> None:
    torch.utils.data.get_worker_info().dataset.worker = worker  # type: ignore[union-attr]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who has sent a signal")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_workers_leave_signals_to_the_run() -> None:
    mine = DataLoader(Signalled(), num_workers=1, worker_init_fn=noted, batch_size=1)
    assert [int(batch) for batch in begun(mine)] == [0, 1]
    assert mine.worker_init_fn is noted
