"""Batches against torchvision's own transforms."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import Compose, Normalize, ToTensor

from compress.data import dataset, loaders, sources
from compress.data.dataset import Dataset, Split, digest
from compress.errors import DataError

RNG = np.random.default_rng(0)


def some_images(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def save_npz(path: Path, images: np.ndarray, labels: Any) -> Path:
    np.savez(path, images=images, labels=np.asarray(labels))
    return path


@pytest.fixture
def colours(tmp_path: Path) -> dataset.Dataset:
    """37 + 11 images of 3x4x5 in three classes."""
    train = save_npz(tmp_path / "train.npz", some_images(37, 3, 4, 5), np.arange(37) % 3)
    return sources.from_npz(train, save_npz(tmp_path / "test.npz", some_images(11, 3, 4, 5), np.arange(11) % 3))


class TestBatches:
    def test_input_is_what_torchvision_transforms_give(self, colours: dataset.Dataset) -> None:
        transform = Compose([ToTensor(), Normalize(colours.mean.tolist(), colours.std.tolist())])
        expected = torch.stack([transform(image.permute(1, 2, 0).numpy()) for image in colours.test.images])
        inputs, labels = zip(*colours.batches("test", 4, "classify")(), strict=True)
        assert torch.equal(torch.cat(inputs), expected)
        assert torch.equal(torch.cat(labels), colours.test.labels)

    def test_target_of_reconstruction_is_the_image_in_0_to_1(self, colours: dataset.Dataset) -> None:
        targets = torch.cat([target for _, target in colours.batches("train", 10, "reconstruct")()])
        np.testing.assert_array_equal(
            targets.numpy(), colours.train.images.numpy().astype(np.float32) / np.float32(255)
        )

    def test_statistics_are_those_of_the_training_images(self, colours: dataset.Dataset) -> None:
        scaled = colours.train.images.numpy() / 255.0
        np.testing.assert_allclose(colours.mean, scaled.mean((0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(colours.std, scaled.std((0, 2, 3)), rtol=1e-6)
        inputs = torch.cat([batch for batch, _ in colours.batches("train", 10, "classify")()]).double()
        np.testing.assert_allclose(inputs.mean((0, 2, 3)), 0, atol=1e-6)
        np.testing.assert_allclose(inputs.std((0, 2, 3), correction=0), 1, atol=1e-6)

    def test_statistics_are_those_of_the_used_images_only(self, tmp_path: Path) -> None:
        images = np.concatenate([np.full((4, 1, 2, 2), 51, np.uint8), some_images(4, 1, 2, 2)])
        images[0] = 0
        path = save_npz(tmp_path / "a.npz", images, np.arange(8) % 2)
        part = sources.from_npz(path, path, train=4)
        assert part.mean.item() == pytest.approx(0.15)
        assert part.count("train") == 4
        assert part.count("test") == 8

    def test_a_constant_channel_becomes_zero(self, tmp_path: Path) -> None:
        path = save_npz(tmp_path / "a.npz", np.full((6, 2, 2), 7, np.uint8), [0] * 6)
        ((inputs, _),) = sources.from_npz(path, path).batches("train", 6, "classify")()
        assert torch.equal(inputs, torch.zeros(6, 1, 2, 2))

    @given(size=st.integers(1, 50), seed=st.integers(0, 2**32))
    def test_a_shuffled_epoch_is_torch_randperm_cut_into_batches(self, size: int, seed: int) -> None:
        labels = torch.arange(37)
        split = dataset.Split(torch.zeros(37, 1, 1, 1, dtype=torch.uint8), labels)
        small = dataset.Dataset("", split, split, 37, torch.zeros(1), torch.ones(1), "")
        batches = small.batches("train", size, "classify")
        epoch = [target for _, target in batches(torch.Generator().manual_seed(seed))]
        assert len(batches) == len(epoch)
        assert [len(batch) for batch in epoch[:-1]] == [size] * (len(epoch) - 1)
        assert torch.equal(torch.cat(epoch), torch.randperm(37, generator=torch.Generator().manual_seed(seed)))
        assert torch.equal(torch.cat([target for _, target in batches()]), labels)

    def test_epochs_of_one_generator_differ_and_leave_the_global_one_alone(self, colours: dataset.Dataset) -> None:
        batches, generator = colours.batches("train", 37, "classify"), torch.Generator().manual_seed(0)
        before = torch.get_rng_state()
        (first,), (second,) = batches(generator), batches(generator)
        assert not torch.equal(first[0], second[0])
        assert torch.equal(torch.get_rng_state(), before)

    def test_sha256_is_of_the_used_bytes(self, colours: dataset.Dataset) -> None:
        arrays = [colours.train.images, colours.train.labels, colours.test.images, colours.test.labels]
        assert colours.sha256 == hashlib.sha256(b"".join(array.numpy().tobytes() for array in arrays)).hexdigest()


class TestRequirements:
    def test_shape(self, colours: dataset.Dataset) -> None:
        dataset.require_shape(colours, [3, 4, 5], "net")
        with pytest.raises(DataError, match=r"net takes inputs of 1x28x28 and train\.npz has 3x4x5"):
            dataset.require_shape(colours, (1, 28, 28), "net")

    def test_classes(self, colours: dataset.Dataset) -> None:
        dataset.require_classes(colours, 3, "net")
        with pytest.raises(DataError, match=r"train\.npz has labels up to 2 and net only 2 outputs"):
            dataset.require_classes(colours, 2, "net")
        dataset.require_classes(loaders.from_loaders([[(torch.zeros(1, 2), torch.zeros(1))]] * 2), 1, "net")


def test_the_held_out_part_is_the_end_of_the_training_images() -> None:
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)
    train, test = Split(images, torch.arange(20) % 3), Split(images[:4] + 100, torch.arange(4) % 3)
    whole = Dataset("numbers", train, test, 3, torch.tensor([0.1]), torch.tensor([0.2]), digest(train, test))
    part = whole.held_out(0.1)
    assert part.train.images.flatten().tolist() == list(range(18))
    assert part.test.images.flatten().tolist() == [18, 19]
    assert part.test.labels.tolist() == [0, 1]
    assert torch.equal(part.mean, whole.mean), "as the networks expect that were trained on the whole"
    assert part.sha256 == digest(part.train, part.test) != whole.sha256
    assert len(whole.held_out(0.001).test.images) == 1
    with pytest.raises(DataError, match="take more training samples"):
        whole.held_out(0.99)
