"""A small vision transformer (Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021)."""

import torch
from torch import Tensor, nn

from compress.models.paper import MNIST_IMAGE


class EncoderBlock(nn.Module):
    """Attention and a two-layer network, each on normed inputs and added to its input."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        attended, _ = self.attention(normed, normed, normed, need_weights=False)
        tokens = tokens + attended
        inside: Tensor = self.mlp(self.norm2(tokens))
        return tokens + inside


class VisionTransformer(nn.Module):
    """Patches as tokens with learned positions, encoder blocks, and a Linear layer on the mean of the tokens.

    [N, C, H, W] to logits [N, classes].
    """

    def __init__(
        self, image: tuple[int, int, int], patch: int, dim: int, depth: int, heads: int, hidden: int, classes: int
    ) -> None:
        super().__init__()
        self.input_shape = image
        self.patches = nn.Conv2d(image[0], dim, patch, patch)
        self.positions = nn.Parameter(torch.empty(1, (image[1] // patch) * (image[2] // patch), dim))
        self.blocks = nn.Sequential(*(EncoderBlock(dim, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.patches(inputs).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(dim=1))
        return logits


def vision_transformer(
    image: tuple[int, int, int] = MNIST_IMAGE,
    patch: int = 4,
    dim: int = 64,
    depth: int = 4,
    heads: int = 4,
    hidden: int = 128,
    classes: int = 10,
    *,
    generator: torch.Generator | None = None,
) -> VisionTransformer:
    """`VisionTransformer`. Matrices are Xavier-uniform, positions normal with a deviation of 0.02, biases zero."""
    model = VisionTransformer(image, patch, dim, depth, heads, hidden, classes)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.LayerNorm):
                continue
            if name == "positions":
                nn.init.normal_(parameter, std=0.02, generator=generator)
            elif parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)
    return model
