"""What images become, against torchvision's transforms of PIL images, which people train with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import v2

from compress.data import sources
from compress.data.dataset import Dataset
from compress.data.image_files import read_image
from compress.data.image_options import IMAGENET, ImageOptions, Statistics
from compress.data.streaming import StreamedDataset
from compress.errors import DataError

RNG = np.random.default_rng(0)


def photograph(height: int, width: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8))


def as_torchvision(image: Image.Image, options: ImageOptions) -> np.ndarray:
    """uint8 [C, H, W]."""
    steps: list[Any] = []
    if options.channels is not None:
        steps.append(v2.Grayscale() if options.channels == "grey" else v2.RGB())
    if options.resize is not None:
        steps.append(v2.Resize(options.resize if isinstance(options.resize, int) else list(options.resize)))
    if options.crop is not None:
        steps.append(v2.CenterCrop(options.crop))
    return np.asarray(v2.Compose([*steps, v2.PILToTensor()])(image))


SIZES = st.integers(1, 40)


@given(SIZES, SIZES, st.sampled_from(["L", "RGB"]), st.data())
def test_a_file_becomes_what_torchvision_makes_of_it(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, mode: str, data: st.DataObject
) -> None:
    resize = data.draw(st.none() | st.integers(1, 30) | st.tuples(st.integers(1, 30), st.integers(1, 30)))
    channels = data.draw(st.sampled_from([None, "grey", "rgb"]))
    before = ImageOptions(channels=channels, resize=resize).shape((1, height, width), "it")
    crop = data.draw(st.none() | st.tuples(st.integers(1, before[1]), st.integers(1, before[2])))
    options = ImageOptions(channels=channels, resize=resize, crop=crop)
    image = photograph(height, width, mode)
    path = tmp_path_factory.getbasetemp() / "one.png"
    image.save(path)
    asked: list[tuple[int, ...]] = []
    found = read_image(str(path), asked.append, options)
    np.testing.assert_array_equal(found, as_torchvision(image, options))
    assert asked == [found.shape]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_pil_turns_it(tmp_path: Path, orientation: int) -> None:
    image = photograph(4, 6)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored)).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png"), options=ImageOptions(upright=True)), expected)
    as_stored = np.asarray(image).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), as_stored, "as ImageFolder reads it")


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_nothing(tmp_path: Path, orientation: int) -> None:
    image = photograph(4, 6)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    assert read_image(str(tmp_path / "a.png"), options=ImageOptions(upright=True)).shape == (3, 4, 6)


ALIKE = ImageOptions(channels="rgb", resize=10, crop=8, normalise="imagenet")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """12 photographs of all sizes, grey and RGB, of three classes, in train and in test."""
    for number in range(12):
        part = "train" if number % 2 else "test"
        path = tmp_path / "photographs" / part / f"class {number % 3}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(9 + number, 20 - number, "L" if number % 4 == 0 else "RGB").save(path)
    return tmp_path / "photographs"


@pytest.mark.parametrize("stream", [False, True])
def test_photographs_of_all_sizes_are_what_a_torchvision_pipeline_gives(photographs: Path, stream: bool) -> None:
    """As `ImageFolder` and a `DataLoader` would."""
    data = sources.from_folder(photographs, stream=stream, workers=0, options=ALIKE)
    scaled = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET)])
    expected: list[tuple[torch.Tensor, int]] = []
    for path in sorted((photographs / "test").glob("*/*")):
        with Image.open(path) as image:
            pixels = torch.from_numpy(as_torchvision(image.convert("RGB"), ALIKE).copy())
        expected.append((scaled(pixels), int(path.parent.name[-1])))
    ((inputs, labels),) = data.batches("test", 100, "classify")()
    assert len(inputs) == len(expected)
    for image, label in expected:
        (row,) = torch.where((inputs - image).abs().amax((1, 2, 3)) < 1e-5)[0].tolist()
        assert labels[row] == label
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert data.preparation.described() == {
        "kind": "images",
        "mean": pytest.approx(IMAGENET[0]),
        "std": pytest.approx(IMAGENET[1]),
        "normalise": "imagenet",
        "channels": "rgb",
        "resize": 10,
        "crop": 8,
    }


def test_arrays_are_prepared_like_files(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (20, 9, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20) % 2)
    options = ImageOptions(channels="grey", resize=6, crop=(5, 7))
    data = sources.from_npz(tmp_path / "a.npz", options=options)
    expected = [as_torchvision(Image.fromarray(image), options) for image in images]
    np.testing.assert_array_equal(torch.cat([data.train.images, data.test.images]), np.stack(expected))
    assert data.mean == pytest.approx(float(np.stack(expected[:17]).mean() / 255))


@pytest.mark.parametrize(
    ("normalise", "mean", "std"),
    [
        ("none", [0, 0, 0], [1, 1, 1]),
        ("imagenet", *IMAGENET),
        (Statistics((0.5,), (0.25,)), [0.5] * 3, [0.25] * 3),
        (Statistics((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)), [0.1, 0.2, 0.3], [1, 2, 3]),
    ],
)
def test_inputs_are_on_the_scale_of_the_training(tmp_path: Path, normalise: Any, mean: Any, std: Any) -> None:
    images = RNG.integers(0, 256, (20, 3, 4, 5), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20) % 2)
    data = sources.from_npz(tmp_path / "a.npz", options=ImageOptions(normalise=normalise))
    ((inputs, _),) = data.batches("test", 100, "classify")()
    expected = v2.functional.normalize(torch.from_numpy(images[17:]) / 255, list(mean), list(std))
    torch.testing.assert_close(inputs, expected)
    torch.testing.assert_close(
        data.example.args[0], v2.functional.normalize(torch.from_numpy(images[:2]) / 255, list(mean), list(std))
    )
    assert data.held_out(0.1).mean.tolist() == data.mean.tolist()


def test_statistics_of_another_number_of_channels_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 3, 5, 5), np.uint8), labels=[0, 1, 0, 1])
    options = ImageOptions(normalise=Statistics((0.5, 0.5), (0.5,)))
    with pytest.raises(DataError, match=r"has a mean of 2 numbers, and the images of .* have 3 channels"):
        sources.from_npz(tmp_path / "a.npz", options=options)
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 5, 5), np.uint8), labels=[0, 1, 0, 1])
    with pytest.raises(DataError, match=r"have 1 channel; give 1, .* `channels`"):
        sources.from_npz(tmp_path / "a.npz", options=ImageOptions(normalise="imagenet"))


def test_a_crop_larger_than_the_image_is_refused(photographs: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 5, 5), np.uint8), labels=[0, 1, 0, 1])
    with pytest.raises(DataError, match=r"train: each image is 5 x 5 \(height, width\), and `crop` keeps 6 x 6"):
        sources.from_npz(tmp_path / "a.npz", options=ImageOptions(crop=6))
    with pytest.raises(DataError, match=r"\.png is 10 x \d+ .* after `resize`, .* smaller crop, or a larger"):
        sources.from_folder(photographs, options=ImageOptions(channels="rgb", resize=(10, 18), crop=12))


@pytest.mark.parametrize("stream", [False, True])
def test_images_that_are_not_alike_are_told_the_keys(photographs: Path, stream: bool) -> None:
    with pytest.raises(DataError, match=r"must have the same shape; set `resize: \[H, W\]` \(or a `crop`\)"):
        sources.from_folder(photographs, stream=stream, workers=0)
    with pytest.raises(DataError, match=r"must have the same shape; set `channels: rgb` or `channels: grey`\.$"):
        sources.from_folder(photographs, stream=stream, workers=0, options=ImageOptions(resize=(4, 4)))


def test_an_image_may_not_grow_beyond_the_memory(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    photograph(1, 400).save(tmp_path / "c" / "a.png")
    photograph(1, 400).save(tmp_path / "c" / "b.png")
    with pytest.raises(DataError, match=r"a\.png would have 4,915,891,200 bytes after `resize`"):
        sources.from_folder(tmp_path, options=ImageOptions(resize=2024, crop=1))
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 1, 400), np.uint8), labels=[0, 1, 0, 1])
    with pytest.raises(DataError, match="after `resize`"):
        sources.from_npz(tmp_path / "a.npz", options=ImageOptions(resize=2024, crop=1))


def same(one: Dataset | StreamedDataset, other: Dataset | StreamedDataset) -> bool:
    return one.sha256 == other.sha256 and one.mean.tolist() == other.mean.tolist()


@pytest.mark.parametrize("channels", ["grey", "rgb"])
def test_streamed_and_in_memory_are_the_same(photographs: Path, channels: Any) -> None:
    options = ImageOptions(channels=channels, resize=8, crop=8)
    one, other = (sources.from_folder(photographs, stream=s, workers=0, options=options) for s in (True, False))
    assert same(one, other)
    assert one.shape == (1 if channels == "grey" else 3, 8, 8)
