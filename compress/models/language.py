"""Small language models: a GRU and a causal transformer (GPT-2's order of norms, Radford et al., 2019)."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import InputError
from compress.wording import count_of

Model = TypeVar("Model", bound=nn.Module)


class GRULanguageModel(nn.Module):
    """Tokens through GRU layers; a Linear layer predicts the next token at each place.

    Token ids [N, T] to logits [N, T, vocabulary]. The state is zero before the first token.
    """

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.gru = nn.GRU(embedding, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.gru(self.embedding(tokens))
        logits: Tensor = self.head(states)
        return logits


class CausalAttention(nn.Module):
    """Multi-head attention in which a token sees itself and the tokens before it; [N, T, dim] to the same shape."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.size = dim // heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            layer(tokens).unflatten(-1, (-1, self.size)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return mixed


class DecoderBlock(nn.Module):
    """Causal attention and a two-layer network, each on normed inputs and added to its input."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = CausalAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        inside: Tensor = self.mlp(self.norm2(tokens))
        return tokens + inside


class TransformerLanguageModel(nn.Module):
    """Token and position embeddings, causal blocks, and a Linear layer that predicts the next token at each place.

    Token ids [N, T] to logits [N, T, vocabulary], for T up to `length`. With `tied`, the last layer has the weights of
    the token embedding and no bias.
    """

    def __init__(
        self, vocabulary: int, length: int, dim: int, depth: int, heads: int, hidden: int, tied: bool = False
    ) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(
                f"{count_of(heads, 'head')} do not divide tokens of {dim}; choose a divisor, or another dim"
            )
        self.embedding = nn.Embedding(vocabulary, dim)
        self.positions = nn.Parameter(torch.empty(length, dim))
        self.blocks = nn.Sequential(*(DecoderBlock(dim, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=not tied)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        inside = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(inside)))
        return logits


def gru_language_model(
    vocabulary: int = 256,
    embedding: int = 64,
    hidden: int = 128,
    layers: int = 1,
    *,
    generator: torch.Generator | None = None,
) -> GRULanguageModel:
    """`GRULanguageModel`. Embeddings are normal with a deviation of 1, matrices Xavier-uniform, biases zero."""
    return _initialise(GRULanguageModel(vocabulary, embedding, hidden, layers), 1.0, generator)


def transformer_language_model(
    vocabulary: int = 256,
    length: int = 128,
    dim: int = 64,
    depth: int = 2,
    heads: int = 4,
    hidden: int = 256,
    tied: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> TransformerLanguageModel:
    """`TransformerLanguageModel`. Embeddings are normal with a deviation of 0.1, matrices Xavier-uniform, biases zero.

    Raises InputError where `heads` do not divide `dim`.
    """
    model = TransformerLanguageModel(vocabulary, length, dim, depth, heads, hidden, tied)
    return _initialise(model, 0.1, generator)


def _initialise(model: Model, deviation: float, generator: torch.Generator | None) -> Model:
    """Embeddings and positions normal with this deviation, matrices Xavier-uniform, biases zero."""
    drawn: set[nn.Parameter] = set()  # a tied matrix is an embedding
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in drawn:
                continue
            drawn.add(parameter)
            if name == "positions" or isinstance(module, nn.Embedding):
                nn.init.normal_(parameter, std=deviation, generator=generator)
            elif parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)
    return model
