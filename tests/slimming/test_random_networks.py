"""Networks that nobody drew up: random parts in a random order, random nodes gone, and everything must still agree.

Slim computes what masked does, a file of it is the same network again, onnxruntime agrees, and an
optimizer goes on as if nothing had been cut. A few dozen run each time, always the same ones; `-m slow` tries
600 new ones.
"""

import copy
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import compress.export
from compress.files.checkpoint import load
from compress.graph.coupling import Couplings, couplings
from compress.slimming.shrink import slim

Part = tuple[str | int, ...]

IMAGE, ROWS, FEATURES = (4, 8, 8), (5, 6), (12,)
WIDTHS = st.sampled_from([2, 4, 6, 8, 12])

ACTIVATIONS: Sequence[Callable[[], nn.Module]] = (
    *(nn.ReLU, nn.Tanh, nn.SiLU, nn.GELU, nn.ELU, nn.Hardswish, nn.Sigmoid, nn.LeakyReLU, nn.Softplus),
    *(nn.Dropout, nn.PReLU),
)


@dataclass(frozen=True)
class Plan:
    """A network as data, which hypothesis can make smaller: its input's shape without batch, its parts, its nodes."""

    image: tuple[int, ...]
    parts: tuple[Part, ...]
    seed: int
    gone: tuple[float, ...]  # the share of the nodes that goes, for one coupling after the other, over and over


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class Concat(nn.Module):
    def __init__(self, branches: Sequence[nn.Module], dim: int) -> None:
        super().__init__()
        self.branches, self.dim = nn.ModuleList(branches), dim

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], self.dim)


class Recurrent(nn.Module):
    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.cell(x)[0]
        return result


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return result


