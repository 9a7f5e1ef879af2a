"""Every criterion of weights on a device, with batches in a computer's memory: the bits of the CPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.remove.pruner import Pruner
from compress.remove.removals import Gradual
from compress.select.criteria import CRITERIA
from tests.simulated_device import NAME, SimulatedDevice

# OBS reads the memory of tensors, which the simulated device does not have.
WORDS = [words[0] for words in (one.words for one in CRITERIA if one().ranks_weights()) if words[0] != "obs"]


def test_most_criteria_are_here():
    assert {"magnitude", "random", "lamp", "taylor", "snip", "obd"} <= set(WORDS)


@pytest.mark.parametrize("word", WORDS)
def test_weights_are_scored_and_grow_back_where_the_network_is(word):
    data = [(torch.randn(6, 8), torch.randint(4, (6,))) for _ in range(3)]
    found = {}
    with SimulatedDevice() as device:
        for where in ("cpu", NAME):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)).to(where)
            pruner = Pruner(
                model,
                "*.weight",
                sparsity=0.5,
                criterion=word,
                batches=data,
                loss=F.cross_entropy,
                removal=Gradual(6, 2),
                regrow=0.3,
            )
            for _ in range(6):
                pruner.step()
            pruner.finalize()
            found[where] = [weight.detach().cpu() for weight in model.parameters()]
        assert device.waits
    for one, other in zip(found["cpu"], found[NAME], strict=True):
        assert torch.equal(one, other)
    # Without training, one that grew back is still zero.
    assert sum(int((one == 0).sum()) for one in found["cpu"][::2]) >= 72
