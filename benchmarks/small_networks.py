"""Classifiers in the style of VGG and MobileNet for images of 32 x 32 pixels, small enough to train on a CPU."""

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
