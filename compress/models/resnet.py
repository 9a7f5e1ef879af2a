"""The small residual network for images of CIFAR-10's size (He et al., "Deep Residual Learning", 2015, section 4.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.models.paper import CIFAR_IMAGE, Network

WIDTHS = (16, 32, 64)
BLOCKS = 3  # in each width: 6 n + 2 layers with weights, which is 20


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norms, and the input added; a 1 x 1 convolution where sizes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Identity()
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, inputs: Tensor) -> Tensor:
        inside = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(inside)) + self.shortcut(inputs))


def resnet20(
    image: tuple[int, int, int] = CIFAR_IMAGE, classes: int = 10, *, generator: torch.Generator | None = None
) -> Network:
    """ResNet-20 with projection shortcuts; 272,474 parameters for CIFAR-10, 40.8 M multiply-adds.

    [N, C, H, W] to logits [N, classes]. Convolutions are He-normal over their outputs, norms the
    identity, and the head is Xavier-uniform without bias to begin with.
    """
    channels, blocks = WIDTHS[0], []
    for width in WIDTHS:
        for index in range(BLOCKS):
            blocks.append(Block(channels, width, stride=2 if width != channels and index == 0 else 1))
            channels = width
    network = Network(
        image,
        stem=nn.Sequential(nn.Conv2d(image[0], WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0])),
        relu=nn.ReLU(),
        blocks=nn.Sequential(*blocks),
        pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        head=nn.Linear(channels, classes),
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    nn.init.xavier_uniform_(network.get_parameter("head.weight"), generator=generator)
    nn.init.zeros_(network.get_parameter("head.bias"))
    return network
