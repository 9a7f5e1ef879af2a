"""Losses and their means against numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.errors import DataError, InputError, TrainingError
from compress.train.metrics import cross_entropy, evaluate, evaluation_mode, loss, squared_error


def test_squared_error_is_the_mean_over_pixels() -> None:
    a, b = torch.rand(3, 2, 4, 5), torch.rand(3, 2, 4, 5)
    assert squared_error(a, b).item() == pytest.approx(((a.numpy() - b.numpy()) ** 2).mean())
    assert loss("reconstruct") is squared_error


def test_squared_error_refuses_to_broadcast() -> None:
    with pytest.raises(InputError, match=r"\[2, 4\].*\[2, 1, 2, 2\].*Unflatten"):
        squared_error(torch.zeros(2, 4), torch.zeros(2, 1, 2, 2))


def test_cross_entropy_is_minus_log_softmax_of_the_label() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 3, 0])
    exponentials = np.exp(logits.numpy().astype(np.float64))
    expected = -np.log((exponentials / exponentials.sum(1, keepdims=True))[np.arange(6), labels.numpy()]).mean()
    assert cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert loss("classify") is cross_entropy


@pytest.mark.parametrize("label", [4, 10**9, 2**63 - 1, -1, -(2**63)])
def test_a_label_beyond_the_classes_is_the_datas_fault(label: int) -> None:
    words = f"labels reach from {min(0, label)} to {max(0, label)}, and the model has only the classes 0 to 3"
    with pytest.raises(DataError, match=words):
        cross_entropy(torch.zeros(2, 4), torch.tensor([0, label]))


@given(size=st.integers(1, 40))
def test_every_sample_counts_alike_whatever_the_batch_size(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(37, 5, generator=generator)
    labels = torch.randint(0, 3, (37,), generator=generator)
    rows = inputs[:, :3].double().numpy()
    losses = np.log(np.exp(rows).sum(1)) - rows[np.arange(37), labels.numpy()]
    batches = list(zip(inputs.split(size), labels.split(size), strict=True))
    metric = evaluate(nn.Flatten(), lambda: ((x[:, :3], y) for x, y in batches), "classify")
    assert metric == {
        "loss": pytest.approx(losses.mean(), rel=1e-12),
        "accuracy": (rows.argmax(1) == labels.numpy()).mean(),
    }


def test_reconstruction_has_no_accuracy() -> None:
    image = torch.full((3, 1, 2, 2), 0.5)
    assert evaluate(nn.Identity(), lambda: [(image, torch.zeros_like(image))], "reconstruct") == {"loss": 0.25}


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    for bad in (math.nan, math.inf):
        batch = (torch.full((2, 1, 1, 1), bad), torch.zeros(2, 1, 1, 1))
        with pytest.raises(TrainingError, match=f"2 samples is {bad}"):
            evaluate(nn.Identity(), lambda batch=batch: [batch], "reconstruct")  # type: ignore[misc]


def test_nothing_to_evaluate_on_is_an_error() -> None:
    with pytest.raises(DataError, match="no sample"):
        evaluate(nn.Identity(), list, "reconstruct")


def test_evaluation_mode_gives_each_module_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)))
    model[1][0].eval()
    modes = [module.training for module in model.modules()]
    statistics = model[1][0].running_mean.clone()

    def fails(inputs: Tensor) -> Tensor:
        with evaluation_mode(model):
            assert not model(inputs).requires_grad
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails(torch.randn(4, 2))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[1][0].running_mean, statistics)
    assert model(torch.randn(4, 2)).requires_grad
