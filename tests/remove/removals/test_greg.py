import torch
import torch.nn.functional as F
from torch import nn

from compress.remove.pruner import Pruner
from compress.remove.removals import GReg


def test_the_penalty_grows_on_what_was_chosen_while_it_learns():
    """Against a plain loop of SGD with the decoupled penalty."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4, bias=False)
    plain = model.weight.detach().clone()
    chosen = plain.abs().flatten() <= plain.abs().flatten().sort().values[11]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, sparsity=0.5, removal=GReg(steps=10, ceiling=0.4))
    for step in range(1, 11):
        inputs, wanted = torch.randn(8, 6), torch.randn(8, 4)
        F.mse_loss(model(inputs), wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
        leaf = plain.clone().requires_grad_(True)
        F.mse_loss(inputs @ leaf.T, wanted).backward()
        plain -= 0.1 * leaf.grad
        plain.view(-1)[chosen] *= 0.0 if step == 10 else 1 - 0.4 * step / 10
        torch.testing.assert_close(model.weight.detach(), plain)
    pruner.finalize()
    assert torch.equal(model.weight.flatten() == 0, chosen)
