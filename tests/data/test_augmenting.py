"""Augmented batches: each change is what it is called, the same again, and the same where batches are skipped."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from compress.data import sources
from compress.data.array_dataset import ONLY, ArrayDataset, Samples
from compress.data.augmenting import CHANGES, PADDING, Augmented
from compress.data.dataset import Dataset
from compress.data.image_options import Augment, ImageOptions
from compress.data.preparation import Images
from compress.data.streaming import StreamedDataset
from compress.data.training import training_batches

WORDS = get_args(Augment)


def images(count: int = 64, channels: int = 3) -> Tensor:
    return torch.randint(
        0, 256, (count, channels, 16, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def changed(word: Augment, given: Tensor, number: int = 0) -> Tensor:
    return Augmented((word,), 7)(given, number)


def test_every_word_is_a_change() -> None:
    assert set(CHANGES) == set(WORDS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("word", WORDS)
def test_some_images_change_and_the_batch_keeps_its_form(word: Augment, channels: int) -> None:
    given = images(channels=channels)
    before, state = given.clone(), torch.get_rng_state()
    found = changed(word, given)
    assert (found.dtype, found.shape) == (torch.uint8, given.shape)
    assert torch.equal(given, before), "the data set itself may be passed"
    assert torch.equal(torch.get_rng_state(), state), "dropout would differ"
    assert torch.equal(found, changed(word, given)), "the same seed"
    assert not torch.equal(found, changed(word, given, number=1)), "every batch is changed in another way"
    different = (found != given).flatten(1).any(1)
    assert different.float().mean() > 0.2


def test_flipped_images_are_mirrored_or_as_they_were() -> None:
    given = images(400)
    mirrored = given.flip(-1)
    found = changed("flip", given)
    flipped = (found == mirrored).all((1, 2, 3))
    assert ((found == given).all((1, 2, 3)) ^ flipped).all()
    assert 0.4 < flipped.float().mean() < 0.6


def test_cropped_images_are_moved_and_padded() -> None:
    """Each is found among all places, computed one by one."""
    given = images(300)
    found = changed("crop", given)
    rows, columns = 16 // PADDING, round(12 / PADDING)
    padded = torch.zeros(300, 3, 16 + 2 * rows, 12 + 2 * columns, dtype=torch.uint8)
    padded[:, :, rows : rows + 16, columns : columns + 12] = given
    places = {
        (top, left): (padded[:, :, top : top + 16, left : left + 12] == found).all((1, 2, 3))
        for top in range(2 * rows + 1)
        for left in range(2 * columns + 1)
    }
    assert torch.stack(list(places.values())).sum(0).eq(1).all()
    assert all(there.any() for there in places.values()), "every place occurs"


def test_words_are_applied_in_their_order() -> None:
    given = images()
    generator = torch.Generator().manual_seed(7)
    expected = CHANGES["crop"](CHANGES["flip"](given, generator), generator)
    assert torch.equal(Augmented(("flip", "crop"), 7)(given, 0), expected)


@pytest.fixture(params=[False, True], ids=["in memory", "streamed"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset | StreamedDataset:
    for number, image in enumerate(images(30)):
        path = tmp_path / "pictures" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    options = ImageOptions(augment=("flip", "crop", "erase"))
    return sources.from_folder(tmp_path / "pictures", stream=request.param, workers=0, options=options)


def test_a_resumed_epoch_has_the_batches_that_it_would_have_had(data: Dataset | StreamedDataset) -> None:
    batches = training_batches(data, 4, "reconstruct")
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    whole = list(batches(generators[0]))
    rest = list(batches(generators[1], skip=3))
    assert len(whole) == len(batches) == len(rest) + 3
    for (one, target), (other, again) in zip(whole[3:], rest, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(target, again)
    assert torch.equal(*(generator.get_state() for generator in generators)), "the next epoch is the same too"
    (first, _), *_ = batches(generators[0])
    assert not torch.equal(first, whole[0][0])


def test_only_training_is_augmented(data: Dataset | StreamedDataset) -> None:
    """What scores, calibrates and evaluates gets the images themselves."""
    plain, learned = data.batches("train", 25, "classify"), training_batches(data, 25, "classify")
    (one, labels), (other, same_labels) = next(iter(plain())), next(iter(learned()))
    assert torch.equal(labels, same_labels)
    assert not torch.equal(one, other)
    options = data.options
    assert torch.equal(next(iter(plain()))[0], one)
    assert options.augment == ("flip", "crop", "erase")


def test_streamed_and_in_memory_are_augmented_alike(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for number, image in enumerate(images(12)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "c" / f"{number}.png")
    options = ImageOptions(augment=("crop", "trivial"))
    found = [sources.from_folder(tmp_path, stream=stream, workers=0, options=options) for stream in (False, True)]
    one, other = (training_batches(each, 4, "reconstruct")(torch.Generator().manual_seed(1)) for each in found)
    for (inputs, _), (again, _) in zip(one, other, strict=True):
        assert torch.equal(inputs, again)


def test_without_words_no_random_number_is_drawn(data: Dataset | StreamedDataset) -> None:
    """Old runs keep their order of samples."""
    one, other = (torch.Generator().manual_seed(5) for _ in range(2))
    list(data.batches("train", 4, "classify")(one))
    torch.randperm(data.count("train") or 0, generator=other)
    assert torch.equal(one.get_state(), other.get_state())


def test_data_that_are_no_images_train_as_they_are() -> None:
    samples = Samples({ONLY: torch.arange(12.0).view(6, 2)}, torch.arange(6) % 2)
    table = ArrayDataset("table", samples, samples, Images((0.0,), (1.0,)), "0" * 64)
    ((inputs, _),) = training_batches(table, 6, "classify")()
    np.testing.assert_array_equal(inputs.args[0], np.arange(12.0).reshape(6, 2))
