"""A pruner's arguments, and that a mistake leaves the network as it was; tests/test_api.py holds the whole contract."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from compress.errors import InputError, TargetError
from compress.remove.pruner import Pruner


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({}, InputError), ({"sparsity": 1.5}, InputError), ({"keep": [torch.ones(2)]}, InputError)],
)
def test_mistakes_leave_the_model_as_it_was(arguments, error):
    model = network()
    with pytest.raises(error):
        Pruner(model, **arguments)
    assert not prune.is_pruned(model)


def test_masks_that_do_not_fit_are_named():
    with pytest.raises(
        TargetError, match=r"the mask for 0\.weight is torch.float32 \(8, 6\); it must be bool \(8, 6\)"
    ):
        Pruner(network(), ["0.weight"], keep=[torch.ones(8, 6)])
