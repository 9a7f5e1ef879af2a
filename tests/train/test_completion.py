"""Completions against their formula in numpy, and what they are for: outputs that are means over the classes."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.train.completion import Completion

CODES, CLASSES = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 5 % 3


def completion(outputs: int) -> Completion:
    torch.manual_seed(0)
    found = Completion(3, 3, outputs)
    nn.init.normal_(found.output.weight)
    return found


def test_at_first_nothing_is_added() -> None:
    assert not Completion(3, 3, 8)(CODES, CLASSES).any()


def test_it_adds_what_a_class_has_beyond_the_mean_of_all() -> None:
    part = completion(8)
    of_codes, gate, output = (
        tensor.detach().double().numpy() for tensor in (part.of_codes.weight, part.of_class.weight, part.output.weight)
    )
    bias = part.of_codes.bias.detach().double().numpy()
    hidden = CODES.double().numpy() @ of_codes.T + bias
    every = np.stack([np.maximum(hidden * gate[one], 0) for one in range(3)], 1)
    shares = np.bincount(CLASSES.numpy()) / 40
    own = every[np.arange(40), CLASSES.numpy()]
    expected = (own - np.einsum("ncd,c->nd", every, shares)) @ output.T
    np.testing.assert_allclose(part(CODES, CLASSES).detach().numpy(), expected, rtol=1e-3, atol=1e-3)


def test_the_mean_over_the_classes_is_zero_for_every_code() -> None:
    """Weighted by the shares of the classes among all samples seen, which are 0.4, 0.4 and 0.2."""
    part = completion(6)
    part(CODES, CLASSES)
    shares = torch.bincount(CLASSES) / 40
    state = part.state_dict()

    def of(number: int) -> Tensor:
        part.load_state_dict(state)  # the classes of this call are not those of samples
        before = part.seen.clone()
        part.seen -= torch.nn.functional.one_hot(torch.full((40,), number), 3).sum(0)
        found: Tensor = part(CODES, torch.full((40,), number)).detach()
        assert torch.equal(part.seen, before)
        return found

    total = sum(share * of(number) for number, share in enumerate(shares))
    assert isinstance(total, Tensor)
    assert of(0).abs().max() > 1
    assert total.abs().max() == pytest.approx(0, abs=1e-4)
