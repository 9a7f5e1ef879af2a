"""Single test images on the page: a few beside their reconstructions, or all by class and prediction."""

import base64
from io import BytesIO

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from compress.results import ImageLosses, ImageResult, Pictures
from compress.tasks import NamedTask, Task, word_of
from compress.tasks.targets import class_labels, class_logits

COUNT = 8
"""Number of test images shown, spread over the whole test set."""

SIDE = 64
"""The largest side of a shown image in pixels; larger images are averaged down to it."""

CHARACTERS = 96_000
"""The limit of all images together in results.json; if they take more, fewer are shown."""

CLASSES = 20
"""The most classes of a confusion matrix; a larger one is unreadable."""


class Look:
    """Watches one network being evaluated: a `seen` of `compress.train.metrics.evaluate`."""

    def __init__(self, task: Task, samples: int | None) -> None:
        """
        Args:
            samples: the number of test images; if it is unknown, the first ones are shown.
        """
        self._word = word_of(task)
        self._ignored = task.ignore_index if isinstance(task, NamedTask) else None
        every = 1 if samples is None else max(1, samples // COUNT)
        self._wanted = range(0, every * COUNT, every)
        self._passed = 0
        self.confusion: Tensor | None = None  # int64 [classes, classes], by true class (row) and predicted one
        self.images: list[tuple[int, Tensor, Tensor]] = []  # (number, target, output), as float [C, H, W]

    def __call__(self, output: Tensor, target: Tensor) -> None:
        if self._word == "classify":
            logits = class_logits(output)
            self._count(logits.shape[1], logits.argmax(1), class_labels(logits, target, self._ignored))
        elif self._word == "reconstruct":
            self._show(output, target)

    def _show(self, output: Tensor, target: Tensor) -> None:
        if _are_images(target):
            rows = [number for number in self._wanted if self._passed <= number < self._passed + len(target)]
            self.images += [
                (number, target[number - self._passed].float().cpu(), output[number - self._passed].float().cpu())
                for number in rows
            ]
        self._passed += len(target)

    def _count(self, classes: int, guess: Tensor, target: Tensor) -> None:
        if classes > CLASSES:  # for a vocabulary, the matrix would not fit into memory either
            return
        pairs = (target * classes + guess)[target >= 0]  # cross entropy ignores -100
        found = torch.bincount(pairs, minlength=classes**2).view(classes, classes).cpu()
        self.confusion = found if self.confusion is None else self.confusion + found


def compared(dense: Look, slim: Look) -> Pictures:
    """The entry of results.json: "confusion" of both networks, or "images", or neither if they cannot be shown."""
    if dense.confusion is not None and slim.confusion is not None:
        return {"confusion": {"dense": dense.confusion.tolist(), "slim": slim.confusion.tolist()}}
    found: list[ImageResult] = []
    left = CHARACTERS
    for (number, target, before), (_, again, after) in zip(dense.images, slim.images, strict=False):
        if not torch.equal(target, again):  # the user's own loader shuffles
            return {}
        shown, dense_png, slim_png = _png(target), _png(before), _png(after)
        left -= len(shown) + len(dense_png) + len(slim_png)
        if left < 0:
            break
        losses = ImageLosses(dense=_error(before, target), slim=_error(after, target))
        found.append({"number": number, "input": shown, "dense": dense_png, "slim": slim_png, "loss": losses})
    return {"images": found} if found else {}


def _error(output: Tensor, target: Tensor) -> float:
    return float(F.mse_loss(output, target))


def _are_images(target: Tensor) -> bool:
    """Whether `target` is [N, 1 or 3, H, W] with values in [0, 1]; a user's own loaders may return anything."""
    if target.dim() != 4 or target.shape[1] not in (1, 3) or not target.is_floating_point() or not len(target):
        return False
    low, high = target.aminmax()
    return bool(low >= 0) and bool(high <= 1)


def _png(image: Tensor) -> str:
    """Base64 of a PNG of the image [C, H, W], clipped to [0, 1]."""
    height, width = image.shape[1:]
    shrink = max(height, width) / SIDE
    if shrink > 1:
        size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        image = F.interpolate(image[None], size, mode="area")[0]
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
    stream = BytesIO()
    Image.fromarray(array.numpy()).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")
