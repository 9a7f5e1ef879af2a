import pytest
import torch
import torch.nn.functional as F
from compress.remove.hard import Hard
from compress.remove.soft import Soft
from torch import nn
from torch.nn.utils import prune

from compress.errors import InputError, TargetError
from compress.remove import decay
from compress.remove.masks import effective
from compress.remove.pruner import Pruner, Removal


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def test_weights_underneath_a_mask_go_on_learning_where_that_is_wanted():
    """Against a plain loop: the gradient of the product reaches W through the mask."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4, bias=False)
    plain = model.weight.detach().clone()
    chosen = plain.abs() <= plain.abs().flatten().sort().values[11]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    fall = decay.over(8, "linear")
    pruner = Pruner(model, sparsity=0.5, removal=Soft(fall, learns=True))
    for step in range(1, 9):
        inputs, wanted = torch.randn(8, 6), torch.randn(8, 4)
        F.mse_loss(model(inputs), wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
        mask = torch.where(chosen, fall(step - 1), 1.0)
        leaf = plain.clone().requires_grad_(True)
        F.mse_loss(inputs @ (leaf * mask).T, wanted).backward()
        plain -= 0.5 * leaf.grad
        torch.testing.assert_close(model.weight.detach(), plain * torch.where(chosen, fall(step), 1.0))
    pruner.finalize()
    assert torch.equal(model.weight == 0, chosen)


def test_a_removal_of_ones_own_is_a_class_with_a_few_lines():
    class HalfAndHalf(Removal):
        """Half of the set at once, all of it at step 2."""

        steps = 2

        def start(self, pruner: Pruner) -> None:
            pruner.take(0.5)
            pruner.fade_to(0.0)

        def finish(self, pruner: Pruner) -> None:
            pruner.take()
            pruner.fade_to(0.0)

    model = network()
    pruner = Pruner(model, sparsity=0.5, removal=HalfAndHalf())
    zeros = []
    for _ in range(3):
        zeros.append(sum(int((model[index].weight == 0).sum()) for index in (0, 2)))
        pruner.step()
    assert zeros == [18, 18, 36]


def test_a_chooser_of_ones_own_is_asked_with_what_is_gone():
    asked = []

    def chooser(sparsity, gone):
        asked.append((sparsity, [int(dead.sum()) for dead in gone]))
        return [torch.arange(dead.numel()).view(dead.shape) >= sparsity * dead.numel() for dead in gone]

    class Twice(Removal):
        steps = 1

        def start(self, pruner: Pruner) -> None:
            pruner.take(0.25)
            pruner.fade_to(0.0)

        def finish(self, pruner: Pruner) -> None:
            pruner.take()
            pruner.fade_to(0.0)

    model = network()
    pruner = Pruner(model, sparsity=0.5, removal=Twice(), chooser=chooser)
    pruner.step()
    assert asked == [(0.125, [0, 0]), (0.5, [6, 3])]
    assert pruner.achieved == 0.5


def test_effective_parameters_give_the_gradient_of_what_acts():
    """Masked or not: the same as a plain network whose weights are the products."""
    model, inputs, wanted = network(), torch.randn(10, 6), torch.randn(10, 3)
    Pruner(model, ["0.weight"], sparsity=0.5, removal=Soft(decay.over(4, "linear"))).step()
    plain = network()
    with torch.no_grad():
        plain[0].weight.copy_(model[0].weight)
    model[2].weight.requires_grad_(False)
    with effective([(model[0], "weight"), (model[2], "weight")]) as leaves:
        found = torch.autograd.grad(F.mse_loss(model(inputs), wanted), leaves)
    expected = torch.autograd.grad(F.mse_loss(plain(inputs), wanted), [plain[0].weight, plain[2].weight])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert not model[2].weight.requires_grad
    # Outside, pruned entries get no gradient again.
    F.mse_loss(model(inputs), wanted).backward()
    assert (model[0].weight_orig.grad[model[0].weight_pruned] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({}, InputError), ({"sparsity": 1.5}, InputError), ({"keep": [torch.ones(2)]}, InputError)],
)
def test_mistakes_leave_the_model_as_it_was(arguments, error):
    model = network()
    with pytest.raises(error):
        Pruner(model, removal=Hard(), **arguments)
    assert not prune.is_pruned(model)


def test_masks_that_do_not_fit_are_named():
    with pytest.raises(
        TargetError, match=r"the mask for 0\.weight is torch.float32 \(8, 6\); it must be bool \(8, 6\)"
    ):
        Pruner(network(), ["0.weight"], keep=[torch.ones(8, 6)], removal=Hard())
