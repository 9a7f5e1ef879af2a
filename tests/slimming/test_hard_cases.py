"""Common networks, small: half of every coupled width is cut, and slim computes the same as masked."""

import copy
from collections.abc import Callable

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves
from torchvision import models as zoo
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.googlenet import Inception
from torchvision.models.maxvit import MaxVit
from torchvision.models.segmentation import LRASPP
from torchvision.models.swin_transformer import SwinTransformer, SwinTransformerBlockV2
from torchvision.models.vision_transformer import VisionTransformer

import compress
from compress.errors import InputError
from compress.graph.coupling import Couplings, couplings
from compress.slimming.edits import apply_edits, edits_from_json, edits_to_json
from compress.slimming.shrink import slim

IMAGE, ROWS, TOKENS = (2, 3, 16, 16), (2, 5, 6), (2, 5)


class Net(nn.Module):
    """Named parts, and a forward given as a function of them."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))


def unflattened() -> nn.Module:
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(30, 32), nn.ReLU(), nn.Unflatten(1, (8, 2, 2))),
        *(nn.ConvTranspose2d(8, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 1, 3)),
    )


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(6, 4, 3)),
        *(nn.PixelUnshuffle(2), nn.Conv2d(16, 2, 1)),
    )


def channel_shuffle() -> nn.Module:
    return nn.Sequential(
        *(
            nn.Conv2d(3, 8, 1, groups=1),
            nn.ChannelShuffle(2),
            nn.Conv2d(8, 8, 3, groups=2),
            nn.ReLU(),
            nn.Conv2d(8, 2, 1),
        ),
    )


def shuffle_units() -> nn.Module:
    return zoo.ShuffleNetV2([2, 2, 1], [8, 16, 32, 64, 32], num_classes=3)


def grouped() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 3, groups=4), nn.GroupNorm(4, 8)),
        *(nn.ReLU(), nn.ConvTranspose2d(8, 6, 3, groups=2), nn.InstanceNorm2d(6, affine=True), nn.Conv2d(6, 2, 1)),
    )


def depthwise() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8)),
        *(nn.Hardswish(), nn.Conv2d(8, 16, 3, groups=8), nn.PReLU(16), nn.Conv2d(16, 2, 1)),
    )


def group_for_each_sample() -> nn.Module:
    """A convolution whose weights are computed for each sample, as StyleGAN 2 and dynamic convolutions have it."""

    def forward(net, x):
        scale = net.style(x.mean((2, 3)))
        x = F.relu(net.a(x))
        batch, channels, height, width = x.shape
        weight = (net.mixed.weight * scale[:, None, :, None, None]).view(-1, channels, 3, 3)
        x = F.conv2d(x.view(1, batch * channels, height, width), weight, padding=1, groups=batch)
        return net.out(F.relu(x.view(batch, -1, height, width)))

    return Net(
        forward,
        style=nn.Linear(3, 8),
        a=nn.Conv2d(3, 8, 3, padding=1),
        mixed=nn.Conv2d(8, 6, 3, bias=False),
        out=nn.Conv2d(6, 2, 1),
    )


def squeeze_and_excite() -> nn.Module:
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid())
    return Net(
        lambda net, x: net.out((lambda y: y * net.gate(y))(net.conv(x))),
        conv=nn.Conv2d(3, 8, 3),
        gate=gate,
        out=head(8),
    )


def residual() -> nn.Module:
    parts = {name: nn.Conv2d(8, 8, 3, padding=1) for name in ("a", "b")}
    return Net(
        lambda net, x: net.out((lambda y: F.relu(y + net.norm(net.b(F.relu(net.a(y))))))(net.stem(x))),
        stem=nn.Conv2d(3, 8, 3),
        norm=nn.BatchNorm2d(8),
        out=head(8),
        **parts,
    )


def densenet() -> nn.Module:
    return zoo.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, bn_size=2, num_classes=3)


def googlenet() -> nn.Module:
    return nn.Sequential(Inception(3, 4, 2, 4, 2, 4, 2), Inception(14, 4, 4, 6, 2, 4, 2), head(16))


def split_and_joined() -> nn.Module:
    def forward(net, x):
        one, two, three = net.a(x).split((2, 4, 6), 1)
        return net.out(torch.cat((three, F.relu(one), two.sigmoid()), 1))

    return Net(forward, a=nn.Conv2d(3, 12, 3), out=head(12))


def sliced_and_stacked() -> nn.Module:
    def forward(net, x):
        y = net.a(x)
        both = torch.stack((y[:, :4], y[:, -4:]), 2)
        return net.out(both.flatten(1, 2)[:, :, :8, 1:].roll(1, 2))

    return Net(forward, a=nn.Conv2d(3, 8, 3), out=head(8))


def gated() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 2))


def lstm() -> nn.Module:
    return Net(
        lambda net, x: net.out(net.lstm(net.a(x))[0][:, -1]),
        a=nn.Linear(6, 8),
        lstm=nn.LSTM(8, 6, num_layers=2, batch_first=True, bidirectional=True),
        out=nn.Linear(12, 3),
    )


def gru() -> nn.Module:
    return Net(lambda net, x: net.out(net.gru(x)[0].mean(1)), gru=nn.GRU(6, 8, batch_first=True), out=nn.Linear(8, 3))


def rnn() -> nn.Module:
    return Net(lambda net, x: net.out(net.rnn(x)[1][0]), rnn=nn.RNN(6, 8, batch_first=True), out=nn.Linear(8, 3))


class Attention(nn.Module):
    """As most people write it, with the number of heads in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(6, 24), nn.Linear(8, 6), 4

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * 2**-0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, -1))


