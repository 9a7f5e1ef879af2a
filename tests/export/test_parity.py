import math

import pytest
import torch
from torch import nn

from compress.errors import ProofError
from compress.export.parity import BATCH_SIZES, check

EXAMPLE = torch.zeros(2, 3)


def test_the_largest_difference_of_all_batches() -> None:
    seen = []

    def run(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(len(inputs))
        return inputs + 1e-6 * len(inputs)

    assert check(nn.Identity(), run, EXAMPLE, 1e-5, "file") == pytest.approx(7e-6, rel=0.05)
    assert tuple(seen) == BATCH_SIZES


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_tolerance_is_relative_to_the_output(scale: float) -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return scale * x.tanh()

    def off_by(share: float) -> float:
        return check(Scaled(), lambda x: scale * (1 + share) * x.tanh(), EXAMPLE, 1e-4, "file")

    assert off_by(0.5e-4) <= scale * 1e-4
    with pytest.raises(ProofError, match=r"file is not kept: at batch size 1 .* allowed is"):
        off_by(2e-4)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_not_the_same(wrong: float) -> None:
    with pytest.raises(ProofError):
        check(nn.Identity(), lambda x: x * wrong, EXAMPLE, 1e-5, "file")


def test_a_batch_size_that_became_a_constant() -> None:
    with pytest.raises(ProofError):
        check(nn.Identity(), lambda x: torch.zeros(2, 3), EXAMPLE, 1e9, "file")


def test_outputs_of_zeros() -> None:
    assert check(nn.Identity(), torch.clone, torch.zeros(2, 3, dtype=torch.int64), 1e-5, "file") == 0.0
