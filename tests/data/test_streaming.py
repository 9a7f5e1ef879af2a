"""Streamed images against PIL and against the same images in memory, and what worker processes may do to a run."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from compress.data import sources, streaming
from compress.data.streaming import Decoder, Files
from compress.errors import DataError, RunError
from compress.tasks import cross_entropy
from compress.train import metrics
from compress.train.loop import train
from compress.train.optimization import Optimization

RNG = np.random.default_rng(0)
SIZES = [3, 3, 1, 3, 2]

linux = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked and memory is limited so on Linux only")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 12 images, 3x4x5; not to be changed."""
    root = tmp_path_factory.mktemp("images")
    for number in range(24):
        path = root / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def paths(folder: Path) -> streaming.Paths:
    return np.array(sorted(os.fsencode(path) for path in folder.rglob("*.png")))


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are put together from several pieces, as those of large images are."""
    monkeypatch.setattr(streaming, "PIECE_IMAGES", 2)


def pixels(path: bytes) -> np.ndarray:
    with Image.open(os.fsdecode(path)) as image:
        return np.asarray(image).transpose(2, 0, 1)


def some_batches() -> tuple[torch.Tensor, ...]:
    return torch.split(torch.from_numpy(RNG.permutation(24)[: sum(SIZES)]), SIZES)


@pytest.mark.usefixtures("few_at_once")
class TestDecoder:
    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_batches_come_in_their_order(self, paths: streaming.Paths, workers: int) -> None:
        decoder = Decoder.like(os.fsdecode(paths[0]), workers)
        before = torch.get_rng_state()
        for _ in range(2):
            batches = some_batches()
            found = list(decoder.decode(paths, batches))
            assert [len(images) for images in found] == SIZES
            expected = np.stack([pixels(path) for path in paths[torch.cat(batches).numpy()]])
            np.testing.assert_array_equal(torch.cat(found), expected)
        assert torch.equal(torch.get_rng_state(), before), "dropout would differ from that of images in memory"

    @pytest.mark.parametrize("workers", [0, 2])
    def test_epochs_may_overlap_and_be_left_early(self, paths: streaming.Paths, workers: int) -> None:
        decoder = Decoder.like(os.fsdecode(paths[0]), workers)
        rows = torch.arange(24)
        first, second = (decoder.decode(paths, torch.split(order, 5)) for order in (rows, rows.flip(0)))
        np.testing.assert_array_equal(next(first)[0], pixels(paths[0]))
        np.testing.assert_array_equal(next(second)[0], pixels(paths[23]))
        np.testing.assert_array_equal(next(first)[0], pixels(paths[5]))
        del first, second
        (again,) = decoder.decode(paths, [rows[7:8]])
        np.testing.assert_array_equal(again[0], pixels(paths[7]))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_damaged_file_is_named_and_others_can_still_be_read(
        self, paths: streaming.Paths, tmp_path: Path, workers: int
    ) -> None:
        (tmp_path / "damaged.png").write_bytes(b"no picture")
        Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "other.png")
        decoder = Decoder.like(os.fsdecode(paths[0]), workers)
        odd = np.array([*paths, *(os.fsencode(tmp_path / f"{name}.png") for name in ("damaged", "other"))])
        with pytest.raises(DataError, match=r"^\S+damaged\.png is of no known format"):
            list(decoder.decode(odd, [torch.tensor([0, 1]), torch.tensor([2, 24])]))
        with pytest.raises(DataError, match=r"^\S+other\.png is 1x4x6 and \S+00\.png 3x4x5 .*; set `resize: \[H, W\]`"):
            list(decoder.decode(odd, [torch.tensor([25])]))
        assert len(list(decoder.decode(odd, [torch.tensor([3])]))) == 1

    @linux
    def test_a_worker_has_one_thread(self, paths: streaming.Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder = Decoder.like(os.fsdecode(paths[0]), 1)

        def threads(path: str, check: Any, options: Any) -> np.ndarray:
            return np.full((3, 4, 5), torch.get_num_threads(), np.uint8)

        monkeypatch.setattr(streaming, "read_image", threads)
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            (images,) = decoder.decode(paths, [torch.tensor([0])])
        finally:
            torch.set_num_threads(before)
        assert images.unique().tolist() == [1]

    @linux
    def test_a_worker_that_dies_ends_the_run(self, paths: streaming.Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder = Decoder.like(os.fsdecode(paths[0]), 1)
        monkeypatch.setattr(streaming, "read_image", lambda path, check, options: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(RunError, match=r"a process that decodes images died \(out of memory\?\)"):
            list(decoder.decode(paths, [torch.tensor([0])]))

    @linux
    def test_workers_leave_signals_to_the_run(self, paths: streaming.Paths) -> None:
        decoder = Decoder.like(os.fsdecode(paths[0]), 2)
        batches = [torch.arange(start, start + 4) for start in range(0, 24, 4)]
        images = decoder.decode(paths, batches)
        found = [next(images)]
        workers = [str(process.pid) for process in multiprocessing.active_children()]
        assert len(workers) >= 2
        for number in ("TERM", "INT"):
            subprocess.run(["kill", f"-{number}", *workers], check=True)  # not from their parent
        found += images
        np.testing.assert_array_equal(torch.cat(found), np.stack([pixels(path) for path in paths]))

    def test_other_errors_stay_what_they_are(self, paths: streaming.Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder = Decoder.like(os.fsdecode(paths[0]), 0)

        def fail(path: str, check: Any, options: Any) -> Any:
            raise RuntimeError("something else")

        monkeypatch.setattr(streaming, "read_image", fail)
        with pytest.raises(RuntimeError, match=r"^something else$"):
            list(decoder.decode(paths, [torch.tensor([0])]))


def test_pieces_of_large_images_are_small() -> None:
    assert Decoder("", (1, 28, 28), 0).piece == 256
    assert Decoder("", (3, 224, 224), 0).piece == 27
    assert Decoder("", (3, 4000, 4000), 0).piece == 1


@pytest.mark.usefixtures("few_at_once")
class TestStreamedDataset:
    @pytest.fixture
    def both(self, folder: Path) -> tuple[Any, Any]:
        return sources.from_folder(folder, stream=True, workers=2), sources.from_folder(folder, stream=False)

    @pytest.mark.parametrize("task", ["classify", "reconstruct"])
    @pytest.mark.parametrize("part", ["train", "test"])
    def test_epochs_equal_those_in_memory(self, both: tuple[Any, Any], part: Any, task: Any) -> None:
        streamed, held = (found.batches(part, 7, task) for found in both)
        assert len(streamed) == len(held)
        generators = [torch.Generator().manual_seed(3) for _ in both]
        for _ in range(2):
            epochs = zip(streamed(generators[0]), held(generators[1]), strict=True)
            for (inputs, target), (expected, right) in epochs:
                assert torch.equal(inputs, expected)
                assert torch.equal(target, right)
        for (inputs, _), (expected, _) in zip(streamed(), held(), strict=True):
            assert torch.equal(inputs, expected)

    def test_a_training_comes_to_the_same_weights(self, both: tuple[Any, Any]) -> None:
        found = []
        for data in both:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Flatten(), nn.Linear(60, 8), nn.Dropout(), nn.Linear(8, 2))
            batches, chance = data.batches("train", 6, "classify"), torch.Generator().manual_seed(1)
            # 8 steps end in the middle of the third epoch.
            train(model, batches, cross_entropy, 8, Optimization(lr=0.1), generator=chance)
            metric = metrics.evaluate(model, data.batches("test", 3, "classify"), "classify")
            found.append((torch.cat([weight.flatten() for weight in model.parameters()]), metric))
        assert torch.equal(found[0][0], found[1][0])
        assert found[0][1] == found[1][1]


def test_files_are_taken_by_number_or_truth_value() -> None:
    files = Files(np.array([b"a", b"b", b"cc"]), torch.tensor([0, 0, 1]))
    for rows in (torch.tensor([0, 2]), torch.tensor([True, False, True])):
        taken = files.take(rows)
        assert taken.paths.tolist() == [b"a", b"cc"]
        assert taken.labels.tolist() == [0, 1]


LIMITED = """
import re, resource, sys
import torch
from compress.data import sources

