"""Is every wrong network refused? Random networks, each slimmed and then made wrong in every way that fits it.

    python benchmarks/mutations.py [NETWORKS]

Whether a network is wrong is judged without the proof: in float64, on 256 samples, where an output differs by more than
1e-4 of how much it varies. Writes docs/benchmarks/mutations.json.
"""

import copy
import json
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.errors import ProofError, UnsupportedModelError
from compress.graph.coupling import couplings
from compress.inputs import Inputs, inputs_of
from compress.proof import ConstantOutputsWarning, inputs_like, prove_same
from compress.slimming.shrink import slim

TOLERANCE, WRONG = 1e-5, 1e-4
OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "mutations.json"


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.heads, self.scale = heads, (width // heads) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        q, k, v = (
            layer(x).view(batch, steps, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attention = (3 * self.scale * q @ k.transpose(-2, -1)).softmax(-1)
        result: Tensor = x + self.out((attention @ v).transpose(1, 2).flatten(2))
        return result


class Masked(nn.Module):
    """Logits of which some are never allowed."""

    def __init__(self, width: int, classes: int, fill: float) -> None:
        super().__init__()
        self.head, self.fill = nn.Linear(width, classes), fill
        self.register_buffer("forbidden", torch.arange(classes) % 3 == 2)
        self.forbidden: Tensor

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(x).masked_fill(self.forbidden, self.fill)
        return result


class Norm(nn.Module):
    """A layer norm with its own count."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width) * 0.3)
        self.count, self.eps = width, 1e-5

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.sum(-1, keepdim=True) / self.count
        variance = centred.square().sum(-1, keepdim=True) / self.count
        return centred * (variance + self.eps).rsqrt() * self.weight + self.bias


class Scaled(nn.Module):
    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        return x * self.constant


class Last(nn.Module):
    """A recurrent layer's last step."""

    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.cell(x)[0][:, -1]
        return result


class Residual(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


def network(chance: Random) -> tuple[nn.Module, Tensor]:
    """A random network and an example for it; weights come from torch's global generator."""
    kind = chance.choice(["features", "image", "sequence", "tokens"])
    width, layers = chance.choice([8, 12, 16]), list[nn.Module]()
    activation = chance.choice([nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus])
    if kind == "image":
        example = torch.randn(2, 3, 8, 8)
        groups = chance.choice([1, 1, 2])
        layers += [nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), activation()]
        layers += [nn.Conv2d(width, 2 * width, 3, padding=1, groups=groups), nn.GroupNorm(2, 2 * width), activation()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, width)]
    elif kind == "features":
        example = torch.randn(2, 6)
        layers += [nn.Linear(6, width), activation(), nn.BatchNorm1d(width)]
    else:
        tokens = kind == "tokens"
        example = torch.zeros(2, 5, dtype=torch.int64) if tokens else torch.randn(2, 5, 6)
        layers += [nn.Embedding(30, width) if tokens else nn.Linear(6, width), Norm(width)]
        if chance.random() < 0.7:
            layers += [Attention(width, chance.choice([1, 2, 4])), nn.LayerNorm(width)]
        cell = chance.choice([nn.GRU, nn.LSTM, nn.RNN])
        layers += [Last(cell(width, width, batch_first=True))]
    for _ in range(chance.randint(0, 2)):
        layers += chance.choice(
            [
                [Residual(width, 2 * width)],
                [Norm(width), nn.Linear(width, width), activation()],
                [nn.Linear(width, width), activation(), Scaled(0.7)],
            ]
        )
    fill = chance.choice([-1e4, -1e9, torch.finfo(torch.float32).min, -math.inf])
    layers += [Masked(width, 5, fill) if chance.random() < 0.5 else nn.Linear(width, 5)]
    if chance.random() < 0.2:
        layers += [Offset(chance.choice([10.0, 1e3]))]
    model = nn.Sequential(*layers)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.data.add_(0.3 * torch.rand_like(tensor) if "var" in name else 0.3 * torch.randn_like(tensor))
    return model.eval(), example


class Offset(nn.Module):
    """Outputs that are large beside what they vary by, as temperatures in kelvin."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


def halved(model: nn.Module, example: Tensor, chance: Random) -> None:
    """Half of the nodes of every coupling become zero."""
    for coupling in couplings(model, example).found:
        keep = torch.tensor([chance.random() < 0.5 for _ in range(coupling.size)])
        for name, mask in coupling.masks(model, keep).items():
            model.get_parameter(name).data.mul_(mask)


def mutants(masked: nn.Module, small: nn.Module, chance: Random) -> Iterator[tuple[str, nn.Module]]:
    """Wrong networks, each with the kind of its mistake."""
    matrices = [name for name, tensor in small.named_parameters() if tensor.ndim > 1]
    biases = [name for name, tensor in small.named_parameters() if "bias" in name]
    for kind, names, change in (
        ("a column too much", matrices, _without_a_column),
        ("rows swapped", matrices, _swapped),
        ("a bias not folded", biases, _zeroed),
        ("a weight off by a percent", matrices, lambda tensor, _: tensor.mul_(1.01)),
    ):
        if names:
            yield kind, _with_tensor(small, chance.choice(names), change, chance)
    for kind, sort, change_module in MISTAKES:
        places = [name for name, module in masked.named_modules() if isinstance(module, sort)]
        if places:
            changed = copy.deepcopy(masked)
            change_module(changed.get_submodule(chance.choice(places)))
            yield kind, changed


def _with_tensor(model: nn.Module, name: str, change: Callable[[Tensor, Random], Any], chance: Random) -> nn.Module:
    changed = copy.deepcopy(model)
    with torch.no_grad():
        change(changed.get_parameter(name), chance)
    return changed


def _without_a_column(tensor: Tensor, chance: Random) -> None:
    tensor[:, chance.randrange(tensor.shape[1])] = 0


def _swapped(tensor: Tensor, chance: Random) -> None:
    if len(tensor) > 1:
        one, other = chance.sample(range(len(tensor)), 2)
        tensor[[one, other]] = tensor[[other, one]]


def _zeroed(tensor: Tensor, chance: Random) -> None:
    tensor[chance.randrange(len(tensor))] = 0


def _another_scale(module: Any) -> None:
    size = module.query.out_features // module.heads
    module.scale = (size + 1) ** -0.5  # of a head that is wider by one


def _another_count(module: Any) -> None:
    module.count -= 1


def _another_eps(module: Any) -> None:
    module.eps *= 100


def _shifted(module: Any) -> None:
    module.forbidden.copy_(module.forbidden.roll(1))


def _another_constant(module: Any) -> None:
    module.constant *= 1.01


MISTAKES: tuple[tuple[str, Any, Callable[[Any], None]], ...] = (
    ("attention scaled for another width", Attention, _another_scale),
    ("a norm over another count", Norm, _another_count),
    ("another eps", (Norm, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm), _another_eps),
    ("a mask shifted by one", Masked, _shifted),
    ("another constant", Scaled, _another_constant),
)


def doubled(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model).eval().double()
    if isinstance(model, fx.GraphModule):
        for node in model.graph.nodes:
            if node.kwargs.get("dtype") == torch.float32:
                node.kwargs = {**node.kwargs, "dtype": torch.float64}
        model.recompile()
    return model


@torch.no_grad()
def wrongness(one: nn.Module, other: nn.Module, example: Tensor) -> float:
    """The largest difference of an output in float64, of how much it varies over the samples."""
    torch.manual_seed(1)
    tokens = not example.is_floating_point()
    shape = (256, *example.shape[1:])
    rows = torch.randint(30, shape) if tokens else torch.randn(shape, dtype=torch.float64)
    expected, found = (doubled(model)(rows) for model in (one, other))
    fixed = (expected == expected[:1]).all(0)
    if not torch.allclose(expected[:, fixed], found[:, fixed], WRONG, 0.0):
        return math.inf
    expected, found = expected[:, ~fixed], found[:, ~fixed]
    if not expected.numel():
        return 0.0
    return float((expected - found).abs().max() / (expected - expected.mean(0)).abs().max())


def accepted(reference: nn.Module, candidate: nn.Module, example: Tensor) -> bool:
    given: Inputs = inputs_of(example)
    try:
        prove_same(reference, candidate, [*inputs_like(reference, given, (2, 3)), given], TOLERANCE)
    except ProofError:
        return False
    return True


def tried(seed: int) -> tuple[Counter[str], Counter[str], list[str]]:
    """(wrong networks by kind, those that were refused, what should not be) for one random network."""
    chance, wrong, caught, bad = Random(seed), Counter[str](), Counter[str](), list[str]()
    torch.manual_seed(seed)
    masked, example = network(chance)
    halved(masked, example, chance)
    try:
        small = slim(masked, example)
    except UnsupportedModelError:
        small = copy.deepcopy(masked)
    except ProofError as error:
        return wrong, caught, [f"network {seed}: the right one is refused: {error}"]
    for kind, mutant in mutants(masked, small, chance):
        off, passes = wrongness(masked, mutant, example), accepted(masked, mutant, example)
        if off > WRONG:
            wrong[kind] += 1
            caught[kind] += not passes
            bad += [f"network {seed}: {kind}, off by {off:.2g}, passes"] if passes else []
        elif off < TOLERANCE / 100 and not passes:
            bad.append(f"network {seed}: {kind}, off by {off:.2g}, is refused")
    return wrong, caught, bad


def main(count: int = 200) -> None:
    warnings.simplefilter("ignore", ConstantOutputsWarning)
    begun, wrong, caught, bad = time.perf_counter(), Counter[str](), Counter[str](), list[str]()
    for seed in range(count):
        more = tried(seed)
        wrong, caught, bad = wrong + more[0], caught + more[1], bad + more[2]
    print(*bad, sep="\n")
    found = {"networks": count, "wrong": dict(wrong), "refused": dict(caught), "seconds": time.perf_counter() - begun}
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(caught.values())} of {sum(wrong.values())} wrong networks are refused")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
