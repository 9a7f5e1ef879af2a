import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.graph.coupling import couplings
from compress.graph.trace import tensors_of
from compress.slimming.constants import fold_constants
from compress.slimming.shrink import slim


def zero_rows(layer: nn.Module, rows: list[int]) -> None:
    with torch.no_grad():
        layer.weight[rows] = 0
        layer.bias.normal_(0, 2)


def gone(model: nn.Module, example: Tensor) -> list[tuple[int, ...]]:
    """Shapes of the weights of the slim network, which has been compared with the masked one."""
    small = slim(model.eval(), example)
    given = torch.randn(9, *example.shape[1:])
    assert torch.allclose(small(given), model(given), atol=1e-5)
    return [tuple(parameter.shape) for name, parameter in small.named_parameters() if name.endswith("weight")]


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.ReLU(inplace=True), nn.Tanh(), nn.Dropout(), nn.Hardswish()])
def test_a_constant_node_of_a_linear_layer_goes_into_the_next_bias(activation):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 5), nn.Linear(5, 2))
    zero_rows(model[0], [1, 4])
    assert gone(model, torch.randn(2, 4)) == [(4, 4), (5, 4), (2, 5)]


def test_constants_travel_to_a_fixed_point():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 2))
    zero_rows(model[0], [1, 4])
    with torch.no_grad():
        model[2].weight[3, [0, 2, 3, 5]] = 0  # reads constants only: one itself
    assert gone(model, torch.randn(2, 4)) == [(4, 4), (4, 4), (2, 4)]


def test_a_constant_channel_goes_through_norm_pooling_and_flatten():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.SiLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), nn.GELU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3)),
    )
    model[1].running_mean.normal_()
    zero_rows(model[0], [0, 5])
    zero_rows(model[4], [2])
    with torch.no_grad():
        model[1].weight[3] = 0  # the norm alone makes it constant
    assert gone(model, torch.randn(2, 2, 12, 12)) == [(3, 2, 3, 3), (3,), (4, 3, 3, 3), (3, 16)]


@pytest.mark.parametrize(("activation", "left"), [(nn.ReLU(), 4), (nn.Sigmoid(), 6)])
def test_zero_padding_is_no_constant_but_zero(activation, left):
    """At the border the padding reads 0, not the constant: only a constant 0 may go."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), activation, nn.Conv2d(6, 3, 3, padding=1))
    zero_rows(model[0], [1, 2])
    with torch.no_grad():
        model[0].bias.copy_(-model[0].bias.abs())
    assert gone(model, torch.randn(2, 2, 8, 8))[0][0] == left


def test_without_a_bias_or_with_tied_weights_it_stays():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 2, bias=False))
    zero_rows(model[0], [1])
    assert gone(model, torch.randn(2, 4)) == [(6, 4), (2, 6)]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.sigmoid(self.b(F.sigmoid(self.b(F.sigmoid(self.a(x)))))))


def test_a_layer_called_twice_does_not_take_a_constant_of_one_call():
    torch.manual_seed(0)
    model = Twice().eval()
    zero_rows(model.a, [1])
    known = couplings(model, torch.randn(2, 4))
    folded = fold_constants(known, tensors_of(model))
    assert all(folded[name] is tensor for name, tensor in tensors_of(model).items())


def test_a_sparse_classifier_gets_really_smaller():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)).eval()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.mul_(torch.rand_like(layer.weight) < 0.01)
    shapes = gone(model, torch.randn(2, 64))
    alive = model[0].weight.any(1)  # the others are constant,
    second = (model[2].weight != 0) & alive  # and so is what reads nothing else
    assert shapes[1][0] == int(second.any(1).sum())
    assert shapes[0][0] == shapes[1][1] == int(second.any(0).sum()) < 140
