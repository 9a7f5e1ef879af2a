import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import TargetError
from compress.select.compensate import compensate, prediction


def batches(shape, count=4):
    torch.manual_seed(3)
    return [(torch.randn(64, *shape), torch.zeros(64)) for _ in range(count)]


def test_prediction_is_numpys_least_squares():
    torch.manual_seed(0)
    values = torch.randn(200, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) + 1.5
    keep = torch.tensor([True, False, True, True, False, True])
    extended = torch.cat([values, torch.ones(200, 1, dtype=torch.float64)], 1)
    found = prediction(extended.T @ extended, keep)
    kept = np.flatnonzero(np.append(keep.numpy(), True))
    expected, *_ = np.linalg.lstsq(extended.numpy()[:, kept], values.numpy()[:, [1, 4]], rcond=None)
    np.testing.assert_allclose(found.numpy()[[1, 4]][:, kept], expected.T, rtol=1e-3, atol=1e-3)
    assert torch.equal(found[keep.nonzero().flatten()][:, :6], torch.eye(6, dtype=torch.float64)[keep])


@pytest.mark.parametrize("kind", ["linear", "conv", "padded"])
def test_nodes_that_others_say_linearly_are_not_missed(kind):
    """Two of six nodes are linear in the others: without them the network computes the same."""
    torch.manual_seed(0)
    if kind == "linear":
        model, shape = nn.Sequential(nn.Linear(5, 6), nn.Identity(), nn.Linear(6, 3)), (5,)
    else:
        model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Identity(), nn.Conv2d(6, 3, 3, padding=int(kind == "padded")))
        shape = (2, 8, 8)
    with torch.no_grad():
        first = model[0]
        first.weight[1] = 2 * first.weight[0] - first.weight[3]
        first.bias[1] = 2 * first.bias[0] - first.bias[3] + (0.0 if kind == "padded" else 0.7)
        first.weight[4] = first.weight[5]
        first.bias[4] = first.bias[5]
    example = torch.randn(9, *shape)
    before = model(example)
    keep = torch.tensor([True, False, True, True, False, True])
    compensate(model, {"2": keep}, batches(shape))
    with torch.no_grad():
        model[0].weight[~keep] = 0.0
        model[0].bias[~keep] = 0.0
        model[2].weight[:, ~keep] = 0.0
    torch.testing.assert_close(model(example), before, rtol=1e-3, atol=1e-3)
    assert model.training


def test_it_is_the_best_that_a_change_of_the_reader_can_do():
    """Against a fit of the reader's own weights to its old outputs."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))
    keep = torch.tensor([True, True, False, False, True, False, True, False])
    data = batches((5,))
    inputs = torch.cat([one for one, _ in data])
    nodes = torch.tanh(model[0](inputs)).detach().numpy().astype(np.float64)
    wanted = model(inputs).detach().numpy().astype(np.float64)
    columns = np.concatenate([nodes[:, keep.numpy()], np.ones((len(nodes), 1))], 1)
    best, *_ = np.linalg.lstsq(columns, wanted, rcond=None)
    compensate(model, {"2": keep}, data)
    np.testing.assert_allclose(model[2].weight.detach().numpy()[:, keep.numpy()], best[:-1].T, rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(model[2].bias.detach().numpy(), best[-1], rtol=5e-3, atol=5e-3)


def test_readers_that_it_does_not_know_are_named():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(TargetError, match="'2' reads 4 nodes through 16 inputs"):
        compensate(model, {"2": torch.ones(4, dtype=torch.bool)}, batches((1, 4, 4)))
    with pytest.raises(TargetError, match="'1' reads the nodes and is not a plain Linear"):
        compensate(model, {"1": torch.ones(4, dtype=torch.bool)}, batches((1, 4, 4)))
