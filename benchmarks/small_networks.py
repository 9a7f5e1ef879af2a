"""Networks that are small enough to train on a CPU: in the style of VGG and MobileNet, and chains of dense layers."""

from torch import Tensor, nn


class Convolutional(nn.Module):
    """Blocks of convolutions, the mean over the image, one Linear layer: images [N, 3, 32, 32] to logits [N, 10]."""

    def __init__(self, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.blocks(images)).flatten(1))
        return logits


def vgg() -> nn.Module:
    """Six 3 x 3 convolutions with batch norm, of 16 to 64 channels, in three sizes of the image."""
    widths = [16, 16, 32, 32, 64, 64]
    blocks: list[nn.Module] = []
    for place, (before, width) in enumerate(zip([3, *widths], widths, strict=False)):
        blocks.append(_convolution(before, width, 3))
        if place % 2:
            blocks.append(nn.MaxPool2d(2))
    return Convolutional(blocks, widths[-1])


def mobilenet() -> nn.Module:
    """A stem and six depthwise-separable convolutions, of 32 to 256 channels, in four sizes of the image."""
    blocks: list[nn.Module] = [_convolution(3, 32, 3, stride=2)]
    before = 32
    for width, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1)]:
        blocks += [_convolution(before, before, 3, stride=stride, groups=before), _convolution(before, width, 1)]
        before = width
    return Convolutional(blocks, before)


def _convolution(before: int, width: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, width, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


class Chain(nn.Module):
    """Eight Linear layers of one width with a tanh after each, between a first and a last one.

    Images [N, 1, 28, 28] to logits [N, 10], or to images with values in [0, 1]. `norm` puts a batch norm before each
    tanh, `shortcut` adds the input of each of the eight to its output.
    """

    def __init__(self, outputs: int, norm: bool = False, shortcut: bool = False, width: int = 256) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), *_dense(28 * 28, width, norm))
        self.layers = nn.ModuleList(nn.Sequential(*_dense(width, width, norm)) for _ in range(8))
        self.last = nn.Linear(width, outputs)
        self.shortcut = shortcut
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as in the paper's autoencoder, which does not train otherwise
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        inner = self.first(images)
        for layer in self.layers:
            inner = inner + layer(inner) if self.shortcut else layer(inner)
        outputs: Tensor = self.last(inner)
        return outputs if outputs.shape[1] == CLASSES else outputs.sigmoid().view_as(images)


CLASSES = 10


def chain_classifier(norm: bool = False, shortcut: bool = False) -> nn.Module:
    return Chain(CLASSES, norm, shortcut)


def chain_autoencoder(norm: bool = False, shortcut: bool = False) -> nn.Module:
    return Chain(28 * 28, norm, shortcut)


def _dense(before: int, width: int, norm: bool) -> list[nn.Module]:
    return [nn.Linear(before, width), *([nn.BatchNorm1d(width)] if norm else []), nn.Tanh()]
