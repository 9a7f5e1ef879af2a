"""Every rule on a small network: the widths it follows go by half and slim computes what masked does, exactly; where
a width must be kept, cutting it by hand computes something else.
"""

import copy
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations
from torchvision.ops import deform_conv2d, roi_align

from compress.graph.coupling import Couplings, couplings
from compress.graph.dimensions import whole
from compress.graph.flow import Flow
from compress.graph.rules import note_zeros, rule_of
from compress.slimming.shrink import slim

IMAGE, ROWS, STEPS, TOKENS = (2, 3, 8, 8), (2, 6), (2, 5, 6), (2, 5)


class Net(nn.Module):
    """Named parts, and a forward given as a function of them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


@dataclass(frozen=True)
class Case:
    """operators: what must be in the trace, so that the case shows what it says; widths: sizes that can shrink."""

    operators: str
    shape: tuple[int, ...]
    widths: list[int]
    forward: Callable[[Any, Tensor], Tensor]
    parts: Callable[[], dict[str, Any]]

    def net(self) -> nn.Module:
        torch.manual_seed(0)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", FutureWarning)  # of norms of weights as hooks
            net = Net(self.forward, **self.parts()).eval().double()
            for parameter in net.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        return net

    def example(self) -> Tensor:
        torch.manual_seed(1)
        if self.shape == TOKENS:
            return torch.randint(0, 9, self.shape)
        return torch.randn(self.shape, dtype=torch.float64)


def two(first: int = 8, second: int | None = None) -> Callable[[], dict[str, Any]]:
    return lambda: {"a": nn.Linear(6, first), "b": nn.Linear(second or first, 3)}


def images(first: int = 8, second: int | None = None) -> Callable[[], dict[str, Any]]:
    return lambda: {"a": nn.Conv2d(3, first, 3), "b": nn.Conv2d(second or first, 2, 1)}


def three(width: int = 8, second: int | None = None) -> Callable[[], dict[str, Any]]:
    return lambda: {"a": nn.Linear(6, width), "c": nn.Linear(6, second or width), "b": nn.Linear(width, 3)}


def elementwise(operators: str, function: Callable[[Tensor], Tensor]) -> Case:
    return Case(operators, ROWS, [8], lambda net, x: net.b(function(net.a(x))), two())


def both(operators: str, function: Callable[[Tensor, Tensor], Tensor]) -> Case:
    return Case(operators, ROWS, [8], lambda net, x: net.b(function(net.a(x), net.c(x))), three())


def along_steps(operators: str, function: Callable[[Tensor], Tensor]) -> Case:
    return Case(operators, STEPS, [8], lambda net, x: net.b(function(net.a(x))), two())


def cells(cell: nn.Module) -> Callable[[], dict[str, Any]]:
    return lambda: {"a": nn.Linear(6, 8), "cell": copy.deepcopy(cell), "b": nn.Linear(8, 3)}


def over_time(net: Any, x: Tensor) -> Tensor:
    """A loop over steps, as people write it, with the states of all steps in a new tensor."""
    state = x.new_zeros(len(x), 8)
    states = []
    for step in range(x.shape[1]):
        state = net.cell(net.a(x[:, step]), state)
        states.append(state)
    return net.b(torch.stack(states, 1))


def from_nothing(net: Any, x: Tensor) -> Tensor:
    """The cell itself makes its first state."""
    state = net.cell(net.a(x[:, 0]))
    return net.b(net.cell(net.a(x[:, 1]), state))


def written_over_time(net: Any, x: Tensor) -> Tensor:
    result = x.new_zeros(len(x), x.shape[1], 8)
    state = (x.new_zeros(len(x), 8), x.new_zeros(len(x), 8))
    for step in range(x.shape[1]):
        state = net.cell(net.a(x).select(1, step), state)
        result[:, step] = state[0]
    return net.b(result)


def standardized(net: Any, x: Tensor) -> Tensor:
    weight = net.a.weight
    mean = weight.mean((1, 2, 3), keepdim=True)
    deviation = weight.std((1, 2, 3), keepdim=True) + 1e-5
    return net.b(F.conv2d(x, (weight - mean) / deviation, net.a.bias).relu())


def difference(net: Any, x: Tensor) -> Tensor:
    return net.b(F.linear(x, net.a.weight - net.c.weight).relu())


def standardized_by_batch_norm(net: Any, x: Tensor) -> Tensor:
    weight = net.a.weight
    flat = F.batch_norm(weight.reshape(1, len(weight), -1), None, None, weight=net.gain, training=True)
    return net.b(F.conv2d(x, flat.reshape_as(weight), net.a.bias).relu())


def with_gain() -> dict[str, Any]:
    return {**images()(), "gain": nn.Parameter(torch.ones(8))}


def one_group() -> dict[str, Any]:
    return {**images()(), "norm": nn.GroupNorm(1, 8)}


def attention_of_groups(net: Any, x: Tensor) -> Tensor:
    query = net.q(x).unflatten(-1, (4, 3)).transpose(1, 2)
    key, value = (part(x).unflatten(-1, (2, 3)).transpose(1, 2) for part in (net.k, net.v))
    result = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    return net.b(result.transpose(1, 2).flatten(2))


def deformed(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.b(deform_conv2d(y, net.offset(x), net.c.weight, net.c.bias).relu())


def bent(net: Any, y: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, list(y.shape), align_corners=False)
    return net.b(F.grid_sample(y, grid, align_corners=False))


def decomposed(net: Any, x: Tensor) -> Tensor:
    """As in a program that torch.export has decomposed."""
    y = torch.ops.aten.convolution(x, net.a.weight, net.a.bias, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    norm = net.norm
    y = torch.ops.aten._native_batch_norm_legit_no_training(
        y, norm.weight, norm.bias, norm.running_mean, norm.running_var, 0.1, 1e-5
    )[0]
    y = torch.ops.aten.native_group_norm(y, None, None, len(y), 8, 36, 4, 1e-5)[0]
    return net.b(torch.ops.aten._adaptive_avg_pool2d(torch.ops.aten.view_copy(y, y.shape), [2, 2]))


def copies(net: Any, x: Tensor) -> Tensor:
    y = torch.ops.aten.slice_copy(torch.ops.aten.permute_copy(net.a(x), [0, 2, 1]), 1, 0, 4)
    return net.b(torch.ops.aten.transpose_copy(torch.ops.aten.unsqueeze_copy(y, 1), 2, 3)).squeeze(1)


FOLLOWED = {
    # means over nodes that are zero
    "var": along_steps("var", lambda y: y / (y.var(2, keepdim=True) + 0.1)),
    "std": along_steps("std mul", lambda y: 2 * y / (y.std(2, keepdim=True) + 0.1)),
    "var_mean": along_steps("var_mean", lambda y: y * sum(torch.var_mean(y, (1, 2), keepdim=True, correction=0))),
    "std_mean": along_steps("std_mean", lambda y: y * sum(torch.std_mean(y, 2))[..., None]),
    "layer norm over two dimensions": along_steps("layer_norm", lambda y: y * F.layer_norm(y, y.shape[1:])),
    "a single group": Case("group_norm", IMAGE, [8], lambda net, x: net.b(net.norm(net.a(x))), one_group),
    "single windows": along_steps("conv1d", lambda y: F.conv1d(y, torch.ones(5, 5, 1, dtype=y.dtype)).relu()),
    "nodes beside others": along_steps("pad narrow", lambda y: F.pad(y, (2, 3)).narrow(2, 2, 8)),
    # elementwise, under every name
    "and": both("__and__", lambda a, c: ((a > 0) & (c > 0)).double()),
    "or": both("__or__", lambda a, c: ((a > 0) | (c > 0)).double()),
    "and in place": both("__iand__", lambda a, c: torch.ops.aten.__iand__(a > 0, c > 0).double()),
    "or in place": both("__ior__", lambda a, c: torch.ops.aten.__ior__(a > 0, c > 0).double()),
    "xor": both("__xor__", lambda a, c: ((a > 0) ^ (c > 0)).double()),
    "logical": both("logical_and logical_not", lambda a, c: torch.logical_and(a > 0, c > 0).logical_not().double()),
    "shifts": both("__lshift__", lambda a, c: ((a * 8).int().abs() << 1).double() * c),
    "maximum of two": both("max", lambda a, c: torch.max(a, c)),
    "clamped by tensors": both("clamp", lambda a, c: a.clamp(-c.abs(), c.abs())),
    "lerp": both("lerp", lambda a, c: torch.lerp(a, c, 0.3)),
    "addcmul and addcdiv": both("addcmul addcdiv", lambda a, c: torch.addcdiv(torch.addcmul(a, a, c), a, c.exp())),
    "where": both("where masked_fill", lambda a, c: torch.where(a > 0, c, 2.0).masked_fill(c > 1, 0.5)),
    "aliases": both("multiply subtract", lambda a, c: torch.multiply(a, c).subtract(a).absolute()),
    "in place": elementwise("abs_ add_ mish", lambda y: F.mish(y.clone().abs_().add_(1))),
    "without": both("add", lambda a, c: torch.add(a, c, out=torch.empty_like(a))),
    "type_as": both("type_as", lambda a, c: a.type_as(c)),
    "expand_as": both("expand_as", lambda a, c: a.expand_as(c) * c),
    "reshape_as": both("reshape_as view_as", lambda a, c: a.reshape_as(c).view_as(c) + c),
    "complex": both(
        "complex real imag angle", lambda a, c: (lambda z: z.real * z.imag + z.angle())(torch.complex(a, c))
    ),
    "polar": both("polar view_as_real", lambda a, c: torch.view_as_real(torch.polar(a.exp(), c)).sum(-1)),
    "conjugate": both("view_as_complex", lambda a, c: torch.view_as_complex(torch.stack((a, c), -1)).conj().imag),
    # contractions
    "einsum": Case(
        "einsum", STEPS, [8], lambda net, x: net.b(torch.einsum("...T i, oi -> ...T o", x, net.a.weight)), two()
    ),
    "einsum without a result": Case(
        "einsum", ROWS, [8], lambda net, x: net.b(torch.einsum("AY,BY", x, net.a.weight)), two()
    ),
    "einsum of one": along_steps("einsum", lambda y: torch.einsum("b...c->b c ...", y).transpose(1, 2)),
    "einsum of a diagonal": Case(
        "einsum",
        ROWS,
        [8],
        lambda net, x: net.b(torch.einsum("bii->bi", net.a(x).unsqueeze(2) * net.a(x).unsqueeze(1))),
        two(),
    ),
    "einsum of the same twice": Case(
        "einsum",
        ROWS,
        [8],
        lambda net, x: torch.einsum("bi,bi->b", net.a(x), net.a(x)).unsqueeze(1) + net.b(net.a(x)),
        two(),
    ),
    "bilinear": Case(
        "bilinear",
        ROWS,
        [8, 4, 5],
        lambda net, x: net.b(net.two(net.a(x), net.c(x)).relu()),
        lambda: {
            "a": nn.Linear(6, 8),
            "c": nn.Linear(6, 4),
            "two": nn.Bilinear(8, 4, 5),
            "b": nn.Linear(5, 3),
        },
    ),
    "tensordot": Case(
        "tensordot", ROWS, [8], lambda net, x: net.b(torch.tensordot(x, net.a.weight, ([1], [1]))), two()
    ),
    "inner": Case("inner", ROWS, [8], lambda net, x: net.b(torch.inner(x, net.a.weight)), two()),
    "outer": Case(
        "outer",
        ROWS,
        [8],
        lambda net, x: net.b(F.linear(x, torch.outer(net.p, net.q)).relu()),
        lambda: {"p": nn.Parameter(torch.ones(8)), "q": nn.Parameter(torch.ones(6)), "b": nn.Linear(8, 3)},
    ),
    "kron": Case(
        "kron",
        ROWS,
        [4, 2],
        lambda net, x: net.b(F.linear(x, torch.kron(net.u, net.w)).relu()),
        lambda: {
            "u": nn.Parameter(torch.randn(4, 2)),
            "w": nn.Parameter(torch.randn(2, 3)),
            "b": nn.Linear(8, 3),
        },
    ),
    "dot": Case(
        "dot vdot mv",
        ROWS,
        [8],
        lambda net, x: (
            (x @ net.a.weight.t() @ net.p).unsqueeze(1) * torch.dot(net.p, net.a.weight.mv(net.q))
            + torch.vdot(net.p, net.p)
        ),
        lambda: {
            "a": nn.Linear(6, 8),
            "p": nn.Parameter(torch.ones(8)),
            "q": nn.Parameter(torch.ones(6)),
        },
    ),
    "vecdot": Case(
        "linalg_vecdot",
        ROWS,
        [8],
        lambda net, x: torch.linalg.vecdot(net.a(x), net.c(x)).unsqueeze(1) + net.b(net.a(x)),
        three(),
    ),
    "multi_dot": Case(
        "linalg_multi_dot",
        ROWS,
        [8, 4],
        lambda net, x: torch.linalg.multi_dot((x, net.u, net.w, net.p)).unsqueeze(1),
        lambda: {
            "u": nn.Parameter(torch.randn(6, 8)),
            "w": nn.Parameter(torch.randn(8, 4)),
            "p": nn.Parameter(torch.randn(4)),
        },
    ),
    "added products": Case(
        "addmv addbmm",
        STEPS,
        [8],
        lambda net, x: (
            torch.addmv(net.b.bias[:1], net.a(x)[:, 0], net.p).reshape(-1, 1)
            + torch.addbmm(net.b.bias, net.a(x).transpose(0, 1)[:, :1], net.b.weight.t().expand(5, 8, 3))
        ),
        lambda: {**two()(), "p": nn.Parameter(torch.randn(8))},
    ),
    "distances": Case("cdist", STEPS, [8], lambda net, x: torch.cdist(net.a(x), net.c(x)), three()),
    "a codebook": Case(
        "cdist argmin embedding",
        STEPS,
        [8],
        lambda net, x: net.b(F.embedding(torch.cdist(net.a(x), net.c.weight).argmin(-1), net.c.weight)),
        lambda: {"a": nn.Linear(6, 8), "b": nn.Linear(8, 3), "c": nn.Embedding(7, 8)},
    ),
    "cosine": Case(
        "cosine_similarity",
        ROWS,
        [8],
        lambda net, x: F.cosine_similarity(net.a(x), net.c(x)).unsqueeze(1),
        three(),
    ),
    "a norm": Case("linalg_norm", ROWS, [8], lambda net, x: torch.linalg.norm(net.a(x), dim=1), two()),
    # weights that are computed
    "weight standardization": Case("mean std", IMAGE, [8], standardized, images()),
    "weight standardization by batch_norm": Case("batch_norm", IMAGE, [8], standardized_by_batch_norm, with_gain),
    "difference of weights": Case("sub linear", ROWS, [8], difference, three()),
    "weight_norm": Case(
        "_weight_norm",
        ROWS,
        [8, 4],
        lambda net, x: net.b(net.c(net.a(x).tanh()).tanh()),
        lambda: {
            "a": parametrizations.weight_norm(nn.Linear(6, 8)),
            "c": parametrizations.weight_norm(nn.Linear(8, 4)),
            "b": parametrizations.weight_norm(nn.Linear(4, 3)),
        },
    ),
    "norms as hooks": Case(
        "_weight_norm mv dot",
        ROWS,
        [8, 4],
        lambda net, x: net.b(net.c(net.a(x).tanh()).tanh()),
        lambda: {
            "a": nn.utils.weight_norm(nn.Linear(6, 8)),
            "c": nn.utils.spectral_norm(nn.Linear(8, 4)),
            "b": nn.utils.weight_norm(nn.Linear(4, 3)),
        },
    ),
    "weight_norm by hand": Case(
        "linalg_vector_norm div",
        ROWS,
        [8],
        lambda net, x: net.b(F.linear(x, net.g * (net.a.weight / net.a.weight.norm(dim=1, keepdim=True))).relu()),
        lambda: {**two()(), "g": nn.Parameter(torch.ones(8, 1))},
    ),
    "spectral_norm": Case(
        "mv vdot",
        ROWS,
        [8, 4],
        lambda net, x: net.b(net.c(net.a(x).tanh()).tanh()),
        lambda: {
            "a": parametrizations.spectral_norm(nn.Linear(6, 8)),
            "c": parametrizations.spectral_norm(nn.Linear(8, 4)),
            "b": parametrizations.spectral_norm(nn.Linear(4, 3)),
        },
    ),
    "low rank": Case(
        "matmul linear",
        ROWS,
        [8, 2],
        lambda net, x: net.b(F.linear(x, net.a.weight + net.u @ net.w).relu()),
        lambda: {
            **two()(),
            "u": nn.Parameter(torch.randn(8, 2)),
            "w": nn.Parameter(torch.randn(2, 6)),
        },
    ),
    "embedding_bag": Case(
        "embedding_bag",
        TOKENS,
        [8],
        lambda net, x: net.b(net.bag(x)),
        lambda: {"bag": nn.EmbeddingBag(9, 8), "b": nn.Linear(8, 3)},
    ),
    "deformable convolution": Case(
        "deform_conv2d",
        IMAGE,
        [8, 4],
        deformed,
        lambda: {
            "a": nn.Conv2d(3, 8, 1),
            "offset": nn.Conv2d(3, 18, 3),
            "c": nn.Conv2d(8, 4, 3),
            "b": nn.Conv2d(4, 2, 1),
        },
    ),
    # recurrent
    "gru_cell": Case("gru_cell select stack", STEPS, [8, 8], over_time, cells(nn.GRUCell(8, 8))),
    "gru_cell from nothing": Case("gru_cell", STEPS, [8, 8], from_nothing, cells(nn.GRUCell(8, 8))),
    "rnn_tanh_cell": Case("rnn_tanh_cell", STEPS, [8, 8], over_time, cells(nn.RNNCell(8, 8))),
    "lstm_cell": Case("lstm_cell select copy_", STEPS, [8, 8], written_over_time, cells(nn.LSTMCell(8, 8))),
    "attention over states": Case(
        "lstm softmax matmul",
        STEPS,
        [8],
        lambda net, x: (lambda y: net.b((y @ y.mT).softmax(-1) @ y))(net.lstm(x)[0]),
        lambda: {"lstm": nn.LSTM(6, 8, batch_first=True), "b": nn.Linear(8, 3)},
    ),
    "attention of groups": Case(
        "scaled_dot_product_attention",
        STEPS,
        [2, 2, 3, 3],
        attention_of_groups,
        lambda: {"q": nn.Linear(6, 12), "k": nn.Linear(6, 6), "v": nn.Linear(6, 6), "b": nn.Linear(12, 3)},
    ),
    # positions along another dimension
    "roll": along_steps("roll flip", lambda y: y.roll(2, 1).flip(1)),
    "rot90": Case("rot90", IMAGE, [8], lambda net, x: net.b(torch.rot90(net.a(x), 1, (2, 3))), images()),
    "sorted": along_steps("sort topk cumsum", lambda y: y.sort(1)[0].topk(3, 1)[0].cumsum(1)),
    "cummax": along_steps("cummax logcumsumexp", lambda y: y.cummax(1)[0].logcumsumexp(1)),
    "kthvalue": along_steps("kthvalue aminmax", lambda y: sum(y.aminmax(dim=1)) + y.kthvalue(2, 1)[0]),
    "argmax": along_steps("argmax one_hot", lambda y: F.one_hot(y.argmax(1), 5).double().mT * y),
    "gather": along_steps("gather expand", lambda y: y.gather(1, torch.tensor([[[1], [0]]]).expand(len(y), 2, 8))),
    "gather in step": along_steps("gather argmax", lambda y: y.gather(1, y.argmax(1, keepdim=True))),
    "take_along_dim": along_steps("take_along_dim", lambda y: torch.take_along_dim(y, y.argmax(1, keepdim=True), 1)),
    "scatter": along_steps(
        "scatter scatter_add",
        lambda y: y.scatter(1, y.argmax(1, keepdim=True), y[:, :1]).scatter_add(
            1, y.argmin(1, keepdim=True), y[:, 1:2]
        ),
    ),
    "index_add": along_steps("index_add", lambda y: y.index_add(1, torch.tensor([0, 3]), y[:, 1:3])),
    "index_copy": along_steps("index_copy_", lambda y: y.clone().index_copy_(1, torch.tensor([0, 3]), y[:, 1:3])),
    "index_fill": along_steps("index_fill", lambda y: y.index_fill(1, torch.tensor([0, 3]), 0.5)),
    "index_put": along_steps(
        "index_put", lambda y: y.index_put((torch.arange(1), torch.tensor([0, 3])), y[0, 1:3], accumulate=True)
    ),
    "written slice": along_steps("slice_scatter", lambda y: y.slice_scatter(y[:, :2] * 2, 1, 1, 3)),
    "written position": along_steps("select_scatter", lambda y: y.select_scatter(y[:, 1] * 2, 1, 0)),
    "unbind": along_steps("unbind stack", lambda y: torch.stack(y.unbind(1)[::-1], 1)),
    "narrow": along_steps("narrow", lambda y: y.narrow(1, 1, 3)),
    "diagonal": along_steps("diagonal", lambda y: (y.unsqueeze(1) * y.unsqueeze(2)).diagonal(0, 1, 2).mT),
    "differences": along_steps("diff", lambda y: y.diff(dim=1)),
    "tril": along_steps(
        "tril triu", lambda y: (y.unsqueeze(1) * y.unsqueeze(2)).permute(0, 3, 1, 2).tril().triu().sum(2).mT
    ),
    "repeated": along_steps("repeat_interleave tile", lambda y: y.repeat_interleave(2, 1).tile(1, 2, 1)),
    "matrices": Case(
        "linalg_inv matmul",
        STEPS,
        [8],
        lambda net, x: net.b(torch.linalg.inv(x[:, :, :5] + 9 * torch.eye(5)) @ net.a(x)),
        two(),
    ),
    "moved": along_steps("movedim swapaxes", lambda y: y.movedim(1, 2).swapaxes(1, 2)),
    "unfold": along_steps("unfold", lambda y: y.unfold(1, 3, 1).mean(-1)),
    "norm and std": along_steps("var_mean std_mean", lambda y: torch.var_mean(y, 1)[0] + torch.std_mean(y, 1)[1]),
    # parts of nodes
    "narrowed nodes": Case(
        "narrow",
        ROWS,
        [3, 5],
        lambda net, x: net.b(net.a(x).narrow(1, 3, 5)) + net.c(net.a(x)),
        lambda: {"a": nn.Linear(6, 8), "b": nn.Linear(5, 3), "c": nn.Linear(8, 3)},
    ),
    "written nodes": Case(
        "slice_scatter", ROWS, [5, 3], lambda net, x: net.b(net.a(x).slice_scatter(net.c(x), 1, 5)), three(8, 3)
    ),
    "pieces": Case(
        "tensor_split hstack",
        ROWS,
        [3, 3, 2],
        lambda net, x: net.b(torch.hstack(net.a(x).tensor_split(3, 1)[::-1])),
        two(),
    ),
    "pieces at": Case("hsplit", ROWS, [3, 5], lambda net, x: net.b(torch.hstack(net.a(x).hsplit((3,))[::-1])), two()),
    "repeated nodes": Case(
        "repeat_interleave", ROWS, [4], lambda net, x: net.b(net.a(x).repeat_interleave(2, 1)), two(4, 8)
    ),
    "a grid": Case(
        "meshgrid",
        ROWS,
        [8],
        lambda net, x: net.b(net.a(x) * torch.meshgrid(net.p, x[0, :2], indexing="ij")[0][:, 0]),
        lambda: {**two()(), "p": nn.Parameter(torch.ones(8))},
    ),
    # pictures and signals
    "grid_sample": Case(
        "affine_grid_generator grid_sampler",
        IMAGE,
        [8],
        lambda net, x: bent(net, net.a(x), x[:, 0, :2, :3]),
        images(),
    ),
    "regions": Case(
        "roi_align",
        IMAGE,
        [8],
        lambda net, x: net.b(roi_align(net.a(x), torch.tensor([[0.0, 0, 0, 4, 4]], dtype=x.dtype), 2)),
        images(),
    ),
    "patches": Case(
        "im2col col2im", IMAGE, [8], lambda net, x: net.b(F.fold(F.unfold(net.a(x), 3).relu(), 6, 3)), images()
    ),
    "patches read": Case(
        "im2col",
        IMAGE,
        [4],
        lambda net, x: net.b(F.unfold(net.a(x), 2, stride=2).mT),
        lambda: {"a": nn.Conv2d(3, 4, 1), "b": nn.Linear(16, 2)},
    ),
    "unpooled": Case(
        "max_pool2d_with_indices max_unpool2d",
        IMAGE,
        [8],
        lambda net, x: net.b(F.max_unpool2d(*F.max_pool2d(net.a(x), 2, return_indices=True), 2)),
        images(),
    ),
    "antialiased": Case(
        "_upsample_bilinear2d_aa",
        IMAGE,
        [8],
        lambda net, x: net.b(F.interpolate(net.a(x), size=4, mode="bilinear", antialias=True)),
        images(),
    ),
    "adaptive pools": Case(
        "adaptive_max_pool2d", IMAGE, [8], lambda net, x: net.b(F.adaptive_max_pool2d(net.a(x), 2)), images()
    ),
    "circular": Case("pad", IMAGE, [8], lambda net, x: net.b(F.pad(net.a(x), (1, 1, 1, 1), "circular")), images()),
    "spectra": along_steps("fft_fft fft_ifft", lambda y: torch.fft.ifft(torch.fft.fft(y, dim=1) * 2, dim=1).real),
    "half spectra": along_steps("fft_rfft fft_irfft", lambda y: torch.fft.irfft(torch.fft.rfft(y, dim=1), n=5, dim=1)),
    "spectra of pictures": Case(
        "fft_rfft2 fft_irfft2 fft_fftshift",
        IMAGE,
        [8],
        lambda net, x: net.b(torch.fft.irfft2(torch.fft.fftshift(torch.fft.rfft2(net.a(x)), dim=(2, 3)), s=(6, 6))),
        images(),
    ),
    "a filter of spectra": Case(
        "fft_rfft einsum view_as_complex",
        STEPS,
        [8, 4],
        lambda net, x: net.b(
            torch.fft.irfft(
                torch.einsum("bfi,io->bfo", torch.fft.rfft(net.a(x), dim=1), torch.view_as_complex(net.w)), n=5, dim=1
            )
        ),
        lambda: {"a": nn.Linear(6, 8), "b": nn.Linear(4, 3), "w": nn.Parameter(torch.randn(8, 4, 2))},
    ),
    "blurred by a buffer": Case(
        "conv2d",
        IMAGE,
        [8],
        lambda net, x: net.b(F.conv2d(net.a(x), net.blur, groups=8)),
        lambda: {**images()(), "blur": nn.Buffer(torch.rand(8, 1, 3, 3))},
    ),
    "read by a buffer": Case(
        "linear",
        ROWS,
        [8],
        lambda net, x: net.b(net.a(x)) + F.linear(net.a(x), net.fixed),
        lambda: {**two()(), "fixed": nn.Buffer(torch.rand(3, 8))},
    ),
    # as torch.export decomposes
    "decomposed": Case(
        "convolution _native_batch_norm_legit_no_training native_group_norm _adaptive_avg_pool2d view_copy",
        IMAGE,
        [4],
        decomposed,
        lambda: {**images()(), "norm": nn.BatchNorm2d(8)},
    ),
    "copies of views": Case("slice_copy permute_copy transpose_copy unsqueeze_copy", STEPS, [4], copies, two(8, 4)),
}


def halve(model: nn.Module, known: Couplings) -> None:
    with torch.no_grad():
        for coupling in known.found:
            for name, mask in coupling.masks(model, torch.arange(coupling.size) % 2 == 0).items():
                model.get_parameter(name).mul_(mask)


@pytest.mark.parametrize("name", FOLLOWED)
def test_widths_behind_an_operator_are_followed_and_go(name: str) -> None:
    case = FOLLOWED[name]
    net, example = case.net(), case.example()
    known = couplings(net, example)
    operators = {
        node.target._schema.name.rpartition("::")[2]
        for node in known.trace.graph.nodes
        if node.op == "call_function" and hasattr(node.target, "_schema")
    }
    assert set(case.operators.split()) <= operators
    assert sorted(coupling.size for coupling in known.found) == sorted(case.widths), known.kept
    halve(net, known)
    small = slim(net, example)
    before, after = (sum(p.numel() for p in model.parameters()) for model in (net, small))
    assert after < before or not known.found
    with torch.no_grad():
        given = torch.cat((example, example.flip(1), example))[:5]
        expected, found = net(given), small(given)
    assert expected.isfinite().all()
    assert expected.abs().max() > 0
    assert expected.shape == found.shape
    assert (expected - found).abs().max() <= 1e-12 * expected.abs().max()


def test_cells_and_norms_keep_their_class_and_state_their_sizes() -> None:
    for name in ("gru_cell from nothing", "weight_norm", "bilinear", "embedding_bag"):
        case = FOLLOWED[name]
        net, example = case.net(), case.example()
        halve(net, couplings(net, example))
        small: Any = slim(net, example)
        assert isinstance(small, Net)
        for part in small.children():
            own = {key: value for key, value in vars(part).items() if key.endswith(("_size", "_features"))}
            assert set(own.values()) <= {2, 3, 4, 6}  # 8, 5 and 4 before, of 6 inputs and 3 outputs


@pytest.mark.parametrize("packed", ["lstm", "gru"])
def test_packed_sequences_pass_their_nodes(packed: str) -> None:
    """The graph is made by hand: how many steps a batch packs depends on the values of its lengths."""
    aten = torch.ops.aten
    layer = getattr(nn, packed.upper())(4, 6, batch_first=True)
    net = Net(lambda net, x: x, a=nn.Linear(6, 4), layer=layer, b=nn.Linear(6, 3))
    graph = fx.Graph()

    def node(target: Any, arguments: tuple[Any, ...], value: Any) -> fx.Node:
        made = graph.create_node("get_attr" if isinstance(target, str) else "call_function", target, arguments)
        made.meta.update(val=value, layer="")
        return made

    def item(several: fx.Node, place: int) -> fx.Node:
        return node(operator.getitem, (several, place), several.meta["val"][place])

    own = {name: node(name, (), tensor) for name, tensor in net.state_dict().items()}
    x, lengths = graph.placeholder("x"), graph.placeholder("lengths")
    x.meta.update(val=torch.zeros(2, 5, 6), layer="")
    lengths.meta.update(val=torch.tensor([5, 3]), layer="")
    y = node(aten.linear.default, (x, own["a.weight"], own["a.bias"]), torch.zeros(2, 5, 4))
    rows = node(aten._pack_padded_sequence.default, (y, lengths, True), (torch.zeros(8, 4), torch.zeros(5)))
    state = node(aten.zeros.default, ([1, 2, 6],), torch.zeros(1, 2, 6))
    params = [own[f"layer.{name}"] for name, _ in layer.named_parameters()]
    states, count = ([state, state], 3) if packed == "lstm" else (state, 2)
    arguments = (item(rows, 0), item(rows, 1), states, params, True, 1, 0.0, False, False)
    result = (torch.zeros(8, 6), *[torch.zeros(1, 2, 6)] * (count - 1))
    steps = item(node(getattr(aten, packed).data, arguments, result), 0)
    padded = (torch.zeros(2, 5, 6), torch.zeros(2))
    back = item(node(aten._pad_packed_sequence.default, (steps, item(rows, 1), True, 0.0, 5), padded), 0)
    graph.output(node(aten.linear.default, (back, own["b.weight"], own["b.bias"]), torch.zeros(2, 5, 3)))
    flow = Flow(net, graph)
    for each in graph.nodes:
        flow.visit(each, rule_of(each))
        if each.op == "call_function":
            note_zeros(flow, each)
    (written,) = flow.dims(own["a.bias"])
    assert whole(flow.dims(own["layer.weight_ih_l0"])[1]) == whole(written)
    hidden = whole(flow.dims(own["b.weight"])[1])
    assert hidden == whole(flow.dims(own["layer.weight_hh_l0"])[1])
    assert not any(factor.reason for factor in (*whole(written), *hidden))
    assert set(hidden) <= flow.zeros(steps)


def test_rows_of_experts_are_multiplied_in_groups() -> None:
    """In bfloat16, the one type that torch multiplies in groups without data as well."""
    torch.manual_seed(0)
    net: Any = Net(lambda net, x: net.b(F.grouped_mm(net.a(x).relu(), net.w, offs=net.ends)))
    net.a, net.b, net.w = nn.Linear(6, 16), nn.Linear(16, 3), nn.Parameter(torch.randn(2, 16, 16))
    net.register_buffer("ends", torch.tensor([3, 8], dtype=torch.int32))
    known = couplings(net.bfloat16(), torch.randn(8, 6).bfloat16())
    assert [(coupling.size, coupling.name) for coupling in known.found] == [(16, "a"), (16, "w")]
    assert ("w", 1, "reads") in [(member.tensor, member.dim, member.role) for member in known.of("a").members]


KEEP = torch.tensor([0, 1, 2, 4, 6])


def pruned(net: Any) -> Any:
    """`net` with all nodes but `KEEP` between its layers `a` and `b` set to zero, on both sides."""
    gone = [node for node in range(8) if node not in KEEP]
    with torch.no_grad():
        for tensor in (net.a.weight, net.a.bias, net.b.weight.T):
            tensor[gone] = 0
    return net


def cut_by_hand(net: Any) -> nn.Module:
    """`net` with only these nodes."""
    small = copy.deepcopy(net)
    small.a.weight, small.a.bias = nn.Parameter(net.a.weight[KEEP]), nn.Parameter(net.a.bias[KEEP])
    small.b.weight = nn.Parameter(net.b.weight[:, KEEP])
    return small


# What stands between two layers, the operator that the reason names, and what it says.
KEPT: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "softmax": (lambda y: y.softmax(1), "softmax.int in 'the network' combines all of its nodes"),
    "sort": (lambda y: y.sort(1)[0], "sort.default in 'the network' combines"),
    "argsort": (lambda y: y.argsort(1).double(), "argsort.default in 'the network' combines"),
    "cumsum": (lambda y: y.exp().cumsum(1), "cumsum.default in 'the network' combines"),
    "cumprod": (lambda y: y.cumprod(1), "cumprod.default in 'the network' combines"),
    "logcumsumexp": (lambda y: y.logcumsumexp(1), "logcumsumexp.default in 'the network' combines"),
    "roll": (lambda y: y.roll(1, 1), "roll.default in 'the network' combines"),
    "flip": (lambda y: y.flip(1), "flip.default in 'the network' combines"),
    "fft": (lambda y: torch.fft.fft(y).real, "fft_fft.default in 'the network' combines"),
    "half fft": (lambda y: y * torch.fft.rfft(y).abs().sum(1)[:, None], "fft_rfft.default in 'the network'"),
    "shift": (lambda y: torch.fft.fftshift(y, dim=1), "fft_fftshift.default in 'the network' combines"),
    "std": (lambda y: y / y.exp().std(1, keepdim=True), "std.dim in 'the network' takes the mean over nodes that need"),
    "std of a batch": (lambda y: y / y.std(), "in 'the network' combines all of its nodes, and the batch"),
    "max": (lambda y: y - y.abs().neg().amax(1, keepdim=True), "amax.default in 'the network' combines"),
    "aminmax": (lambda y: y - y.exp().aminmax(dim=1, keepdim=True)[0], "aminmax.default in 'the network' combines"),
    "least entry": (
        lambda y: y + torch.linalg.vector_norm(y, float("-inf"), 1, keepdim=True),
        "linalg_vector_norm.default in 'the network' combines",
    ),
    "log-sum-exp": (lambda y: y - y.logsumexp(1, keepdim=True), "logsumexp.default in 'the network' combines"),
    "positions": (lambda y: y + torch.arange(y.shape[1]), "not part of the network's state_dict"),
    "one of them": (lambda y: y + y.select(1, 3)[:, None], "select.int in 'the network' takes one"),
    "gathered": (
        lambda y: y.gather(1, y.argsort(1)),
        "argsort.default in 'the network' combines",
    ),
    "indexed": (lambda y: y[:, torch.arange(y.shape[1]).flip(0)], "index.Tensor in 'the network' takes some"),
    "scattered": (
        lambda y: y.scatter(1, torch.full_like(y, 3, dtype=torch.int64), 0.5),
        "scatter.value in 'the network'",
    ),
    "a triangle": (lambda y: (y[:, :, None] + y[:, None]).exp().tril().sum(2), "tril.default in 'the network' treats"),
    "sum": (lambda y: y + y.exp().sum(1, keepdim=True), "sums over nodes that need not be zero"),
    "similarity": (lambda y: y * F.cosine_similarity(y.exp(), y.cos())[:, None], "cosine_similarity.default in 'the"),
    "distances": (lambda y: y * torch.cdist(y.exp(), y).mean(), "cdist.default in 'the network' sums over"),
    "pairwise": (
        lambda y: y * F.pairwise_distance(y, -y, eps=1)[:, None],
        "pairwise_distance.default in 'the network' has no",
    ),
    "einsum": (lambda y: torch.einsum("bi,bj->bi", y.exp(), y.exp()), "einsum.default in 'the network' sums over"),
    "differences": (lambda y: F.pad(y.diff(dim=1), (0, 1)), "diff.default in 'the network' combines"),
    "unknown": (lambda y: y * torch.trapezoid(y, dim=1)[:, None], "trapezoid.dx in 'the network' has no rule"),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_width_is_kept_where_cutting_it_computes_something_else(name: str) -> None:
    function, reason = KEPT[name]
    case = Case("", ROWS, [], lambda net, x: net.b(function(net.a(x))), two())
    net, example = case.net(), case.example()
    known = couplings(net, example)
    assert reason in known.kept["a"]
    assert not known.found
    with torch.no_grad():
        expected, found = pruned(net)(example), cut_by_hand(net)(example)
    assert (expected - found).abs().max() > 1e-6 * expected.abs().max()


def test_cutting_by_hand_is_exact_where_nodes_are_apart() -> None:
    """What the test above compares with."""
    net, example = FOLLOWED["in place"].net(), FOLLOWED["in place"].example()
    with torch.no_grad():
        assert torch.allclose(pruned(net)(example), cut_by_hand(net)(example), rtol=1e-12, atol=0)
