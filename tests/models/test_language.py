"""Language models: what a token sees, their sizes, and that widths of all of their parts can be cut."""

import pytest
import torch
from torch import nn

import compress
from compress.errors import InputError
from compress.models import gru_language_model, transformer_language_model

MODELS = {
    "gru": lambda: gru_language_model(50, 16, 32, 2),
    "transformer": lambda: transformer_language_model(50, 12, 32, 2, 4, 64),
    "tied": lambda: transformer_language_model(50, 12, 32, 2, 4, 64, tied=True),
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def test_a_token_sees_no_later_one(model: nn.Module) -> None:
    tokens = torch.randint(0, 50, (2, 12))
    later = tokens.clone()
    later[:, 7:] = (later[:, 7:] + 1) % 50
    before, after = model(tokens), model(later)
    assert before.shape == (2, 12, 50)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-6)
    assert not torch.allclose(before[:, 7], after[:, 7], atol=1e-3)
    assert torch.allclose(model(tokens[:, :5]), before[:, :5], atol=1e-6)


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    block = MODELS["transformer"]().blocks[0].attention
    theirs = nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([block.query.weight, block.key.weight, block.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([block.query.bias, block.key.bias, block.value.bias]))
        theirs.out_proj.load_state_dict(block.out.state_dict())
    x, mask = torch.randn(2, 6, 32), nn.Transformer.generate_square_subsequent_mask(6)
    assert torch.allclose(block(x), theirs(x, x, x, attn_mask=mask)[0], atol=1e-6)


def test_half_of_everything_can_be_cut(model: nn.Module) -> None:
    example = torch.randint(0, 50, (2, 12))
    pruner = compress.Pruner(
        model, compress.nodes("*"), sparsity=0.5, example=example, criterion="norms", removal=compress.Hard()
    )
    pruner.finalize()
    small = compress.slim(model, example)
    assert small.embedding.weight.shape[1] == model.embedding.weight.shape[1] // 2
    assert sum(p.numel() for p in small.parameters()) < 0.35 * sum(p.numel() for p in model.parameters())


def test_tied_weights_are_one_parameter() -> None:
    model = MODELS["tied"]()
    assert model.head.weight is model.embedding.weight
    assert model.head.bias is None


def test_equal_generators_give_equal_networks() -> None:
    for build in (gru_language_model, transformer_language_model):
        first, second = (build(generator=torch.Generator().manual_seed(3)).state_dict() for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_heads_divide_the_size_of_a_token() -> None:
    with pytest.raises(InputError, match="5 heads do not divide tokens of 32"):
        transformer_language_model(50, 12, 32, 2, 5)