class Step(nn.Module):
    """From a sequence to features: its last step, or the mean over its steps."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1] if self.how == "last" else x.mean(1)


def image_part(part: Part, shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """(the part for an image of this shape, the shape that it gives)."""
    channels, *sides = shape
    match part:
        case ("wide", int(width), int(groups)):
            return nn.Conv2d(channels, width, 3, padding=1, groups=groups if channels % groups == 0 else 1), (
                width,
                *sides,
            )
        case ("depthwise", int(times)):
            made = nn.Conv2d(channels, channels * times, 3, padding=1, groups=channels, bias=False)
            return made, (channels * times, *sides)
        case ("norm", "batch"):
            return nn.BatchNorm2d(channels), shape
        case ("norm", "group"):
            return nn.GroupNorm(2, channels), shape
        case ("norm", _):
            return nn.InstanceNorm2d(channels, affine=True), shape
        case ("pool", kind) if sides[0] >= 4:
            return nn.MaxPool2d(2) if kind == "max" else nn.AvgPool2d(2), (channels, *(side // 2 for side in sides))
        case ("up", int(width)) if sides[0] <= 8:
            return nn.ConvTranspose2d(channels, width, 2, stride=2), (width, *(2 * side for side in sides))
        case ("residual", int(width)):
            first, second = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 1)
            return Residual(nn.Sequential(first, nn.ReLU(), second)), shape
        case ("concat", int(width), int(other)):
            branches = [nn.Conv2d(channels, width, 1), nn.Conv2d(channels, other, 3, padding=1)]
            return Concat(branches, 1), (width + other, *sides)
        case ("gate", int(width)):
            return nn.Sequential(nn.Conv2d(channels, 2 * width, 1), nn.GLU(1)), (width, *sides)
        case _:
            return nn.Identity(), shape


def row_part(part: Part, shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """The same for a sequence [steps, width], or for features [width]."""
    *steps, width = shape
    match part:
        case ("wide", int(wider), _):
            return nn.Linear(width, wider), (*steps, wider)
        case ("norm", "batch") if not steps:
            return nn.BatchNorm1d(width), shape
        case ("norm", _):
            return nn.LayerNorm(width), shape
        case ("residual", int(wider)):
            return Residual(nn.Sequential(nn.Linear(width, wider), nn.GELU(), nn.Linear(wider, width))), shape
        case ("concat", int(wider), int(other)):
            return Concat([nn.Linear(width, wider), nn.Linear(width, other)], -1), (*steps, wider + other)
        case ("gate", int(wider)):
            return nn.Sequential(nn.Linear(width, 2 * wider), nn.GLU(-1)), (*steps, wider)
        case ("depthwise", int(layers)) if steps:
            return Recurrent(nn.LSTM(width, 6, layers, batch_first=True)), (*steps, 6)
        case ("up", int(hidden)) if steps:
            both = hidden > 6
            return Recurrent(nn.GRU(width, hidden, batch_first=True, bidirectional=both)), (*steps, hidden * (1 + both))
        case ("pool", kind) if steps:
            attention = Attention(width, 2 if width % 2 == 0 else 1)
            return (Residual(attention) if kind == "max" else attention), shape
        case _:
            return nn.Identity(), shape


def build(plan: Plan) -> nn.Module:
    """The network; its weights come from the global generator."""
    shape, layers = plan.image, []
    for part in plan.parts:
        if part[0] == "activation":
            layers.append(ACTIVATIONS[int(part[1])]())
        elif part[0] == "flat":
            if len(shape) == 3:
                layers.append(nn.Flatten())
                shape = (prod(shape),)
            elif len(shape) == 2:
                layers.append(Step(str(part[1])))
                shape = shape[1:]
        else:
            layer, shape = (image_part if len(shape) == 3 else row_part)(part, shape)
            layers.append(layer)
    if len(shape) == 3:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    elif len(shape) == 2:
        layers.append(nn.Flatten())
        shape = (prod(shape),)
    return nn.Sequential(*layers, nn.Linear(shape[0], 3))


def shuffled(model: nn.Module) -> nn.Module:
    """Biases, scales and running statistics that are not the zeros and ones which they begin as."""
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 1:
                tensor.add_(0.3 * torch.randn_like(tensor))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return model.eval()


PARTS = st.one_of(
    st.tuples(st.just("wide"), WIDTHS, st.sampled_from([1, 1, 2])),
    st.tuples(st.just("depthwise"), st.integers(1, 2)),
    st.tuples(st.just("norm"), st.sampled_from(["batch", "group", "instance"])),
    st.tuples(st.just("activation"), st.integers(0, len(ACTIVATIONS) - 1)),
    st.tuples(st.just("pool"), st.sampled_from(["max", "average"])),
    st.tuples(st.just("up"), WIDTHS),
    st.tuples(st.just("residual"), WIDTHS),
    st.tuples(st.just("concat"), WIDTHS, WIDTHS),
    st.tuples(st.just("gate"), WIDTHS),
    st.tuples(st.just("flat"), st.sampled_from(["last", "mean"])),
)
PLANS = st.builds(
    Plan,
    st.sampled_from([IMAGE, ROWS, FEATURES]),
    st.lists(PARTS, min_size=3, max_size=10).map(tuple),
    st.integers(0, 2**16),
    st.lists(st.sampled_from([0.2, 0.5, 0.7, 0.9, 1.0]), min_size=1, max_size=4).map(tuple),
)


def masks_of(plan: Plan, model: nn.Module, known: Couplings) -> tuple[dict[str, Tensor], bool]:
    """(what remains of each parameter, whether every coupling keeps a node)."""
    chance = torch.Generator().manual_seed(plan.seed)
    masks: dict[str, Tensor] = {}
    alive = True
    for number, coupling in enumerate(known.found):
        keep = torch.rand(coupling.size, generator=chance) >= plan.gone[number % len(plan.gone)]
        alive &= bool(keep.any())
        for name, mask in coupling.masks(model, keep).items():
            masks[name] = masks[name] & mask if name in masks else mask
    return masks, alive


@torch.no_grad()
def prune(model: nn.Module, masks: dict[str, Tensor]) -> None:
    for name, mask in masks.items():
        model.get_parameter(name).mul_(mask)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, rows: Tensor) -> None:
    optimizer.zero_grad()
    (model(rows) - 1).square().mean().backward()
    optimizer.step()


def assert_same(one: Tensor, other: Tensor, tolerance: float) -> None:
    assert one.shape == other.shape
    assert one.isfinite().all()
    assert (one - other).abs().max() <= tolerance * one.abs().max()


def check(plan: Plan, *, onnx: bool) -> set[str]:
    """What kind of network it was."""
    torch.manual_seed(plan.seed)
    model = shuffled(build(plan))
    example, rows = torch.randn(2, *plan.image), torch.randn(4, *plan.image)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    step(model, optimizer, rows)
    known = couplings(model, example)
    masks, alive = masks_of(plan, model, known)
    prune(model, masks)
    masked = copy.deepcopy(model)
    theirs = torch.optim.SGD(masked.parameters(), lr=1e-3, momentum=0.9)
    theirs.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # which it would share

    small = slim(model, example, optimizer=optimizer)
    gone = any(not mask.all() for mask in masks.values())
    note(f"{sum(p.numel() for p in masked.parameters())} -> {sum(p.numel() for p in small.parameters())}: {small}")
    with torch.no_grad():
        assert_same(masked(rows), small(rows), 1e-5)
    if gone and alive:
        # What nothing reads any more is gone from the tensors, to the node.
        assert sum(p.numel() for p in small.parameters()) == sum(
            int(masks[name].sum()) if name in masks else p.numel() for name, p in masked.named_parameters()
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slim.safetensors"
        compress.export.safetensors(small, path)
        again = load(path, model=lambda: build(plan))
        with torch.no_grad():
            assert torch.equal(again(rows), small(rows))
        if onnx:
            compress.export.onnx(small, Path(folder) / "slim.onnx", example)  # raises unless onnxruntime agrees
    if alive:  # else the last node of a width, which remains, may come to life again
        step(masked, theirs, rows)
        prune(masked, masks)
        step(small, optimizer, rows)
        with torch.no_grad():
            assert_same(masked(rows), small(rows), 1e-5)
    kinds = {"pruned": gone, "traced": type(small) is not type(model), "every width alive": alive, "onnx": onnx}
    return {kind for kind, holds in kinds.items() if holds}


pytestmark = pytest.mark.filterwarnings("ignore:The outputs do not depend")  # where all nodes of a width are gone
NO_HURRY = [HealthCheck.too_slow, HealthCheck.data_too_large]
PHASES = [Phase.explicit, Phase.generate, Phase.shrink]  # telling which part of an example matters takes minutes


@pytest.mark.extended
@given(PLANS)
@settings(max_examples=40, derandomize=True, suppress_health_check=NO_HURRY, phases=PHASES)
def test_a_random_network_stays_itself(plan: Plan) -> None:
    check(plan, onnx=False)


@pytest.mark.extended
@given(PLANS)
@settings(max_examples=2, derandomize=True, suppress_health_check=NO_HURRY, phases=PHASES)
def test_a_random_network_stays_itself_in_onnxruntime(plan: Plan) -> None:
    check(plan, onnx=True)


@pytest.mark.slow
def test_many_random_networks_stay_themselves(measured: Callable[[str, dict[str, Any]], None]) -> None:
    kinds: Counter[str] = Counter()

    @given(PLANS, st.integers(0, 9))
    @settings(max_examples=600, suppress_health_check=NO_HURRY, phases=PHASES)
    def stays_itself(plan: Plan, number: int) -> None:
        kinds.update({"all", *check(plan, onnx=number == 0)})

    stays_itself()
    measured("networks", dict(kinds))
