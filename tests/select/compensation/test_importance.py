"""Against numpy: each node is taken away in turn, and the matrix of the rest is inverted by itself."""

import numpy as np
import pytest
import torch
from torch import nn

import compress
from compress.errors import InputError
from compress.graph.coupling import couplings
from compress.inputs import inputs_of
from compress.select.compensation.importance import importance_of_nodes, importance_of_weights

RIDGE = 1e-3


class Branched(nn.Module):
    """Two layers read the nodes of the first one."""

    def __init__(self):
        super().__init__()
        self.first, self.wide = nn.Conv2d(2, 7, 3), nn.Conv2d(7, 4, 3)
        self.narrow = nn.Conv2d(7, 3, 1)

    def forward(self, x):
        x = self.first(x).tanh() + 3
        return self.wide(x).sum((2, 3)), self.narrow(x).sum((2, 3))


def variances(samples):
    """How entries [samples, entries] vary together, with the ridge."""
    varies = np.cov(samples.T, bias=True)
    return varies + RIDGE * np.square(samples).mean() * np.eye(len(varies))


def unfolded(x, size):
    """Windows [positions, channels, size * size]."""
    rows = nn.functional.unfold(x, size).transpose(1, 2).flatten(0, 1)
    return rows.unflatten(1, (x.shape[1], -1)).double().numpy()


def error(matrix, gone, worth):
    """What nodes miss that are taken away together with others, by a fresh inverse without those gone before."""
    left = [node for node in range(len(matrix)) if node not in gone]
    inverse = np.linalg.inv(matrix[np.ix_(left, left)])
    return dict(zip(left, worth[left] / np.diag(inverse), strict=True))


def test_nodes_are_taken_away_one_by_one_from_all_layers_that_read_them():
    torch.manual_seed(0)
    model = Branched().eval()
    batches = [torch.randn(9, 2, 7, 7) for _ in range(2)]
    known = couplings(model, batches[0])
    coupling = known.of("first")
    found = importance_of_nodes(model, [coupling], [inputs_of(one) for one in batches])[coupling]
    with torch.no_grad():
        nodes = model.first(torch.cat(batches)).tanh() + 3
        seen = []
        for layer, size in ((model.wide, 3), (model.narrow, 1)):
            windows = unfolded(nodes, size)
            energy = float(layer(nodes).double().movedim(1, 0).flatten(1).var(1).sum())
            worth = layer.weight.double().square().sum((0, 2, 3)).numpy() / energy
            seen.append((variances(windows.transpose(0, 2, 1).reshape(-1, 7)), worth))
    wanted, gone, highest = np.zeros(7), [], 0.0
    for _ in range(7):
        errors = [error(matrix, gone, worth) for matrix, worth in seen]
        both = {node: sum(one[node] for one in errors) for node in errors[0]}
        first = min(both, key=both.get)
        highest = max(highest, both[first])
        wanted[first] = highest
        gone.append(first)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-3)


@pytest.mark.parametrize("size", [1, 3])
def test_weights_are_worth_what_the_surgeon_says(size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 3, size)).eval()
    inputs = torch.randn(12, 4, 6, 6) + 1
    (found,) = importance_of_weights(model, ["0.weight"], [inputs_of(inputs)])
    matrix = variances(unfolded(inputs, size).reshape(-1, 4 * size * size))
    energy = float(model(inputs).detach().double().movedim(1, 0).flatten(1).var(1).sum())
    wanted = model[0].weight.detach().double().square().flatten(1).numpy() / np.diag(np.linalg.inv(matrix)) / energy
    np.testing.assert_allclose(found.flatten(1).numpy(), wanted, rtol=1e-3)


class Words(nn.Module):
    """A table that is looked up twice is left to the share of its squares."""

    def __init__(self):
        super().__init__()
        self.word, self.twice, self.head = nn.Embedding(6, 4), nn.Embedding(6, 4), nn.Linear(4, 3)

    def forward(self, ids):
        return self.head(self.word(ids) + self.twice(ids) + self.twice(5 - ids))


def test_rows_of_an_embedding_are_worth_as_often_as_they_are_looked_up():
    torch.manual_seed(0)
    model = Words().eval()
    batches = [torch.tensor([[0, 1, 1], [4, 1, 0]]), torch.tensor([[1, 4, 4]])]  # 2 and 3 and 5 are not there
    found = importance_of_weights(model, ["word.weight", "twice.weight"], [inputs_of(one) for one in batches])
    one_hot = nn.functional.one_hot(torch.cat(batches).flatten(), 6).double().numpy()
    word, twice = (table.weight.detach().double().square().numpy() for table in (model.word, model.twice))
    worth = word * np.diag(one_hot.T @ one_hot + 0.5 * np.eye(6))[:, None]
    np.testing.assert_allclose(found[0].numpy(), worth / worth.sum(), rtol=1e-6)
    np.testing.assert_allclose(found[1].numpy(), twice / twice.sum(), rtol=1e-6)


def test_a_single_sample_is_refused():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5))
    with pytest.raises(InputError, match="a single row"):
        compress.prune(model, torch.randn(1, 8), macs=0.6, batches=[torch.randn(1, 8)])
