"""The vision transformer against torch's own encoder layer on patches that are cut out by hand."""

import torch
import torch.nn.functional as F
from torch import nn

from compress.models import vision_transformer

SMALL = {"patch": 2, "dim": 8, "depth": 2, "heads": 2, "hidden": 12, "classes": 3}
THEIRS = {
    "self_attn.in_proj_weight": "attention.in_proj_weight",
    "self_attn.in_proj_bias": "attention.in_proj_bias",
    "self_attn.out_proj": "attention.out_proj",
    "linear1": "mlp.0",
    "linear2": "mlp.2",
    "norm1": "norm1",
    "norm2": "norm2",
}


def test_it_is_torchs_encoder_on_patches_and_the_mean_is_read() -> None:
    torch.manual_seed(0)
    model = vision_transformer((3, 4, 6), **SMALL)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    images, weights = torch.randn(5, 3, 4, 6), model.state_dict()
    patches = F.unfold(images, 2, stride=2).transpose(1, 2)
    tokens = patches @ weights["patches.weight"].flatten(1).T + weights["patches.bias"] + weights["positions"]
    for index in range(2):
        layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, F.gelu, batch_first=True, norm_first=True)
        state = {}
        for name in layer.state_dict():
            theirs = next(key for key in THEIRS if name.startswith(key))
            state[name] = weights[f"blocks.{index}.{THEIRS[theirs]}{name.removeprefix(theirs)}"]
        layer.load_state_dict(state)
        tokens = layer(tokens)
    tokens = F.layer_norm(tokens, (8,), weights["norm.weight"], weights["norm.bias"])
    expected = F.linear(tokens.mean(1), weights["head.weight"], weights["head.bias"])
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def test_sizes() -> None:
    """By hand: patches, positions, four blocks, and the norm and head behind them."""
    block = 2 * 128 + 64 * 192 + 192 + 64 * 64 + 64 + 64 * 128 + 128 + 128 * 64 + 64
    expected = 16 * 64 + 64 + 49 * 64 + 4 * block + 128 + 64 * 10 + 10
    model = vision_transformer()
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert model.input_shape == (1, 28, 28)


def test_a_seed_gives_one_network_with_xavier_uniform_matrices_and_no_biases() -> None:
    one, same, other = (
        vision_transformer(generator=torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["blocks.0.attention.in_proj_weight"], other["blocks.0.attention.in_proj_weight"])
    for name, tensor in one.items():
        if name == "positions":
            assert abs(tensor.std().item() / 0.02 - 1) < 0.1
        elif tensor.ndim > 1:
            first, second, *kernel = tensor.shape
            bound = (6 / ((first + second) * torch.Size(kernel).numel())) ** 0.5
            assert 0.9 * bound < tensor.abs().max() <= bound, name
        elif name.endswith("bias"):
            assert not tensor.any()
        else:
            assert "norm" in name
            assert (tensor == 1).all()
