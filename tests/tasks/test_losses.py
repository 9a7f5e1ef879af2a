"""Losses against numpy."""

import numpy as np
import pytest
import torch

from compress.errors import DataError, InputError
from compress.tasks import cross_entropy, loss, squared_error


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
