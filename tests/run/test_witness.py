"""Evaluations that see other data than the one before, and figures of equal networks that differ."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.errors import ProofError, RunError
from compress.run.witness import Evaluated, Reach, Witness

samples = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12)


def batches(pairs: list[tuple[int, int]], size: int) -> list[tuple[Tensor, Tensor]]:
    inputs, targets = (
        torch.tensor([[float(value)] * 3 for value, _ in pairs]),
        torch.tensor([label for _, label in pairs]),
    )
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def evaluated(found: list[tuple[Tensor, Tensor]]) -> Evaluated:
    result = Evaluated()
    for inputs, targets in found:
        result.add(inputs, targets)
    return result


@settings(max_examples=30)
@given(samples, samples, st.integers(1, 12), st.integers(1, 12))
def test_equal_are_the_same_samples_in_any_order_and_any_batches(
    one: list[tuple[int, int]], other: list[tuple[int, int]], size: int, another: int
) -> None:
    same = Counter(one) == Counter(other)
    assert (evaluated(batches(one, size)) == evaluated(batches(other, another))) == same
    assert evaluated(batches(one, size)) == evaluated(batches(one[::-1], another))


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64, torch.complex64]
)
@pytest.mark.parametrize("shape", [(4,), (4, 2, 3), (4, 0)])
def test_data_of_any_type_count(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    inputs, targets = torch.zeros(4, 5), torch.zeros(shape, dtype=dtype)
    changed = torch.ones(shape, dtype=dtype)
    assert (evaluated([(inputs, targets)]) == evaluated([(inputs, changed)])) == (targets.numel() == 0)
    assert evaluated([(inputs, targets)]).samples == 4


def test_targets_that_are_not_one_a_sample() -> None:
    inputs, targets = torch.arange(6.0).view(2, 3), torch.arange(7)
    first = evaluated([(inputs, targets)])
    assert first == evaluated([(inputs, targets)])
    assert first != evaluated([(inputs, targets + 1)])
    assert first != evaluated([(inputs, torch.tensor(3.0))])


@pytest.mark.parametrize(
    "second",
    [
        [(0, 0), (1, 1)],
        [(0, 0), (1, 1), (2, 2), (2, 2)],
        [(0, 0), (1, 1), (2, 1)],
        [(0, 0), (1, 1), (3, 2)],
        [(0, 1), (1, 0), (2, 2)],
    ],
    ids=["a sample less", "a sample more", "another label", "another input", "labels exchanged"],
)
def test_a_witness_tells_of_other_data(second: list[tuple[int, int]]) -> None:
    witness = Witness()
    first = [(0, 0), (1, 1), (2, 2)]
    for _ in range(2):
        with witness.evaluation(lambda: batches(first, 2)) as watched:
            assert len(list(watched())) == 2
    later = Witness()  # of the run that is gone on with
    later.load_state_dict(json.loads(json.dumps(witness.state_dict())))
    words = pytest.raises(RunError, match=r"3 samples \(\w{8}\) before and \d samples")
    with words, later.evaluation(lambda: batches(second, 2)) as watched:
        list(watched())


MODULE = """
import torch

images = torch.randn(100, 1, 6, 6, generator=torch.Generator().manual_seed(0))
labels = torch.arange(100) % 3
train = [(images[:80], labels[:80])]

class Changing(torch.utils.data.Dataset):
    def __len__(self): return 20
    def __getitem__(self, index): return images[80 + index] + torch.randn(1), labels[80 + index]

class Shrinking(list):
    def __iter__(self):
        self[:] = [tuple(part[:-1] for part in batch) for batch in super().__iter__()]
        return super().__iter__()

test = torch.utils.data.TensorDataset(images[80:], labels[80:])

def steady(): return train, torch.utils.data.DataLoader(test, 7)
def shuffled(): return train, torch.utils.data.DataLoader(test, 7, shuffle=True)
def augmented(): return train, torch.utils.data.DataLoader(Changing(), 7)
def dropping(): return train, torch.utils.data.DataLoader(test, 7, shuffle=True, drop_last=True)
def shrinking(): return train, Shrinking([(images[80:], labels[80:])])
def chance(output, target): return torch.rand(())
"""

RECIPE = """\
name: own
model: {name: classifier, image: [1, 6, 6], classes: 3}
data: {factory: "witness_module:LOADERS"}
task: TASK
train: {epochs: 1, optimizer: adamw, lr: 1e-3}
stages:
  - {target: {weights: "*"}, criterion: magnitude, sparsity: 0.5, removal: hard}
