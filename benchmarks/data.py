"""Times epochs of images from memory and from a folder that streams, and measures the memory of streaming.

    python benchmarks/data.py
    python benchmarks/data.py --quick

Images are generated in a temporary folder: 60,000 shaped like MNIST, and 100,000 JPEG files of 64x64 in ten classes
(400 MB on disk). The other side is torchvision as its documentation has it: a data set with ToTensor and Normalize
behind a DataLoader. Both give the same images in the same batches, normalised alike, which is checked; epochs are
timed in turns, torch on one thread. Memory is the proportional set size of a process and its workers, sampled ten
times a second while it loads the folder and runs one epoch; so this needs Linux. Files come from the
system's cache, since they have just been written.

Aims: from memory at least 20 times as fast; streaming as fast as torchvision with as many workers; and streaming
100,000 files takes less than 1.2 times the memory of streaming 1,000.
"""

import io
import itertools
import json
import multiprocessing
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import Compose, Normalize, ToTensor

from compress.data import sources
from compress.data.dataset import Dataset
from compress.data.streaming import StreamedDataset
from compress.run.provenance import cpu_name

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "data.json"
BATCH, SIDE, FEW = 128, 64, 1000

Epoch = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the images; nothing is written.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Epochs of each side that are timed.")] = 3,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Time epochs on both sides and look at the memory; print the figures and write them as JSON."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        held = from_memory(Path(scratch), 6_000 if quick else 60_000, workers, rounds)
        show_speed(held)
        folder = Path(scratch) / "images"
        write_folder(folder, 10_000 if quick else 100_000)
        streamed = from_files(folder, 4_000 if quick else 20_000, workers, rounds)
        show_speed(streamed)
        memory = memory_of(folder, 10_000 if quick else 100_000, workers)
        show_memory(memory)
    if quick:
        return
    machine = {"cpu": cpu_name(), "threads": 1}
    versions = {name: version(name) for name in ("softprune", "torch", "torchvision", "pillow")}
    document = {"machine": machine, "versions": versions, "held": held, "streamed": streamed, "memory": memory}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


# --- speed ---


def from_memory(root: Path, count: int, workers: int, rounds: int) -> dict[str, Any]:
    """Shuffled epochs of images shaped like MNIST: `Dataset`, and torchvision's MNIST behind a DataLoader."""
    write_mnist(root, count)
    data = sources.mnist(root)
    peer = MNIST(root, transform=normalising(data))
    require_same(data.batches("train", BATCH, "classify"), DataLoader(peer, BATCH))
    batches, generator = data.batches("train", BATCH, "classify"), torch.Generator().manual_seed(0)
    sides: dict[str, Epoch] = {
        "softprune, in memory": lambda: batches(generator),
        "torchvision, no worker": DataLoader(peer, BATCH, shuffle=True).__iter__,
        f"torchvision, {workers} workers": loader(peer, workers, shuffle=True),
    }
    return {"image": [1, 28, 28], "batch_size": BATCH, "workers": workers, **speeds(sides, count, rounds)}


def from_files(folder: Path, count: int, workers: int, rounds: int) -> dict[str, Any]:
    """Epochs of the first `count` files: `StreamedDataset`, and torchvision's ImageFolder behind a DataLoader."""
    data = sources.from_folder(folder, train=count, test=FEW, stream=True, workers=workers)
    if not isinstance(data, StreamedDataset):
        raise TypeError("the data set does not stream")
    peer = ImageFolder(folder, transform=normalising(data))
    paths, labels = data.train.paths.tolist(), data.train.labels.tolist()
    peer.samples = [(os.fsdecode(path), label) for path, label in zip(paths, labels, strict=True)]
    batches, epoch = data.batches("train", BATCH, "classify"), loader(peer, workers)
    require_same(batches, epoch())
    sides: dict[str, Epoch] = {f"softprune, {workers} workers": batches, f"torchvision, {workers} workers": epoch}
    return {"image": [3, SIDE, SIDE], "batch_size": BATCH, "workers": workers, **speeds(sides, count, rounds)}


def normalising(data: Dataset | StreamedDataset) -> Compose:
    return Compose([ToTensor(), Normalize(data.mean.tolist(), data.std.tolist())])


def loader(peer: Any, workers: int, shuffle: bool = False) -> Epoch:
    return DataLoader(peer, BATCH, shuffle=shuffle, num_workers=workers, persistent_workers=True).__iter__