def attention() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(6), Attention(), nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 2))


def einsum_attention() -> nn.Module:
    def forward(net, x):
        q, k, v = (part.unflatten(-1, (4, 2)) for part in net.qkv(x).chunk(3, -1))
        weights = torch.einsum("b n h d, b m h d -> b h n m", q, k).softmax(-1)
        return net.proj(torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2))

    return Net(forward, qkv=nn.Linear(6, 24), proj=nn.Linear(8, 2))


def in_proj() -> nn.Module:
    attention = nn.MultiheadAttention(8, 4, batch_first=True)
    return Net(
        lambda net, x: net.out((lambda y: net.attention(y, y, y, need_weights=False)[0])(net.a(x))),
        a=nn.Linear(6, 8),
        attention=attention,
        out=nn.Linear(8, 2),
    )


def transformer_layer() -> nn.Module:
    return nn.Sequential(nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), nn.Linear(6, 2))


def swin() -> nn.Module:
    return SwinTransformer([2, 2], 8, [2, 1], [2, 4], [4, 4], num_classes=3)


def swin_v2() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 1), Permuted()), SwinTransformerBlockV2(8, 2, [4, 4], [2, 2]), nn.Linear(8, 2)
    )


def segmentation() -> nn.Module:
    """A mask as large as the picture, in a dict."""
    layers = (nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU())
    return LRASPP(IntermediateLayerGetter(nn.Sequential(*layers), {"2": "low", "4": "high"}), 8, 16, 3, 6)


def backbone() -> nn.Module:
    """Of detection networks: features of several sizes, which are all outputs."""
    layers = (nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU())
    return BackboneWithFPN(nn.Sequential(*layers), {"1": "one", "3": "two"}, [8, 16], 4)


class Permuted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def maxvit() -> nn.Module:
    return MaxVit((16, 16), 8, 2, [8], [1], 4, 0.0, num_classes=3)


def vit() -> nn.Module:
    return VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=3)


def tied() -> nn.Module:
    def forward(net, x):
        return net.out(net.up(F.relu(net.down(net.embed(x)))))

    net = Net(forward, embed=nn.Embedding(9, 6), down=nn.Linear(6, 4), up=nn.Linear(4, 6), out=nn.Linear(6, 9))
    net.out.weight = net.embed.weight
    return net


def called_twice() -> nn.Module:
    return Net(
        lambda net, x: net.out(net.again(F.relu(net.again(net.a(x))))),
        a=nn.Linear(6, 8),
        again=nn.Linear(8, 8),
        out=nn.Linear(8, 2),
    )


def onto_the_input() -> nn.Module:
    return Net(
        lambda net, x: net.out(x + net.b(F.relu(net.a(x)))), a=nn.Linear(6, 8), b=nn.Linear(8, 6), out=nn.Linear(6, 2)
    )


def output_is_latent() -> nn.Module:
    return Net(
        lambda net, x: (lambda y: (y, net.c(F.relu(net.b(y)))))(net.a(x)),
        a=nn.Linear(6, 4),
        b=nn.Linear(4, 8),
        c=nn.Linear(8, 6),
    )


# network, input, how many couplings, whether the class itself can be slim
CASES: list[tuple[Callable[[], nn.Module], tuple[int, ...], int, bool]] = [
    (unflattened, ROWS, 2, True),
    (pixel_shuffle, IMAGE, 2, True),
    (channel_shuffle, IMAGE, 3, True),
    (shuffle_units, (2, 3, 32, 32), 12, True),
    (grouped, IMAGE, 4, True),
    (depthwise, IMAGE, 2, True),
    (group_for_each_sample, IMAGE, 2, True),
    (squeeze_and_excite, IMAGE, 2, True),
    (residual, IMAGE, 2, True),
    (densenet, (2, 3, 32, 32), 10, True),
    (googlenet, IMAGE, 12, True),
    (segmentation, IMAGE, 3, True),
    (backbone, IMAGE, 3, True),
    (split_and_joined, IMAGE, 3, False),
    (sliced_and_stacked, IMAGE, 1, False),
    (gated, ROWS, 2, True),
    (lstm, ROWS, 2, True),
    (gru, ROWS, 1, True),
    (rnn, ROWS, 1, True),
    (attention, ROWS, 4, False),
    (einsum_attention, ROWS, 3, False),
    (in_proj, ROWS, 4, False),
    (transformer_layer, ROWS, 3, False),
    (swin, IMAGE, 11, False),
    (swin_v2, IMAGE, 5, False),
    (maxvit, IMAGE, 14, False),
    (vit, IMAGE, 4, False),
    (tied, TOKENS, 2, True),
    (called_twice, ROWS, 1, True),
    (onto_the_input, ROWS, 1, True),
    (output_is_latent, ROWS, 1, True),
]


