import copy

import pytest
import torch
from torch import nn

import compress
from compress.errors import InputError, TargetError
from compress.select.criteria.principal_axes import axes_of, principal_axes
from compress.slimming.edits import apply_edits


def given(bias=True):
    torch.manual_seed(0)
    values = torch.randn(300, 6) @ torch.randn(6, 6) + 2.0
    extended = torch.cat([values, torch.ones(300, 1)], 1).double()
    return values.double(), torch.randn(9, 6), torch.randn(9) if bias else None, extended.T @ extended


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_taken_apart_computes_the_same(bias):
    values, weight, offset, moments = given(bias)
    (axes, shift), (reader, end) = principal_axes(weight, offset, moments)
    found = (values @ axes.T + shift) @ reader.T + end
    expected = torch.nn.functional.linear(values, weight.double(), None if offset is None else offset.double())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_first_axes_are_the_best_bottleneck_of_that_width(width):
    """Against the truncated singular value decomposition of the centred inputs: nothing of that rank comes nearer."""
    values, weight, offset, moments = given()
    (axes, shift), _ = principal_axes(weight, offset, moments)
    code = values @ axes.T + shift
    assert code.mean(0).abs().max() < 1e-9
    left, sizes, right = torch.linalg.svd(values - values.mean(0), full_matrices=False)
    best = (left[:, :width] * sizes[:width]) @ right[:width] + values.mean(0)
    torch.testing.assert_close(code[:, :width] @ axes[:width] + values.mean(0), best)
    spreads = code.square().mean(0)
    assert (spreads[:-1] >= spreads[1:]).all()


def test_the_axes_of_a_stream_are_orthogonal_and_the_widest_comes_first():
    """Against the singular vectors of the values themselves: nothing is taken off them."""
    values, *_ = given()
    axes = axes_of(values.T @ values)
    torch.testing.assert_close(axes.T @ axes, torch.eye(6, dtype=torch.float64))
    _, _, right = torch.linalg.svd(values, full_matrices=False)
    torch.testing.assert_close((axes.T @ right.T).abs(), torch.eye(6, dtype=torch.float64))


# --- residual streams ---

LETTERS, WIDTH = 20, 12


class Block(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm, self.expand, self.reduce = norm(WIDTH), nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)

    def forward(self, stream):
        return stream + self.reduce(torch.nn.functional.silu(self.expand(self.norm(stream))))


class Language(nn.Module):
    """Letters to logits of the next one; each position for itself."""

    def __init__(self, norm=nn.RMSNorm):
        super().__init__()
        self.embed, self.blocks = nn.Embedding(LETTERS, WIDTH), nn.Sequential(Block(norm), Block(norm))
        self.norm, self.head = norm(WIDTH), nn.Linear(WIDTH, LETTERS, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.embed(ids))))


EXAMPLE = torch.randint(LETTERS, (4, 30), generator=torch.Generator().manual_seed(0))


def pruned(model, sparsity, example=EXAMPLE, target="embed", **words):
    given = {"criterion": "principal_axes", "batches": [example], "example": example, "sparsity": sparsity}
    return compress.Pruner(model, compress.nodes(target), **{**given, **words})


@torch.no_grad()
def test_a_rotated_stream_computes_the_same_to_the_rounding_of_float64():
    torch.manual_seed(0)
    model = Language().double()
    dense = copy.deepcopy(model)
    pruner = pruned(model, 0.0)
    assert [(layer.name, layer.size) for layer in pruner.layers()] == [("embed", WIDTH)]
    pruner.finalize()
    torch.testing.assert_close(model(EXAMPLE), dense(EXAMPLE), rtol=1e-12, atol=1e-12)
    assert not torch.equal(model.embed.weight, dense.embed.weight)
    assert all((norm.weight == 1).all() for norm in (model.norm, model.blocks[0].norm, model.blocks[1].norm))


@torch.no_grad()
def test_the_axes_that_are_kept_hold_the_most_of_what_is_read():
    """By hand: signals are the outputs of the norms without gains; of the second moments, the largest eigenvalues."""
    torch.manual_seed(0)
    model = Language().double()
    dense, seen = copy.deepcopy(model), []
    for norm in (dense.norm, *(block.norm for block in dense.blocks)):
        norm.register_forward_hook(lambda norm, given, output: seen.append((output / norm.weight).flatten(0, 1)))
    dense(EXAMPLE)
    signals, embedded = torch.cat(seen), dense.embed.weight
    kept = torch.linalg.eigh(signals.T @ signals)[1][:, -4:]
    pruned(model, 2 / 3).finalize()
    alive = model.embed.weight[:, (model.embed.weight != 0).any(0)]
    assert alive.shape == (LETTERS, 4)
    torch.testing.assert_close(alive @ alive.T, embedded @ kept @ kept.T @ embedded.T)