def require_same(batches: Epoch, peer: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Raise unless both begin with the same ten batches."""
    for (inputs, labels), (expected, right) in itertools.islice(zip(batches(), peer, strict=True), 10):
        if not (torch.equal(inputs, expected) and torch.equal(labels, right)):
            raise ValueError("the two sides give different batches")


def speeds(sides: Mapping[str, Epoch], count: int, rounds: int) -> dict[str, Any]:
    """Median seconds of an epoch of `count` images by side, and how many times as fast the first one is."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, epoch in sides.items():
            started = time.perf_counter()
            found = sum(len(inputs) for inputs, _ in epoch())
            seconds[name].append(time.perf_counter() - started)
            if found != count:
                raise ValueError(f"{name} gave {found} images of {count}")
    first, *others = medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {
        name: statistics.median(b / a for a, b in zip(seconds[first], seconds[name], strict=True)) for name in others
    }
    return {"images": count, "rounds": rounds, "seconds": medians, "first_is_faster": ratios}


# --- memory ---


def memory_of(folder: Path, count: int, workers: int) -> dict[str, Any]:
    """Peak bytes of a process and its workers, which reads `FEW` or all of the `count` images of the folder."""
    options: dict[str, dict[str, Any]] = {
        f"streaming {FEW:,} images": {"stream": True, "train": FEW, "test": FEW // 5},
        f"streaming {count:,} images": {"stream": True},
        f"{count:,} images in memory": {"stream": False},
    }
    found = {name: peak(folder, {**chosen, "workers": workers}) for name, chosen in options.items()}
    few, all_of_them, held = found.values()
    return {
        "decoded_bytes": count * 3 * SIDE * SIDE,
        "workers": workers,
        "peak_bytes": found,
        "all_to_few": all_of_them / few,
        "all_to_held": all_of_them / held,
    }


def peak(folder: Path, options: dict[str, Any]) -> int:
    """Peak bytes of a fresh process that loads the folder and runs through an epoch."""
    process = multiprocessing.get_context("spawn").Process(target=one_epoch, args=(folder, options))
    process.start()
    largest = 0
    while process.is_alive():
        members = list(family(process.pid))
        total = sum(map(proportional_bytes, members))
        # A worker that starts in between would count its shared memory twice.
        if members == list(family(process.pid)):
            largest = max(largest, total)
        process.join(0.1)
    if process.exitcode:
        raise RuntimeError(f"the process ended with {process.exitcode}")
    return largest


def one_epoch(folder: Path, options: dict[str, Any]) -> None:
    multiprocessing.set_start_method(None, force=True)  # workers as in any other process: this one was spawned
    torch.set_num_threads(1)
    for _ in sources.from_folder(folder, **options).batches("train", BATCH, "classify")(torch.Generator()):
        pass


def family(pid: int | None) -> Iterator[int]:
    """The process and all of its descendants."""
    if pid is None:
        return
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    except OSError:  # it has ended
        return
    for child in children.split():
        yield from family(int(child))


def proportional_bytes(pid: int) -> int:
    """Bytes of the process in memory, with its share of those that several processes use."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


# --- images, and what is printed ---


def write_mnist(root: Path, count: int) -> None:
    """Noise as the four idx files of MNIST, with a tenth as many test images."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    chance = np.random.default_rng(0)
    for part, size in (("train", count), ("t10k", count // 10)):
        pixels = chance.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = chance.integers(0, 10, size, dtype=np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, *pixels.shape) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, size) + labels.tobytes())


def write_folder(folder: Path, count: int) -> None:
    """JPEG files of smooth noise in ten classes; every thousandth is the same picture."""
    chance = np.random.default_rng(0)
    files = []
    for _ in range(1000):
        file = io.BytesIO()
        small = Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE)).save(file, "jpeg")
        files.append(file.getvalue())
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    for number in range(count):
        (folder / str(number % 10) / f"{number:06}.jpg").write_bytes(files[number % 1000])


def show_speed(found: Mapping[str, Any]) -> None:
    print(f"epochs of {found['images']:,} images of {found['image']}, batches of {BATCH}, torch on one thread")
    for name, seconds in found["seconds"].items():
        ratio = found["first_is_faster"].get(name)
        behind = "" if ratio is None else f"{ratio:10.2f} times the first"
        print(f"{name:<30}{seconds:9.3f} s{found['images'] / seconds:12,.0f} images/s{behind}")


def show_memory(found: Mapping[str, Any]) -> None:
    print(f"peak memory with {found['workers']} workers; all images are {found['decoded_bytes'] / 1e6:,.0f} MB decoded")
    for name, largest in found["peak_bytes"].items():
        print(f"{name:<30}{largest / 1e6:9,.0f} MB")
    print(f"streaming all / few: {found['all_to_few']:.2f}; streaming / in memory: {found['all_to_held']:.2f}")


if __name__ == "__main__":
    typer.run(main)