def example_of(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(0, 9, shape) if shape == TOKENS else torch.randn(shape)


def halve(model: nn.Module, known: Couplings) -> None:
    with torch.no_grad():
        for coupling in known.found:
            for name, mask in coupling.masks(model, torch.arange(coupling.size) % 2 == 0).items():
                model.get_parameter(name).mul_(mask)


def outputs(model: nn.Module, given: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(tree_leaves(model.eval()(given)))


@pytest.mark.parametrize(("build", "shape", "count", "own_class"), CASES, ids=[case[0].__name__ for case in CASES])
def test_half_of_every_width_goes(build, shape, count, own_class):
    torch.manual_seed(0)
    model, example = build().eval(), example_of(shape)
    dense = copy.deepcopy(model)
    for parameter in model.parameters():  # also biases and scales that begin as zeros or ones
        nn.init.normal_(parameter, std=0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    known = couplings(model, example)
    assert len(known.found) == count
    halve(model, known)
    small = slim(model, example)
    assert isinstance(small, fx.GraphModule) is not own_class
    left = {name: tuple(parameter.shape) for name, parameter in small.named_parameters()}
    for coupling in known.found:
        if coupling.size > 1:
            assert any(left[member.tensor] != model.get_parameter(member.tensor).shape for member in coupling.members)
    given = torch.cat((example, example, example))[:5]
    for one, other in zip(outputs(model, given), outputs(small, given), strict=True):
        assert (one - other).abs().max() <= 1e-5 * one.abs().max()
        assert one.abs().max() > 0
    rebuilt = apply_edits(dense, edits_from_json(edits_to_json(small.shape_edits)))
    rebuilt.load_state_dict(small.state_dict())
    for one, other in zip(outputs(rebuilt, given), outputs(small, given), strict=True):
        assert torch.equal(one, other)


def test_what_stays_says_why():
    assert "input" in couplings(onto_the_input(), torch.randn(ROWS)).kept["b"]
    assert "output" in couplings(output_is_latent(), torch.randn(ROWS)).kept["a"]


def test_tied_tensors_stay_one():
    model = tied()
    known = couplings(model, example_of(TOKENS))
    halve(model, known)
    small = slim(model, example_of(TOKENS))
    assert small.out.weight is small.embed.weight
    assert small.out.weight.shape == (9, 3)
    assert known.of("out") == known.of("embed")


class Edges(nn.Module):
    """A graph as PyTorch Geometric has it: edges refer to nodes by number, so that no node can be left out."""

    def __init__(self, own_class: bool) -> None:
        super().__init__()
        self.own_class = own_class
        self.embed, self.gate, self.out = nn.Linear(4, 8), nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        nodes = self.embed(x).relu()
        width = nodes.shape[1] if self.own_class else 8
        source, target = edge_index
        sent = nodes[source] * self.gate(edge_attr)
        into = target.unsqueeze(1).expand(-1, width)
        return self.out(torch.zeros_like(nodes).scatter_add(0, into, sent).relu())


def example_of_edges(nodes: int, edges: int) -> tuple[Tensor, ...]:
    return torch.randn(nodes, 4), torch.randint(nodes, (2, edges)), torch.randn(edges, 2)


@pytest.mark.parametrize("own_class", [True, False])
def test_nodes_that_edges_refer_to(own_class, tmp_path):
    torch.manual_seed(0)
    model, example = Edges(own_class).eval(), example_of_edges(7, 9)
    dynamic = {"edge_index": {1: "edges"}, "edge_attr": {0: "edges"}}
    halve(model, couplings(model, example))
    small = slim(model, example, dynamic=dynamic)
    assert isinstance(small, fx.GraphModule) is not own_class
    assert small.embed.weight.shape == (4, 4)
    compress.export.onnx(small, tmp_path / "edges.onnx", example, dynamic=dynamic)
    session = onnxruntime.InferenceSession(tmp_path / "edges.onnx")
    other = example_of_edges(11, 30)
    names = [one.name for one in session.get_inputs()]
    (found,) = session.run(None, {name: one.numpy() for name, one in zip(names, other, strict=True)})
    for output in (small(*other), torch.from_numpy(found)):
        torch.testing.assert_close(output, model(*other), atol=1e-5, rtol=1e-5)


def test_a_network_that_fails_on_all_samples_too_says_so_of_few():
    with pytest.raises(InputError, match=r"inputs of the shape \[2, 4\]"):
        couplings(nn.Linear(5, 3), torch.randn(6, 4))
