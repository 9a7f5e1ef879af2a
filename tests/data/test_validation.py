"""The part that settings are chosen on: which samples it is, and that they are not trained on."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from compress.data import sources
from compress.data.dataset import Dataset, Divisible
from compress.data.image_options import ImageOptions
from compress.data.loaders import from_loaders
from compress.data.streaming import StreamedDataset
from compress.data.validation import has_validation
from compress.errors import DataError

RNG = np.random.default_rng(0)


def save(path: Path, count: int, *shape: int, classes: int = 2) -> Path:
    images = RNG.integers(0, 256, (count, *(shape or (3, 4))), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(count) % classes)
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return save(tmp_path / "train.npz", 40)


Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def made(**parts: int) -> Path:
        """Each part has so many images in each of two classes."""
        for part, count in parts.items():
            for number in range(2 * count):
                path = tmp_path / "pictures" / part / "ab"[number % 2] / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(RNG.integers(0, 256, (3, 4), dtype=np.uint8)).save(path)
        return tmp_path / "pictures"

    return made


def content(*splits: Any) -> str:
    found = hashlib.sha256()
    for split in splits:
        found.update(split.images.numpy().tobytes() + split.labels.numpy().tobytes())
    return found.hexdigest()


def test_a_share_is_the_end_of_the_training_images_and_is_not_trained_on(npz: Path) -> None:
    whole, data = sources.from_npz(npz, npz), sources.from_npz(npz, npz, validation=0.25)
    assert whole.validation is None
    assert data.validation is not None
    assert [data.count(part) for part in ("train", "validation", "test")] == [30, 10, 40]
    assert torch.equal(torch.cat([data.train.images, data.validation.images]), whole.train.images)
    assert torch.equal(torch.cat([data.train.labels, data.validation.labels]), whole.train.labels)
    assert torch.equal(data.mean, whole.mean), "as a network that was trained on the whole expects"
    assert data.sha256 == content(data.train, data.validation, data.test)


def test_a_file_is_prepared_like_the_training_images(npz: Path, tmp_path: Path) -> None:
    data = sources.from_npz(
        npz, validation=save(tmp_path / "other.npz", 6, 9, 8), options=ImageOptions(resize=(3, 4), normalise="none")
    )
    assert data.count("validation") == 6
    ((inputs, labels),) = data.batches("validation", 10, "classify")()
    assert inputs.shape == (6, 1, 3, 4)
    assert labels.tolist() == [0, 1] * 3


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"count": 6, "shape": (5, 5)}, "training images are 1x3x4 and validation images 1x5x5; they must be alike"),
        (
            {"count": 6, "classes": 3},
            "label 2 is out of range in the validation part",
        ),
        ({"count": 0}, "has no image"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(npz: Path, tmp_path: Path, made: Any, message: str) -> None:
    shape = made.pop("shape", ())
    with pytest.raises(DataError, match=message):
        sources.from_npz(npz, validation=save(tmp_path / "v.npz", made.pop("count"), *shape, **made))


def test_a_file_that_there_is_not(npz: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent does not exist"):
        sources.from_npz(npz, validation=tmp_path / "absent")


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0.99, "40 training samples, and 40 of them are to be held out"),
        (0.98, "`validation: 0.98` takes the last 39 of 40 training samples, and all of class 1 are among them"),
    ],
)
def test_a_share_that_leaves_too_little_is_refused(npz: Path, share: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sources.from_npz(npz, npz, validation=share)


def test_images_sorted_by_class_lose_none(tmp_path: Path) -> None:
    images, labels = np.zeros((40, 3, 4), np.uint8), np.arange(40) // 10
    np.savez(tmp_path / "sorted.npz", images=images, labels=labels)
    with pytest.raises(DataError, match=r"all of class 3 are among them\. Shuffle them"):
        sources.from_npz(tmp_path / "sorted.npz", tmp_path / "sorted.npz", validation=0.25)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_folder_beside_the_others(folder: Folder, name: str, stream: bool) -> None:
    data = sources.from_folder(folder(train=5, test=3, **{name: 2}), stream=stream, workers=0)
    assert [data.count(part) for part in ("train", "validation", "test")] == [10, 4, 6]
    assert data.class_names == ("a", "b")
    assert data.note is None or "memory" in data.note


@pytest.mark.parametrize("stream", [False, True])
def test_without_a_test_folder_that_is_what_is_measured(folder: Folder, stream: bool) -> None:
    data = sources.from_folder(folder(train=5, val=3), stream=stream, workers=0)
    assert [data.count(part) for part in ("train", "validation", "test")] == [10, None, 6]
    assert data.note is not None
    assert "the images of val/ are the test set, and none are kept for validation" in data.note
    with pytest.raises(DataError, match="no validation part"):
        data.batches("validation", 3, "classify")


@pytest.mark.parametrize("validation", [0.3, "own"])
def test_streamed_and_in_memory_are_the_same(folder: Folder, tmp_path: Path, validation: Any) -> None:
    root = folder(train=5, test=3, val=2)
    if validation == "own":
        validation = (root / "val").rename(tmp_path / "own")
    else:
        (root / "val").rename(tmp_path / "own")
    one, other = (
        sources.from_folder(root, stream=stream, workers=0, validation=validation) for stream in (True, False)
    )
    assert isinstance(one, StreamedDataset)
    assert isinstance(other, Dataset)
    assert one.sha256 == other.sha256
    assert torch.equal(one.mean, other.mean)
    for part in ("train", "validation", "test"):
        (batch,), (again,) = (list(each.batches(part, 100, "classify")()) for each in (one, other))
        assert torch.equal(batch[0], again[0])
        assert torch.equal(batch[1], again[1])


def test_folders_that_do_not_fit_are_refused(folder: Folder, tmp_path: Path) -> None:
    root = folder(train=3, test=2, val=2)
    with pytest.raises(DataError, match="has a folder of validation images, and `validation` names others; remove one"):
        sources.from_folder(root, validation=0.1)
    (root / "valid").mkdir()
    with pytest.raises(DataError, match="has the folders val and valid; keep one of them"):
        sources.from_folder(root)
    (root / "valid").rmdir()
    (root / "val" / "a").rename(root / "val" / "z")
    with pytest.raises(DataError, match="need the same class folders; only one has a, z"):
        sources.from_folder(root)
    (root / "val").rename(tmp_path / "elsewhere")
    (root / "val").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="val is a link"):
        sources.from_folder(root)


def test_a_class_may_be_called_like_a_part(tmp_path: Path) -> None:
    for number in range(8):
        path = tmp_path / "pictures" / ("valid", "invalid")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 4)).save(path)
    data = sources.from_folder(tmp_path / "pictures")
    assert data.class_names == ("invalid", "valid")
    assert not has_validation(data)


def test_a_streaming_folder_takes_no_file(folder: Folder, npz: Path) -> None:
    root = folder(train=3, test=2)
    with pytest.raises(DataError, match=r"streams, and .*npz does not; give a folder of class folders"):
        sources.from_folder(root, stream=True, workers=0, validation=npz)
    assert sources.from_folder(root, validation=npz).count("validation") == 40


def batches(first: float, count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.full((3, 2), first + number), torch.zeros(3)) for number in range(count)]


def firsts(data: Any) -> list[float]:
    """The first number of each test batch."""
    return [float(given.args[0][0, 0]) for given, _ in data.batches("test", 3, "regress")()]


def test_choices_use_the_validation_part_where_there_is_one(npz: Path) -> None:
    data = sources.from_npz(npz, npz, validation=0.25)
    part = data.held_out(0.1)
    assert data.validation is not None
    assert torch.equal(part.train.images, data.train.images)
    assert torch.equal(part.test.images, data.validation.images)
    assert part.validation is None
    assert part.sha256 == content(part.train, part.test)
    loaders = from_loaders((batches(0), batches(10), batches(20, count=1)))
    assert isinstance(loaders, Divisible)
    assert has_validation(loaders)
    assert [float(given.args[0][0, 0]) for given, _ in loaders.held_out(0.1).batches("test", 3, "regress")()] == [
        10,
        11,
    ]
    assert [float(given.args[0][0, 0]) for given, _ in loaders.batches("test", 3, "regress")()] == [20]
    assert float(loaders.example.args[0][0, 0]) == 0


def test_loaders_without_one_say_the_way_out() -> None:
    loaders = from_loaders((batches(0), batches(20)))
    with pytest.raises(DataError, match=r"three loaders, \(train, validation, test\), or give the data as files"):
        loaders.held_out(0.1)
    with pytest.raises(DataError, match="no validation loader"):
        loaders.batches("validation", 3, "regress")


def test_loaders_are_told_apart_by_what_they_give() -> None:
    base = (batches(0), batches(10), batches(20))
    found = {
        from_loaders(each).fingerprint
        for each in (base, base[::-1], (batches(5), *base[1:]), (*base[:2], batches(20, count=3)), base[::2])
    }
    assert len(found) == 5
    assert from_loaders(base).fingerprint == from_loaders(base).fingerprint
    state = torch.get_rng_state()
    _ = from_loaders(base).fingerprint
    assert torch.equal(torch.get_rng_state(), state)
