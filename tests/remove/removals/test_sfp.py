import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.remove.pruner import Pruner
from compress.remove.removals import SFP, SRFP


@pytest.mark.parametrize("softer", [False, True])
def test_the_lowest_are_lowered_again_and_again(softer):
    """Against a plain loop: SGD on the whole weight, and the lowest half multiplied every 3 steps."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4, bias=False)
    plain = model.weight.detach().clone()
    data = [(torch.randn(8, 6), torch.randn(8, 4)) for _ in range(12)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, sparsity=0.5, removal=(SRFP if softer else SFP)(steps=12, every=3))

    def lower(step):
        index = plain.abs().flatten().argsort(stable=True)[:12]
        plain.view(-1)[index] *= 1 - step / 12 if softer else 0.0

    lower(0)
    for step, (inputs, wanted) in enumerate(data, 1):
        F.mse_loss(model(inputs), wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
        leaf = plain.clone().requires_grad_(True)
        F.mse_loss(inputs @ leaf.T, wanted).backward()
        plain -= 0.1 * leaf.grad
        if step == 12:
            plain.view(-1)[plain.abs().flatten().argsort(stable=True)[:12]] = 0.0
        elif step % 3 == 0:
            lower(step)
        torch.testing.assert_close(model.weight.detach(), plain)
    pruner.finalize()
    assert (model.weight == 0).sum() == 12


def test_what_was_zeroed_may_come_back():
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
    pruner = Pruner(model, sparsity=0.5, removal=SFP(steps=4, every=2))
    assert model.weight.tolist() == [[0.0, 2.0]]
    with torch.no_grad():
        model.weight_orig[0, 0] = 5.0
    for _ in range(4):
        pruner.step()
    pruner.finalize()
    assert model.weight.tolist() == [[5.0, 0.0]]
