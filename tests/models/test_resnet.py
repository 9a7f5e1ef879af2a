"""ResNet-20 against its sizes by hand (He et al., 2015, section 4.2) and torchvision's basic block."""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from compress.graph.stats import measure
from compress.models import resnet20
from compress.models.resnet import Block


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sizes_are_those_of_the_paper_with_projections() -> None:
    """(inputs, outputs, kernel, positions) of every convolution."""
    layers = [(3, 16, 3, 32 * 32)] + 6 * [(16, 16, 3, 32 * 32)]
    for inputs, width, side in ((16, 32, 16), (32, 64, 8)):
        layers += [(inputs, width, 3, side**2), (inputs, width, 1, side**2)] + 5 * [(width, width, 3, side**2)]
    weights = [inputs * outputs * kernel**2 for inputs, outputs, kernel, _ in layers]
    macs = sum(count * positions for count, (*_, positions) in zip(weights, layers, strict=True))
    found = measure(resnet20(), torch.zeros(1, 3, 32, 32))
    norms = sum(2 * outputs for _, outputs, *_ in layers)
    assert found.params == sum(weights) + norms + 64 * 10 + 10 == 272_474
    assert found.macs == macs + 64 * 10 == 40_813_184


def test_a_block_is_torchvisions() -> None:
    torch.manual_seed(0)
    for inputs, outputs, stride in ((4, 4, 1), (4, 6, 2)):
        block = Block(inputs, outputs, stride)
        shortcut = None if inputs == outputs else block.shortcut
        other = BasicBlock(inputs, outputs, stride, shortcut)
        pairs = (("conv1", "conv1"), ("bn1", "norm1"), ("conv2", "conv2"), ("bn2", "norm2"))
        for theirs, ours in pairs:
            other.get_submodule(theirs).load_state_dict(block.get_submodule(ours).state_dict())
        images = torch.randn(3, inputs, 8, 8)
        torch.testing.assert_close(block(images), other(images))


def test_other_images_and_classes() -> None:
    model = resnet20((1, 28, 28), 7)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 7)
    assert model.input_shape == (1, 28, 28)
    assert [name for name, _ in model.named_children()] == ["stem", "relu", "blocks", "pool", "head"]


def test_a_seed_gives_one_network_whatever_the_global_one() -> None:
    one, same, other = (resnet20(generator=seeded(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])


def test_convolutions_are_he_normal_over_their_outputs() -> None:
    model = resnet20(generator=seeded())
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            expected = (2 / module.weight.transpose(0, 1)[0].numel()) ** 0.5
            assert abs(module.weight.std().item() / expected - 1) < 0.05