few, many = sys.argv[1:]
MARGIN = 160 << 20  # the batches under way take up to 55 MB, depending on how far ahead the workers are

def epoch(folder):
    data = sources.from_folder(folder, stream=True, workers=2)
    return sum(len(inputs) for inputs, _ in data.batches("train", 8, "classify")(torch.Generator()))

torch.set_num_threads(2)
model = torch.nn.Linear(300, 300)
model(torch.ones(300, 300)).sum().backward()  # threads that the workers are forked beside
torch.set_num_threads(1)  # several would wait for each other on a busy machine
epoch(few)
used = 1024 * int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + MARGIN, resource.RLIM_INFINITY))
print(epoch(many))
try:
    sources.from_folder(many, stream=False, workers=0)
except (MemoryError, RuntimeError) as error:
    print("memory" in str(error))
"""


@pytest.mark.extended
@linux
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Streams 354 MB of pixels with 160 MB to spare for each process, where holding them in memory fails."""
    picture = tmp_path / "picture.jpg"
    Image.fromarray(np.full((256, 256, 3), 99, np.uint8)).save(picture)
    for name, count in (("few", 20), ("many", 1800)):
        (tmp_path / name / "a").mkdir(parents=True)
        for number in range(count):
            os.link(picture, tmp_path / name / "a" / f"{number}.jpg")
    command = [sys.executable, "-c", LIMITED, tmp_path / "few", tmp_path / "many"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.stdout.split(), done.stderr) == (["1500", "True"], "")
