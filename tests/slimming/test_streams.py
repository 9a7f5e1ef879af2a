"""Half of the residual stream of well-known transformers goes, and the class remains."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.graph.coupling import Coupling, couplings
from compress.slimming.edits import apply_edits
from compress.slimming.norms import CountedLayerNorm
from compress.slimming.shrink import slim

WIDTH = 32
IMAGE, TOKENS, SOUND = (2, 3, 16, 16), (2, 9), (2, 8, 20)
TEXT = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
LAYERS = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PATCHES = {**LAYERS, "image_size": 16, "patch_size": 4}
DECODER = {**TEXT, **LAYERS, "num_key_value_heads": 2, "use_cache": False}

# class, its configuration, input
TRANSFORMERS: list[tuple[str, str, dict[str, Any], tuple[int, ...]]] = [
    ("BertForSequenceClassification", "BertConfig", {**TEXT, **LAYERS}, TOKENS),
    ("ViTForImageClassification", "ViTConfig", PATCHES, IMAGE),
    ("DeiTForImageClassification", "DeiTConfig", PATCHES, IMAGE),
    ("LlamaForCausalLM", "LlamaConfig", DECODER, TOKENS),
    ("Qwen2ForCausalLM", "Qwen2Config", DECODER, TOKENS),
    ("GemmaForCausalLM", "GemmaConfig", {**DECODER, "head_dim": 8}, TOKENS),
    ("GPT2LMHeadModel", "GPT2Config", {**TEXT, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, "use_cache": False}, TOKENS),
    (
        "T5ForConditionalGeneration",
        "T5Config",
        {**TEXT, "d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "use_cache": False},
        TOKENS,
    ),
    (
        "WhisperForAudioClassification",
        "WhisperConfig",
        {
            "d_model": WIDTH,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "num_mel_bins": 8,
            "max_source_positions": 10,
            "classifier_proj_size": 16,
        },
        SOUND,
    ),
]


class Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        more = {"decoder_input_ids": x} if self.network.config.is_encoder_decoder and not x.is_floating_point() else {}
        return self.network(x, **more).logits


def trained(build: Callable[[], nn.Module]) -> nn.Module:
    """With gains and biases that are not the ones and zeros which they begin as."""
    torch.manual_seed(0)
    model = build().eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def halve(model: nn.Module, streams: list[Coupling]) -> None:
    for stream in streams:
        for name, mask in stream.masks(model, torch.arange(stream.size) % 2 == 0).items():
            model.get_parameter(name).mul_(mask)


def check(build: Callable[[], nn.Module], example: Tensor, widths: list[int]) -> nn.Module:
    """The slim network, whose streams were `widths`."""
    model = trained(build)
    streams = [coupling for coupling in couplings(model, example).found if len(coupling.members) > 12]
    assert [stream.size for stream in streams] == widths
    halve(model, streams)
    small = slim(model, example)
    assert type(small) is type(model)
    sizes = {name: parameter.numel() for name, parameter in small.named_parameters()}
    assert sum(sizes.values()) < 0.56 * sum(parameter.numel() for parameter in model.parameters())
    rebuilt = apply_edits(build().eval(), small.shape_edits)
    rebuilt.load_state_dict(small.state_dict())
    for one, other in zip(tree_leaves(rebuilt.eval()(example)), tree_leaves(small(example)), strict=True):
        assert torch.equal(one, other)
    return small


def example_of(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(0, 9, shape) if shape == TOKENS else torch.randn(shape)


@pytest.mark.extended
@pytest.mark.parametrize(("name", "config", "options", "shape"), TRANSFORMERS, ids=[case[0] for case in TRANSFORMERS])
def test_of_transformers(name, config, options, shape):
    library = pytest.importorskip("transformers")

    def build() -> nn.Module:
        return Logits(getattr(library, name)(getattr(library, config)(**options)))

    check(build, example_of(shape), [WIDTH])


@pytest.mark.extended
def test_half_of_every_width_of_a_vision_transformer_is_decided_in_float64():
    """Its outputs vary less between inputs than float32 rounds them, and the slim network may be a graph."""
    library = pytest.importorskip("transformers")
    model = trained(lambda: Logits(library.DeiTForImageClassification(library.DeiTConfig(**PATCHES))))
    example = torch.randn(IMAGE)
    halve(model, list(couplings(model, example).found))
    small = slim(model, example)
    assert (model(example) - small(example)).abs().max() < 1e-6


def test_of_a_convnext_each_stage_has_its_own():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    def build() -> nn.Module:
        return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=5)

    small = check(build, torch.randn(2, 3, 32, 32), [8, 16])
    norms = [module for module in small.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 5
    assert all(isinstance(norm, CountedLayerNorm) for norm in norms)


def test_of_a_vision_transformer_of_timm():
    timm = pytest.importorskip("timm")

    def build() -> nn.Module:
        return timm.models.vision_transformer.VisionTransformer(
            16, 4, num_classes=5, embed_dim=WIDTH, depth=2, num_heads=4
        )

    check(build, torch.randn(IMAGE), [WIDTH])


class Mixer(nn.Module):
    """Token mixing across positions, by linear layers or convolutions, with its biases at every channel."""

    def __init__(self, mix: Callable[[int, int], nn.Module], transposed: bool) -> None:
        super().__init__()
        self.embed, self.head, self.transposed = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3), transposed
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(5))
        self.tokens = nn.ModuleList(nn.Sequential(mix(6, 8), nn.GELU(), mix(8, 6)) for _ in range(2))
        channels = [(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH)) for _ in range(2)]
        self.channels = nn.ModuleList(nn.Sequential(*parts) for parts in channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in range(2):
            inside = self.norms[2 * block](x)
            inside = inside.transpose(1, 2) if self.transposed else inside
            mixed = self.tokens[block](inside)
            x = x + (mixed.transpose(1, 2) if self.transposed else mixed)
            x = x + self.channels[block](self.norms[2 * block + 1](x))
        return self.head(self.norms[4](x).mean(1))


MIXERS = {
    "linear": lambda: Mixer(nn.Linear, transposed=True),
    "convolutions": lambda: Mixer(lambda inputs, outputs: nn.Conv1d(inputs, outputs, 1), transposed=False),
}


@pytest.mark.parametrize("build", MIXERS.values(), ids=MIXERS)
def test_of_a_mixer_whose_biases_write_into_dead_nodes(build):
    model, example = trained(build).double(), torch.randn(2, 6, 5, dtype=torch.float64)
    stream = couplings(model, example).of("embed")
    halve(model, [stream])
    small = slim(model, example)
    assert isinstance(small, Mixer)
    assert small.embed.weight.shape == (WIDTH // 2, 5)
    other = torch.randn(3, 6, 5, dtype=torch.float64)
    assert torch.allclose(small(other), model(other), rtol=1e-11)
    assert torch.allclose(small.train()(other), model(other), rtol=1e-11)


def test_a_stream_that_something_else_reads_keeps_what_its_mixing_adds():
    class Reading(Mixer):
        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            x = x + self.tokens[0](self.norms[0](x).transpose(1, 2)).transpose(1, 2)
            return self.head(self.norms[1](x).mean(1) + x.relu().mean(1))

    known = couplings(trained(lambda: Reading(nn.Linear, transposed=True)), torch.randn(2, 6, 5))
    assert "reads what 'tokens.0.2' adds to nodes whose weights are zero" in known.kept["embed"]
