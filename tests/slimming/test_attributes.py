"""A slim network keeps its class where the sizes in its modules' attributes can follow the cut."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from compress.graph.coupling import Coupling, couplings
from compress.slimming.attributes import integers_of
from compress.slimming.edits import ShapeEdit, apply_edits, edits_from_json, edits_to_json
from compress.slimming.shrink import slim

Keep = Callable[[Coupling], Tensor]


def half(coupling: Coupling) -> Tensor:
    return torch.arange(coupling.size) % 2 == 0


def but_one(coupling: Coupling) -> Tensor:
    return torch.arange(coupling.size) != 1


def whole_heads(coupling: Coupling) -> Tensor:
    """Half of the heads, which queries, keys and values share; all of each head."""
    return half(coupling) if len(coupling.members) > 4 else torch.ones(coupling.size, dtype=torch.bool)


class Reader(nn.Module):
    """Texts of any length."""

    def __init__(self, attention: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 16)
        self.blocks = nn.ModuleList([attention(), attention()])
        self.norm, self.hidden, self.out = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        for block in self.blocks:
            x = self.norm(x + block(x))
        return self.out(self.hidden(x.mean(1)).relu())


class Odd(nn.Module):
    """Sizes under names that nobody would guess; `odd` of them, and `piece` may be the same number."""

    def __init__(self, odd: int) -> None:
        super().__init__()
        self.odd, self.piece, self.whole = odd, 16 // odd, 16
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.scale = self.piece**-0.5

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.odd, self.piece).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        y = (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v
        return self.o(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.whole))


class Layout(nn.Module):
    """Sizes in a tuple and in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.layout, self.parts = (2, 8), [16, 16, 16]
        self.into, self.out = nn.Sequential(nn.Linear(16, 48)), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.into(x).split(self.parts, -1)
        q, k, v = (part.unflatten(-1, self.layout).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, k, v, scale=0.3)
        return self.out(y.transpose(1, 2).flatten(2))


