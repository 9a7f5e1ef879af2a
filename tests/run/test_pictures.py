import base64
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from compress.run.pictures import CHARACTERS, COUNT, SIDE, Look, compared


def picture(text: str) -> Tensor:
    """[H, W] or [H, W, C] in [0, 1]."""
    return torch.from_numpy(np.array(Image.open(BytesIO(base64.b64decode(text))))) / 255


def looks(target: Tensor, outputs: tuple[Tensor, Tensor], batch: int, samples: int | None) -> tuple[Look, Look]:
    found = Look("reconstruct", samples), Look("reconstruct", samples)
    for look, output in zip(found, outputs, strict=True):
        for rows in torch.arange(len(target)).split(batch):
            look(output[rows], target[rows])
    return found


@pytest.mark.parametrize("batch", [7, 20, 100])
def test_images_are_spread_over_the_test_set_whatever_the_batches(batch: int) -> None:
    torch.manual_seed(0)
    target, dense = torch.rand(83, 1, 5, 4), torch.rand(83, 1, 5, 4)
    shown = compared(*looks(target, (dense, target), batch, 83))["images"]
    assert [image["number"] for image in shown] == list(range(0, 80, 10))
    for image in shown:
        wanted = target[image["number"], 0]
        assert (picture(image["input"]) - wanted).abs().max() <= 0.5 / 255 + 1e-6
        assert image["slim"] == image["input"]
        assert image["loss"]["slim"] == 0.0
        error = (dense[image["number"], 0] - wanted).square().mean()
        assert image["loss"]["dense"] == pytest.approx(float(error), rel=1e-5)


def test_colours_clipping_and_an_unknown_number() -> None:
    target = torch.rand(30, 3, 6, 6)
    shown = compared(*looks(target, (target + 2, target - 2), 30, None))["images"]
    assert [image["number"] for image in shown] == list(range(COUNT))
    assert picture(shown[0]["input"]).shape == (6, 6, 3)
    assert bool((picture(shown[0]["dense"]) == 1).all())
    assert bool((picture(shown[0]["slim"]) == 0).all())


def test_large_images_are_made_small_and_fewer() -> None:
    target = torch.rand(COUNT, 3, 300, 150)
    shown = compared(*looks(target, (target, target), 3, COUNT))["images"]
    assert picture(shown[0]["input"]).shape == (SIDE, SIDE // 2, 3)
    assert 0 < sum(len(image[key]) for image in shown for key in ("input", "dense", "slim")) <= CHARACTERS
    assert len(shown) < COUNT


@pytest.mark.parametrize(
    "target", [torch.rand(9, 4), torch.rand(9, 2, 5, 5), torch.rand(9, 1, 5, 5) * 2, torch.ones(9, 1, 5, 5).long()]
)
def test_what_is_no_image_is_not_shown(target: Tensor) -> None:
    assert compared(*looks(target, (target, target), 4, 9)) == {}


def test_confusion_counts_true_by_predicted() -> None:
    labels, guesses = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 0, 0])
    dense, slim = Look("classify", 6), Look("classify", 6)
    for rows in torch.arange(6).split(4):
        dense(torch.nn.functional.one_hot(guesses[rows], 3).float(), labels[rows])
        slim(torch.nn.functional.one_hot(labels[rows], 3).float(), labels[rows])
    assert compared(dense, slim) == {
        "confusion": {"dense": [[1, 1, 0], [0, 1, 0], [2, 0, 1]], "slim": [[2, 0, 0], [0, 1, 0], [0, 0, 3]]}
    }


def test_what_cross_entropy_ignores_is_not_counted_and_pixels_count_one_by_one() -> None:
    look = Look("classify", 1)
    guesses = torch.tensor([[[0, 1], [1, 1]]])
    look(torch.nn.functional.one_hot(guesses, 2).permute(0, 3, 1, 2).float(), torch.tensor([[[0, 0], [-100, 1]]]))
    assert compared(look, look)["confusion"]["slim"] == [[1, 1], [0, 1]]


def test_images_of_a_loader_that_shuffles_cannot_be_compared() -> None:
    target = torch.rand(9, 1, 5, 5)
    dense, slim = Look("reconstruct", 9), Look("reconstruct", 9)
    dense(target, target)
    slim(target.flip(0), target.flip(0))
    assert compared(dense, slim) == {}


def test_more_classes_than_can_be_read_are_left_out() -> None:
    look = Look("classify", 1)
    look(torch.rand(1, 21), torch.tensor([3]))
    look(torch.zeros(1, 1).expand(1, 1_000_000), torch.tensor([3]))  # its square would take terabytes
    assert compared(look, look) == {}
