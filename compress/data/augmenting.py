"""Random changes of training images, on uint8 batches in memory and reproducible from the epoch's generator.

Each epoch draws one number from its generator, whatever the number of its batches, and each batch has a generator of
its own: batches that a resumed run skips need not be made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.data.image_options import Augment

PADDING = 8
"""`crop` pads each side with this part of its length (rounded), as 4 of 32 pixels, and cuts at random."""

DEGREES = 15
"""`rotate` turns up to so far in either direction."""

JITTER = 0.3
"""`color` changes brightness, contrast and saturation by up to this part."""

Change = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Augmented:
    """The changes of one epoch."""

    words: Sequence[Augment]
    seed: int

    @classmethod
    def epoch(cls, words: Sequence[Augment], generator: torch.Generator | None) -> "Augmented":
        """Draws from `generator` only where there is something to change; without one, every epoch is the same."""
        if not words or generator is None:
            return cls(words, 0)
        return cls(words, int(torch.randint(2**62, (1,), generator=generator)))

    def __call__(self, images: Tensor, number: int) -> Tensor:
        """The images uint8 [n, C, H, W] of the epoch's batch `number`, each changed in its own way."""
        generator = torch.Generator().manual_seed(self.seed + number)
        for word in self.words:
            images = CHANGES[word](images, generator)
        return images


def _flip(images: Tensor, generator: torch.Generator) -> Tensor:
    from torchvision.transforms.v2.functional import horizontal_flip

    (flipped,) = torch.where(torch.rand(len(images), generator=generator) < 0.5)
    changed = images.clone()
    changed[flipped] = horizontal_flip(images[flipped])
    return changed


def _crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """As torchvision's RandomCrop with padding, but with one place for each image."""
    from torchvision.transforms.v2.functional import pad

    count, _, height, width = images.shape
    rows, columns = round(height / PADDING), round(width / PADDING)
    padded: Tensor = pad(images, [columns, rows])
    top, left = (torch.randint(2 * most + 1, (count,), generator=generator) for most in (rows, columns))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [n, C, places, places, H, W], without a copy
    return windows[torch.arange(count), :, top, left]


def _each(name: str, **how: object) -> Change:
    """torchvision's transform of that name, which draws other numbers for every image, from the global generator."""

    def change(images: Tensor, generator: torch.Generator) -> Tensor:
        from torchvision.transforms import v2

        transform = getattr(v2, name)(**how)
        with torch.random.fork_rng([]):
            # Not torch.manual_seed, which would also change the generators of other devices.
            torch.default_generator.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            return torch.stack([transform(image) for image in images])

    return change


CHANGES: Mapping[Augment, Change] = {
    "flip": _flip,
    "crop": _crop,
    "rotate": _each("RandomRotation", degrees=DEGREES),
    "color": _each("ColorJitter", brightness=JITTER, contrast=JITTER, saturation=JITTER),
    "erase": _each("RandomErasing"),
    "trivial": _each("TrivialAugmentWide"),
}
