"""Disks that really are full: a file system of some megabytes, where the user may mount one."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from compress.run import journal

Command = Callable[..., Result]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Make the disk have so many megabytes; gives where it is."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    place, mounted = tmp_path / "disk", False
    place.mkdir()

    def of_size(megabytes: int) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={megabytes}m"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
        mounted = True
        return place

    yield of_size
    if mounted:
        subprocess.run(["umount", place], check=True)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("megabytes", "kept"),
    [(1, None), (3, "the end of stage 1"), (4, "stage 1, step 1 of 10"), (8, "the end of stage 1")],
    ids=[
        "nothing fits",
        "the last checkpoint alone",
        "a checkpoint, and no other",
        "checkpoints, and half of the files",
    ],
)
def test_a_disk_too_small_and_then_large_enough(
    run: Command,
    recipe: Path,
    trained: Path,
    applied: Path,
    disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    megabytes: int,
    kept: str | None,
) -> None:
    monkeypatch.setattr(journal, "SHARE", 1e-9)  # one checkpoint at the first step, and the next at the stage's end
    place = disk(megabytes)
    words = ["apply", str(recipe), str(trained), "-o", str(place / "out"), "--checkpoint-every", "0"]
    words += ["--set", "export=[safetensors, pt2]"]
    told = run(*words, code=2).stderr
    assert "error: cannot write " in told
    assert "the disk is full" in told
    assert {path.name for path in place.iterdir()} == ({"out.partial"} if kept else set())
    disk(64)
    if kept:
        assert f"the state at {kept} is kept in " in told
        words = shlex.split(told.partition("to resume: ")[2].splitlines()[0])[1:]
    run(*words)
    assert {path.name for path in place.iterdir()} == {"out"}
    found, whole = (json.loads((out / "results.json").read_text(encoding="utf-8")) for out in (place / "out", applied))
    assert [found["models"][name]["metric"] for name in found["models"]] == [
        whole["models"][name]["metric"] for name in whole["models"]
    ]
    for name in ("slim.safetensors", "checkpoint/masked.safetensors"):
        assert weights(place / "out" / name) == weights(applied / name)


def weights(path: Path) -> bytes:
    """Without the header, which notes the recipe, and what it exports."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]
