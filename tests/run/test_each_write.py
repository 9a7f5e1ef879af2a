"""What a run leaves on the disk before each single operation on it, by a kill or a power cut, is gone on with."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from compress.files import atomic
from compress.files.marked import MARK
from compress.run import journal

Command = Callable[..., Result]

NETWORK = """\
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3))
"""

RECIPE = """\
name: tiny
model: {factory: "small_and_quick:build"}
data: {npz: NPZ, batch_size: 50}
task: classify
train: {epochs: 2, optimizer: adamw, lr: 1e-2}
stages:
  - target: {nodes: "1"}
    criterion: random
    sparsity: 0.5
    removal: {kind: soft, over: 2 steps}
    retrain: {epochs: 2, optimizer: adamw, lr: 1e-2}
export: [safetensors]
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SHARE", float("inf"))  # a checkpoint after each step
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("small_and_quick.py").write_text(NETWORK, encoding="utf-8")
    Path("recipe.yaml").write_text(RECIPE.replace("NPZ", str(npz)), encoding="utf-8")


class Moments:
    """Copies of what is in `folder`, from before each operation that changes it.

    Two of each: as a kill leaves it, and as a power cut may, with every file empty that was not synchronised since it
    was last written. (Folders keep their entries: that a rename comes back is not tried.)
    """

    def __init__(self, folder: Path, copies: Path) -> None:
        self.folder, self.copies = folder, copies
        self.count, self.synchronised = 0, dict[int, tuple[int, int]]()
        self.before: object = None

    def keep(self) -> None:
        found = {path: (path.stat().st_ino, path.stat().st_size, self.known(path)) for path in self.folder.rglob("*")}
        if found != self.before:
            self.before = found
            for kind in ("kill", "power"):
                shutil.copytree(self.folder, self.copies / f"{self.count}-{kind}", copy_function=getattr(self, kind))
            self.count += 1

    def kill(self, source: str, target: str) -> None:
        Path(target).write_bytes(Path(source).read_bytes())

    def power(self, source: str, target: str) -> None:
        Path(target).write_bytes(Path(source).read_bytes() if self.known(Path(source)) else b"")

    def known(self, path: Path) -> bool:
        """Whether all of a file is on the disk."""
        found = path.stat()
        return self.synchronised.get(found.st_ino) == (found.st_size, found.st_mtime_ns)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While a command runs in this process."""
        with pytest.MonkeyPatch.context() as patched:
            for owner, name in (
                *((os, name) for name in ("replace", "rename", "unlink", "rmdir", "mkdir")),
                (atomic._Patient, "write"),
            ):
                patched.setattr(owner, name, self._after_a_copy(getattr(owner, name)))
            patched.setattr(os, "fsync", self._fsync(os.fsync))
            yield

    def _after_a_copy(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **how: Any) -> Any:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(os, "mkdir", MKDIR)
                self.keep()
            return original(*arguments, **how)

        return operation

    def _fsync(self, original: Callable[[int], None]) -> Callable[[int], None]:
        inner = self._after_a_copy(original)

        def fsync(descriptor: int) -> None:
            inner(descriptor)
            found = os.fstat(descriptor)
            self.synchronised[found.st_ino] = found.st_size, found.st_mtime_ns

        return fsync


MKDIR = os.mkdir


def content(folder: Path) -> dict[str, bytes]:
    """Of all files, but those that have times in them."""
    timed = ("results.json", "report.html", "MODEL_CARD.md", MARK)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): b"" if path.name in timed else path.read_bytes() for path in files}


def different(copies: Path) -> list[Path]:
    """Of states that differ in nothing but drafts without their own name, which nothing reads, one."""
    found = {}
    for copy in copies.iterdir():
        named = {
            path: text for path, text in content(copy).items() if not any(x[0] == "." for x in path.split("/")[1:])
        }
        found[tuple(sorted(named.items()))] = copy
    return sorted(found.values())


@pytest.mark.parametrize(
    "words",
    [
        # A checkpoint after each step, and how one is written, is the same for both; apply takes longer to go on.
        pytest.param(("train", "recipe.yaml", "-o", "place/out.pt", "--checkpoint-every", "0"), id="train"),
        pytest.param(
            ("apply", "recipe.yaml", "model.pt", "-o", "place/out", "--checkpoint-every", "1000"),
            id="apply",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_killed_before_every_single_operation(run: Command, words: tuple[str, ...]) -> None:
    if words[0] == "apply":
        run("train", "recipe.yaml", "-o", "model.pt", "--quiet")
    place, moments = Path("place"), Moments(Path("place"), Path("copies"))
    place.mkdir()
    moments.copies.mkdir()
    with moments.watching():
        run(*words)
    whole, left = content(place), set()
    for state in different(moments.copies):
        shutil.rmtree(place)
        shutil.copytree(state, place)
        before = content(place)
        kept = {path for path in before.keys() - whole.keys() if path.endswith((".pt", ".json", ".placed"))}
        if whole.items() <= before.items() and not kept:
            complete = run(*words, "--resume", code=2)  # it is over, as for whoever asks once more
            assert "name another f" in complete.stderr
            continue
        said = run(*words, "--resume").stderr
        left.add(said.partition("resuming from ")[2].partition("\n")[0])
        found = {path: text for path, text in content(place).items() if not path.startswith(".")}  # drafts remain
        assert found == whole, state
    steps = {"train": {f"the training, step {step} of 4" for step in (1, 2, 3, 4)}, "apply": set()}[words[0]]
    assert left == {"", *steps, "the end of the training" if steps else "the end of stage 1"}
