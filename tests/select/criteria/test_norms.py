import copy

import numpy as np
import torch
from torch import nn

from compress.graph.coupling import couplings
from compress.select.criteria import Norms
from compress.select.scoring import Scoring


def scored(model):
    known = couplings(model, torch.zeros(2, 4, dtype=model[0].weight.dtype))
    (score,) = Norms().score_nodes(known.found, Scoring(model, torch.Generator())).values()
    return score


def test_norms_of_both_sides():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5))
    rows = np.hstack([model[0].weight.detach(), model[0].bias.detach()[:, None]])
    columns = model[2].weight.detach().numpy()
    expected = np.sqrt((rows**2).sum(1) * (columns**2).sum(0))
    found = scored(model)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    with torch.no_grad():
        for tensor, factor in ((model[0].weight, 3), (model[0].bias, 3), (model[2].weight, 1 / 3)):
            tensor.mul_(factor)
    torch.testing.assert_close(scored(model), found)


def test_nodes_of_a_network_in_bfloat16_are_scored_in_float32():
    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 5)).bfloat16()
    assert torch.equal(scored(model), scored(copy.deepcopy(model).float()))
