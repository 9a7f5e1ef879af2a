"""Probes: fresh classifiers on frozen codes, which tell what a latent space holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import InputError
from compress.options import check, shown
from compress.train.eager_optimizers import Adam
from compress.wording import count_of

HIDDEN = 128
"""Units of the hidden layer of a two-layer probe."""

EPOCHS, STEPS, BATCH, RATE = 20, 500, 500, 1e-2
"""How a probe is trained, by Adam with a cosine schedule: for so many epochs, and at least so many steps."""


@dataclass(frozen=True)
class Codes:
    """Codes of samples [N, nodes], and their classes by attribute, int64 [N]."""

    codes: Tensor
    attributes: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if not isinstance(self.codes, Tensor):
            raise InputError(f"codes: found {shown(self.codes)}; expected a tensor [N, nodes]")
        if not isinstance(self.attributes, Mapping):
            raise InputError(f"attributes: found {shown(self.attributes)}; expected classes by name")
        if self.codes.ndim != 2 or not len(self.codes):
            raise InputError(f"codes: found the shape {list(self.codes.shape)}; expected [N, nodes], N at least 1")
        for name, classes in self.attributes.items():
            if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.is_complex():
                raise InputError(f"attributes: {name!r} is {shown(classes)}; expected whole numbers [N]")
            if classes.shape != self.codes.shape[:1]:
                raise InputError(
                    f"attributes: {name!r} has the shape {list(classes.shape)}; expected one class for each of "
                    f"{count_of(len(self.codes), 'sample')}"
                )


def probe(train: Codes, test: Codes, attribute: str, *, hidden: int | None = None, seed: int = 0) -> float:
    """The share of the test samples whose class a classifier of the codes finds, in [0, 1].

    The codes are scaled to mean 0 and deviation 1 over the training samples, on which the classifier is trained from
    random weights. The global random state is left unchanged.

    Args:
        train, test: codes of training samples and of others, as `compress.codes` gives them.
        attribute: its name.
        hidden: units of a hidden layer with ReLU; None for a linear classifier.
        seed: seeds the weights and the order of the samples.

    Raises:
        InputError: an option is wrong, a part lacks the attribute, or they differ in their number of nodes.
    """
    for name, found in (("train", train), ("test", test)):
        if not isinstance(found, Codes):
            raise InputError(f"{name}: found {shown(found)}; expected compress.Codes, as compress.codes gives them")
    check("attribute", attribute, str)
    check("hidden", hidden, int | None, ge=1)
    check("seed", seed, int, ge=-(2**63), lt=2**64)
    for part in (train, test):
        if attribute not in part.attributes:
            raise InputError(f"attribute: found {attribute!r}; the codes have {', '.join(part.attributes) or 'none'}")
    if train.codes.shape[1] != test.codes.shape[1]:
        raise InputError(f"test: found {test.codes.shape[1]} nodes; the training codes have {train.codes.shape[1]}")
    mean, std = train.codes.mean(0), train.codes.std(0, correction=0)
    std = torch.where(std == 0, 1.0, std)
    given, other = ((part.codes - mean) / std for part in (train, test))
    wanted, truth = train.attributes[attribute], test.attributes[attribute]
    with torch.random.fork_rng([given.device] if given.device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(seed)
        widths = [given.shape[1], *([] if hidden is None else [hidden]), int(wanted.max()) + 1]
        layers = [layer for ends in pairwise(widths) for layer in (nn.Linear(*ends), nn.ReLU())]
        classifier = nn.Sequential(*layers[:-1]).to(given.device)
        _fit(classifier, given.detach(), wanted)
    with torch.no_grad():
        return float((classifier(other).argmax(1) == truth).double().mean())


def _fit(classifier: nn.Module, given: Tensor, wanted: Tensor) -> None:
    optimizer = Adam(classifier.parameters(), RATE)
    epoch = -(-len(given) // BATCH)
    epochs = max(EPOCHS, -(-STEPS // epoch))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * epoch)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(given)).to(given.device), BATCH):
            loss = F.cross_entropy(classifier(given[rows]), wanted[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def chance(classes: Tensor) -> float:
    """The share of the most frequent class, which a guess without any code reaches."""
    return float(classes.bincount().max()) / len(classes)