export: []
"""


@pytest.fixture
def applied_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> Callable[[str, str, int], tuple[Any, Path]]:
    """Train with steady loaders, and apply with others: (what the command said, the output folder)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "witness_module.py").write_text(MODULE)

    def write(name: str, task: str) -> Path:
        (tmp_path / f"{name}.yaml").write_text(RECIPE.replace("LOADERS", name).replace("TASK", task))
        return tmp_path / f"{name}.yaml"

    def command(name: str, task: str, code: int) -> tuple[Any, Path]:
        run("train", write("steady", "classify"), "-o", "m.pt")
        return run("apply", write(name, task), "m.pt", "-o", "out", code=code), tmp_path / "out"

    return command


@pytest.mark.parametrize("loaders", ["steady", "shuffled"])
def test_the_data_are_noted_in_the_results(applied_to: Callable[..., tuple[Any, Path]], loaders: str) -> None:
    _, out = applied_to(loaders, "classify", 0)
    found = json.loads((out / "results.json").read_text())["evaluated"]
    assert found["samples"] == 20
    images = torch.randn(100, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    assert found == evaluated([(images[80:], torch.arange(80, 100) % 3)]).document()


@pytest.mark.parametrize("loaders", ["augmented", "dropping", "shrinking"])
def test_a_run_whose_test_data_change_fails_and_says_how_to_mend_it(
    applied_to: Callable[..., tuple[Any, Path]], loaders: str
) -> None:
    said, out = applied_to(loaders, "classify", 1)
    assert "The test data changed between two evaluations" in said.output
    assert "Make the test loader return the same samples in every pass" in said.output
    assert not (out / "results.json").exists()


def test_a_metric_that_chance_decides_fails_too(applied_to: Callable[..., tuple[Any, Path]]) -> None:
    task = '{loss: "torch.nn.functional:cross_entropy", metrics: {luck: "witness_module:chance"}}'
    said, out = applied_to("steady", task, 1)
    assert "masked and slim are proven equal, but their luck is" in said.output
    assert not (out / "results.json").exists()


class TestReach:
    @pytest.fixture
    def reach(self) -> Reach:
        found = Reach(1e-5)
        found(torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 1.0], [0.5, 0.0]]), torch.zeros(4))
        return found

    def test_figures_within_the_tolerance_agree(self, reach: Reach) -> None:
        reach.require_agreement({"loss": 0.5, "accuracy": 0.75}, {"loss": 0.5 + 5e-5, "accuracy": 0.75}, own=False)
        reach.require_agreement({"loss": 500.0}, {"loss": 500.02}, own=False)

    @pytest.mark.parametrize(
        "slim", [{"loss": 0.5001}, {"loss": 0.5, "accuracy": 0.5}, {"loss": 0.5, "accuracy": 0.7499}]
    )
    def test_others_do_not(self, reach: Reach, slim: dict[str, float]) -> None:
        masked = {"loss": 0.5, "accuracy": 0.75}
        with pytest.raises(ProofError, match="on the same 4 samples"):
            reach.require_agreement({name: masked[name] for name in slim}, slim, own=False)

    def test_a_sample_whose_scores_are_nearly_equal_may_fall_either_way(self, reach: Reach) -> None:
        reach(torch.tensor([[1.0, 1.0 + 1e-6]]), torch.zeros(1))
        reach.require_agreement({"accuracy": 0.8}, {"accuracy": 0.6}, own=False)
        with pytest.raises(ProofError):
            reach.require_agreement({"accuracy": 0.8}, {"accuracy": 0.4}, own=False)

    def test_a_metric_of_ones_own_may_count_a_sample_otherwise(self, reach: Reach) -> None:
        reach.require_agreement({"loss": 1.0, "top_5": 0.75}, {"loss": 1.0, "top_5": 0.5}, own=True)
        with pytest.raises(ProofError):
            reach.require_agreement({"loss": 1.0, "top_5": 0.75}, {"loss": 1.0, "top_5": 0.25}, own=True)