@torch.no_grad()
def test_what_is_left_of_a_stream_is_cut_out():
    torch.manual_seed(0)
    model = Language()
    pruned(model, 0.5).finalize()
    small = compress.slim(model, EXAMPLE)
    assert isinstance(small, Language)
    assert small.embed.weight.shape == (LETTERS, 6)
    torch.testing.assert_close(small(EXAMPLE), model(EXAMPLE))
    again = apply_edits(Language(), small.shape_edits)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(EXAMPLE), small(EXAMPLE))


def test_axes_decay_while_the_rest_trains():
    torch.manual_seed(0)
    model = Language()
    pruner = pruned(model, 0.5, removal=compress.Soft(steps=5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        torch.nn.functional.cross_entropy(model(EXAMPLE).flatten(0, 1), EXAMPLE.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    pruner.finalize()
    assert compress.slim(model, EXAMPLE).embed.weight.shape == (LETTERS, 6)


def test_a_resumed_pruner_rotates_nothing():
    torch.manual_seed(0)
    model = Language()
    dense = copy.deepcopy(model)
    pruner = pruned(model, 0.5, start=False)
    assert [(layer.name, layer.size) for layer in pruner.layers()] == [("embed", WIDTH)]
    assert torch.equal(model(EXAMPLE), dense(EXAMPLE))


def test_a_stream_that_cannot_be_rotated_is_left_as_it_is():
    torch.manual_seed(0)
    model = Language(nn.LayerNorm)
    dense = copy.deepcopy(model.state_dict())
    with pytest.raises(TargetError, match=r"'embed' cannot be rotated.*layer_norm.*in 'blocks.0.norm'"):
        pruned(model, 0.5)
    with pytest.raises(InputError, match="batches"):
        pruned(Language(), 0.5, batches=[])
    assert all(torch.equal(value, dense[name]) for name, value in model.state_dict().items())


def test_a_tied_stream_is_refused_before_it_is_rotated():
    torch.manual_seed(0)
    model = Language()
    model.head.weight = model.embed.weight
    nn.init.ones_(model.norm.weight)
    dense = copy.deepcopy(model.state_dict())
    with pytest.raises(TargetError, match="one shared parameter"):
        pruned(model, 0.5)
    assert all(torch.equal(value, dense[name]) for name, value in model.state_dict().items())


def test_nodes_that_are_pruned_already_would_come_back():
    torch.manual_seed(0)
    model = Language()
    first = pruned(model, 0.25, criterion="norms")
    first.finalize()
    with pytest.raises(TargetError, match=r"pruned entries, which principal_axes would bring back.*in the first stage"):
        pruned(model, 0.5, earlier=first)
    other = Language()
    first = pruned(other, 0.25, target="blocks.0.expand", criterion="norms")
    first.finalize()
    pruned(other, 0.5, earlier=first).finalize()
    small = compress.slim(other, EXAMPLE)
    assert small.blocks[0].expand.weight.shape == (12, 6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_stream_in_half_precision(dtype):
    torch.manual_seed(0)
    model = Language()
    expected = model(EXAMPLE)
    half = copy.deepcopy(model).to(dtype)
    pruned(half, 0.0).finalize()
    assert half.embed.weight.dtype == dtype
    assert (half(EXAMPLE).float() - expected).square().mean() < 1e-3 * expected.var()


@pytest.mark.extended
@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Qwen3", "Gemma", "Mixtral", "Phi3"])
def test_streams_of_transformers(name):
    library = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    options = {"vocab_size": 50, "num_key_value_heads": 2, "pad_token_id": 0, "use_cache": False, **sizes}
    config = getattr(library, f"{name}Config")(**options, tie_word_embeddings=False)
    model = getattr(library, f"{name}ForCausalLM")(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += torch.rand_like(parameter)
    example = {"input_ids": torch.randint(50, (4, 12))}
    expected = model(**example).logits
    dense = copy.deepcopy(model)
    pruned(dense, 0.0, example, "model.embed_tokens").finalize()
    torch.testing.assert_close(dense(**example).logits, expected, rtol=1e-3, atol=1e-4)
    pruned(model, 0.5, example, "model.embed_tokens").finalize()
    small = compress.slim(model, example)
    assert type(small) is type(model)
    assert small.model.embed_tokens.weight.shape == (50, 16)