class Derived(nn.Module):
    """One size follows from two others, of which one also has another meaning in `dim`."""

    def __init__(self) -> None:
        super().__init__()
        self.n, self.dim, self.inner = 4, 16, 16
        self.qkv, self.o = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == self.dim
        parts = self.qkv(x).reshape(*x.shape[:2], 3, self.n, self.inner // self.n).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        return self.o(y.transpose(1, 2).reshape(*x.shape[:2], self.inner))


class OfTheClass(nn.Module):
    WIDTH = 8

    def __init__(self) -> None:
        super().__init__()
        self.a, self.d = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(self.a(x), self.WIDTH, -1)
        return self.d(torch.cat([left.relu(), right.tanh()], -1))


class Longest(nn.Module):
    """`longest` equals `width`, and must not follow it: longer texts would lose their end."""

    def __init__(self) -> None:
        super().__init__()
        self.longest, self.width = 8, 8
        self.words, self.a, self.c = nn.Embedding(30, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        y = self.a(self.words(tokens[:, : self.longest]))
        left, right = y.view(*y.shape[:2], 2, self.width).unbind(2)
        return self.c(torch.cat([left.relu(), right.tanh()], -1).mean(1))


def pruned(build: Callable[[], nn.Module], example: Tensor, keep: Keep = half) -> tuple[nn.Module, nn.Module]:
    """(the network as built, the one without the nodes that `keep` says)."""
    torch.manual_seed(0)
    model = build().eval()
    dense = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
        for coupling in couplings(model, example).found:
            for name, mask in coupling.masks(model, keep(coupling)).items():
                model.get_parameter(name).mul_(mask)
    return dense, model


def compare(one: nn.Module, other: nn.Module, given: Tensor) -> None:
    with torch.no_grad():
        expected, found = tree_leaves(one(given)), tree_leaves(other(given))
    for a, b in zip(expected, found, strict=True):
        assert isinstance(a, Tensor)
        assert (a - b).abs().max() <= 1e-5 * a.abs().max()


def require_own_class(dense: nn.Module, masked: nn.Module, example: Tensor) -> nn.Module:
    """The slim network, after its reload from its edits."""
    small = slim(masked, example)
    assert type(small) is type(masked)
    assert sum(map(torch.numel, small.parameters())) <= sum(map(torch.numel, masked.parameters()))
    rebuilt = apply_edits(dense, edits_from_json(edits_to_json(small.shape_edits)))
    rebuilt.load_state_dict(small.state_dict())
    compare(rebuilt.eval(), small, example)
    return rebuilt


TOKENS = torch.arange(12).reshape(2, 6)


@pytest.mark.parametrize("keep", [half, but_one, whole_heads])
@pytest.mark.parametrize(
    "attention",
    [lambda: Odd(4), lambda: Odd(2), lambda: Odd(8), Layout, Derived, OfTheClass],
    ids=["equal", "two", "eight", "tuple", "derived", "class"],
)
def test_attributes_follow_and_the_class_holds_for_other_lengths(attention, keep):
    dense, masked = pruned(lambda: Reader(attention), TOKENS, keep)
    small = require_own_class(dense, masked, TOKENS)
    for shape in ((2, 6), (1, 12), (2, 12), (3, 4), (6, 2)):
        compare(masked, small, torch.randint(0, 30, shape))


def test_an_attribute_that_only_looks_like_the_size_keeps_its_value():
    dense, masked = pruned(Longest, TOKENS)
    small = require_own_class(dense, masked, TOKENS)
    assert (small.longest, small.width) == (8, 4)
    compare(masked, small, torch.randint(0, 30, (3, 20)))


class Scaled(Odd):
    """The scale of attention follows from an attribute at every pass, so that only the old size of a head is right."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        y = (q @ k.transpose(-1, -2) / self.scale_of(self.piece)).softmax(-1) @ v
        return self.o(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.whole))

    def scale_of(self, size: int) -> float:
        return size**0.5


class Fused(Derived):
    """Queries, keys and values of one layer, and an attention that finds its scale in their size."""

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).reshape(*x.shape[:2], 3, self.n, self.inner // self.n).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(*parts.unbind(0))
        return self.o(y.transpose(1, 2).reshape(*x.shape[:2], self.inner))


@pytest.mark.parametrize("keep", [half, but_one, whole_heads])
@pytest.mark.parametrize("attention", [lambda: Scaled(4), Fused], ids=["divided", "fused"])
def test_smaller_queries_make_up_for_a_scale_that_is_the_size_of_a_head(attention, keep):
    dense, masked = pruned(lambda: Reader(attention), TOKENS, keep)
    small = require_own_class(dense, masked, TOKENS)
    for shape in ((1, 12), (2, 12), (3, 4)):
        compare(masked, small, torch.randint(0, 30, shape))


class Unscalable(Scaled):
    """What follows from the size of a head is not a power of it."""

    def scale_of(self, size: int) -> float:
        return size + 3


def test_where_no_value_is_right_the_result_is_the_graph():
    _, masked = pruned(lambda: Reader(lambda: Unscalable(4)), TOKENS)
    before = [dict(vars(module)) for module in masked.modules()]
    small = slim(masked, TOKENS)
    assert isinstance(small, fx.GraphModule)
    compare(masked, small, torch.randint(0, 30, (5, 6)))
    assert [dict(vars(module)) for module in masked.modules()] == before


def test_slimming_twice_composes_the_attributes():
    dense, masked = pruned(lambda: Reader(lambda: Odd(8)), TOKENS)
    once = slim(masked, TOKENS)
    with torch.no_grad():
        for coupling in couplings(once, TOKENS).found:
            for name, mask in coupling.masks(once, half(coupling)).items():
                once.get_parameter(name).mul_(mask)
    twice = require_own_class(dense, once, TOKENS)
    assert twice.blocks[0].odd == 2
    assert ShapeEdit("attribute", "blocks.0.odd", 0, 8, 2) in twice.shape_edits


def test_what_an_edit_may_change():
    class Owner(nn.Module):
        heads, _private = 4, 4

        def __init__(self) -> None:
            super().__init__()
            self.sizes, self.mixed, self.flag, self.word = [4, 2], (4, None), True, "4"
            self._hidden = 4

        @property
        def computed(self) -> int:
            return 4

    owner = Owner()
    assert integers_of(owner, "heads") == (4,)
    assert integers_of(owner, "sizes") == (4, 2)
    assert integers_of(owner, "mixed") == (4, -1)
    refused = (
        "flag",
        "word",
        "_private",
        "_hidden",
        "computed",
        "training",
        "_modules",
        "forward",
        "nothing",
        "__class__",
    )
    assert not any(integers_of(owner, name) for name in refused)
    conv = nn.Conv2d(4, 4, 3, groups=4)
    assert integers_of(conv, "groups") == (4,)
    assert not any(integers_of(conv, name) for name in ("in_channels", "stride", "kernel_size"))


def hugging_face(name: str, config: str, **settings: object) -> Callable[[], nn.Module]:
    transformers = pytest.importorskip("transformers")
    return lambda: getattr(transformers, name)(getattr(transformers, config)(**settings))


WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}


@pytest.mark.parametrize(
    ("name", "config", "settings", "image"),
    [
        ("BertModel", "BertConfig", {"vocab_size": 30, **WIDTHS}, False),
        (
            "DistilBertModel",
            "DistilBertConfig",
            {"vocab_size": 30, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
            False,
        ),
        (
            "T5EncoderModel",
            "T5Config",
            {"vocab_size": 30, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 4},
            False,
        ),
        ("ViTModel", "ViTConfig", {"image_size": 16, "patch_size": 4, **WIDTHS}, True),
        (
            "SwinModel",
            "SwinConfig",
            {
                "image_size": 16,
                "patch_size": 2,
                "embed_dim": 8,
                "depths": [1, 1],
                "num_heads": [2, 4],
                "window_size": 4,
            },
            True,
        ),
    ],
)
def test_networks_of_transformers_keep_their_class(name, config, settings, image):
    example = torch.randn(2, 3, 16, 16) if image else TOKENS
    dense, masked = pruned(hugging_face(name, config, **settings), example)
    small = require_own_class(dense, masked, example)
    if not image:
        compare(masked, small, torch.randint(0, 30, (1, 11)))


@pytest.mark.extended
@pytest.mark.parametrize("name", ["res2net50_26w_4s", "swin_tiny_patch4_window7_224"])
def test_networks_of_timm_keep_their_class(name):
    timm = pytest.importorskip("timm")
    settings = {"img_size": 32, "window_size": 4} if name.startswith("swin") else {}
    example = torch.randn(2, 3, 32, 32)
    dense, masked = pruned(lambda: timm.create_model(name, num_classes=5, **settings), example, whole_heads)
    require_own_class(dense, masked, example)
