"""Means over a data set against numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compress.errors import DataError, TrainingError
from compress.train.metrics import evaluate


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
    with pytest.raises(DataError, match="No sample to evaluate on"):
        evaluate(nn.Identity(), list, "reconstruct")
