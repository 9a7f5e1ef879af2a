import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.errors import InputError, OutputError
from compress.files.marked import MARK, Mark, make, mark_of
from compress.run.checkpoints import Checkpoints, alone
from compress.run.output import folder_of


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path: Path, said: list[str]) -> Checkpoints:
    folder = tmp_path / "out.partial"
    make(folder, Mark("run", "out"))
    found = Checkpoints(folder, said.append)
    found.fingerprint = {"recipe": {"seed": 0, "stages": [{"sparsity": 0.5}]}, "threads": 1}
    return found


def again(checkpoints: Checkpoints) -> Checkpoints:
    """As another process sees them."""
    found = Checkpoints(checkpoints.folder, checkpoints.tell)
    found.fingerprint = checkpoints.fingerprint
    return found


@contextmanager
def files_of(size: int) -> Iterator[None]:
    """The system refuses to let any file grow beyond `size` bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def state(number: int) -> dict[str, Any]:
    return {"number": number, "tensor": torch.full((1000,), float(number)), "nested": [{1: (2.5, None, True, "x")}]}


def names(folder: Path) -> list[str]:
    """What is in the folder of a run, without the run's identity."""
    mark = mark_of(folder, "run")
    assert mark is not None
    return sorted(path.name.removeprefix(f"{mark.id}-") for path in folder.iterdir() if path.name != MARK)


def path_of(checkpoints: Checkpoints, name: str) -> Path:
    return checkpoints.folder / f"{checkpoints.run}-{name}"


def number_of(checkpoints: Checkpoints) -> int | None:
    found = again(checkpoints).latest()
    return None if found is None else found.state["number"]


def test_what_was_written_is_read(checkpoints: Checkpoints) -> None:
    assert checkpoints.where is None
    assert checkpoints.latest() is None
    checkpoints.write(state(1), "step 1")
    found = again(checkpoints).latest()
    assert found is not None
    assert found.where == checkpoints.where == "step 1"
    assert torch.equal(found.state.pop("tensor"), torch.ones(1000))
    assert found.state == {"number": 1, "nested": [{1: (2.5, None, True, "x")}]}


def test_the_last_two_are_kept_and_numbers_go_on(checkpoints: Checkpoints, said: list[str]) -> None:
    for number in range(1, 5):
        checkpoints.write(state(number), f"step {number}")
    again(checkpoints).write(state(5), "step 5")
    assert names(checkpoints.folder) == ["4.json", "4.pt", "5.json", "5.pt"]
    assert number_of(checkpoints) == 5
    assert said == []


@pytest.mark.parametrize("harm", ["cut", "changed", "empty", "no note", "half a note", "note of something", "gone"])
def test_a_damaged_one_gives_way_to_the_one_before(checkpoints: Checkpoints, said: list[str], harm: str) -> None:
    checkpoints.write(state(1), "step 1")
    checkpoints.write(state(2), "step 2")
    content, note = path_of(checkpoints, "2.pt"), path_of(checkpoints, "2.json")
    whole = content.read_bytes()
    match harm:
        case "cut":
            content.write_bytes(whole[:-100])
        case "changed":
            content.write_bytes(whole.replace(torch.full((9,), 2.0).numpy().tobytes(), bytes(36), 1))
        case "empty":
            content.write_bytes(b"")
        case "no note":
            note.unlink()
        case "half a note":
            note.write_bytes(note.read_bytes()[:-9])
        case "note of something":
            note.write_text("[1]")
        case "gone":
            content.unlink()
    assert number_of(checkpoints) == 1
    assert len(said) == 1
    assert said[0].startswith("warning: checkpoint 2 in ")
    assert said[0].endswith("using the one before")
    assert names(checkpoints.folder) == ["1.json", "1.pt"]
    path_of(checkpoints, "1.pt").write_bytes(b"")
    assert number_of(checkpoints) is None


@pytest.mark.parametrize(
    "note",
    [
        *(b"", b"{}", b"[]", b"null", b"0.999", b"[" * 100_000, b"{" + b'"a":{' * 500, b"\xff\xfe", b"\0", b"9" * 5000),
        *(b'{"where": NaN}', b'{"where": 1, "sha256": "x", "fingerprint": {}}', b'{"where": "x", "sha256": 1e999}'),
        *(b'{"where": "x", "sha256": null, "fingerprint": {}}', b'{"where": "x", "sha256": "x", "fingerprint": []}'),
        *("folder", "pipe", "pipe instead of the state"),
    ],
    ids=lambda note: str(note[:12]),
)
def test_any_damaged_note_gives_way_to_the_one_before(
    checkpoints: Checkpoints, said: list[str], note: bytes | str
) -> None:
    for number in (1, 2):
        checkpoints.write(state(number), f"step {number}")
    place = path_of(checkpoints, "2.pt" if note == "pipe instead of the state" else "2.json")
    place.unlink()
    if isinstance(note, bytes):
        place.write_bytes(note)
    elif note == "folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    assert again(checkpoints).where in ("step 1", "step 2")
    assert number_of(checkpoints) == 1
    assert [line.startswith("warning: checkpoint 2 in ") for line in said] == [True]


class Hostile:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return Path.touch, (self.victim,)


def test_nothing_in_it_is_executed(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> None:
    victim = tmp_path_factory.mktemp("elsewhere") / "executed"
    checkpoints.write({"number": 1, "bad": Hostile(victim)}, "step 1")  # checksum and all
    assert number_of(checkpoints) is None
    assert not victim.exists()
    pickle.loads(pickle.dumps(Hostile(victim)))
    assert victim.exists(), "the payload is alive"


@pytest.mark.parametrize("size", [0, 100, 4000, 5000])
def test_a_full_disk_leaves_those_before(checkpoints: Checkpoints, said: list[str], size: int) -> None:
    checkpoints.write(state(1), "step 1")
    with files_of(size):
        checkpoints.write(state(2), "step 2")
    assert said[0].startswith("warning: no checkpoint at step 2: cannot write ")
    assert said[0].endswith("the file is larger than the system allows; the run continues with the earlier ones")
    assert names(checkpoints.folder) == ["1.json", "1.pt"]
    assert number_of(checkpoints) == 1
    checkpoints.write(state(3), "step 3")
    assert number_of(checkpoints) == 3


def test_another_run_is_refused_with_what_differs(checkpoints: Checkpoints) -> None:
    checkpoints.write(state(1), "step 1")
    checkpoints.fingerprint = {"recipe": {"seed": 3, "stages": [{"sparsity": 0.9}]}, "threads": 2, "device": "cpu"}
    with pytest.raises(InputError) as caught:
        again(checkpoints).latest()
    for part in (
        "recipe.seed was 0 and is 3",
        "recipe.stages.0.sparsity was 0.5 and is 0.9",
        "threads was 1 and is 2",
        'device was null and is "cpu"',
        "--force without --resume",
    ):
        assert part in str(caught.value)


def test_cleared(checkpoints: Checkpoints) -> None:
    checkpoints.write(state(1), "step 1")
    checkpoints.clear()
    assert names(checkpoints.folder) == []


# --- the folder, and who holds it ---


def test_beside_the_output_or_within_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_of(tmp_path / "out") == tmp_path / "out.partial"
    (tmp_path / "mount").mkdir()
    assert folder_of(tmp_path / "mount") == tmp_path / "mount" / ".partial"
    (tmp_path / "mount.partial").mkdir()  # of a run that began before the folder was there
    assert folder_of(tmp_path / "mount") == tmp_path / "mount.partial"
    monkeypatch.chdir(tmp_path / "mount")
    assert folder_of(Path(".")) == Path(".partial")


def test_nothing_is_left_unless_there_are_checkpoints(tmp_path: Path) -> None:
    out, folder = tmp_path / "deep" / "out", tmp_path / "deep" / "out.partial"
    with alone(folder, out):
        mark = mark_of(folder, "run")
        assert mark is not None
        assert (folder / f"{mark.id}.process").read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []
    with alone(folder, out):
        Checkpoints(folder, print).write(state(1), "step 1")
        mark = mark_of(folder, "run")
        assert mark is not None
        half = folder / f"{mark.id}.draft"
        (half / "checkpoint").mkdir(parents=True)
        for path in (folder / f".softprune-{mark.id}{mark.id}.pt", half / "slim.onnx", half / "checkpoint" / "masked"):
            path.touch()
    with alone(folder, out, drafts=("slim.onnx", "checkpoint/masked")):
        assert names(folder) == ["1.json", "1.pt", f"{mark.id}.lock", f"{mark.id}.process"]


def test_a_second_one_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    folder, out = tmp_path / "out.partial", tmp_path / "out"
    holder = f"""
import os, sys
from pathlib import Path
from compress.run.checkpoints import alone
with alone(Path({str(folder)!r}), Path({str(out)!r})):
    print("held", flush=True)
    sys.stdin.read()
    os._exit(9)
"""
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(OutputError, match=rf"out is being written by another run \(process {other.pid}\): wait"),
            alone(folder, out),
        ):
            pass
        other.stdin.close()
        assert other.wait() == 9
    assert len(list(folder.glob("*.lock"))) == 1
    with alone(folder, out):
        pass
    assert not folder.exists()


def test_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"out\.partial cannot be written: a part of its path is a file, not a folder"),
        alone(tmp_path / "file" / "out.partial", tmp_path / "file" / "out"),
    ):
        pass


def test_the_note_can_be_read_by_people(checkpoints: Checkpoints) -> None:
    checkpoints.write(state(1), "stage 1, step 5 of 9")
    note = json.loads(path_of(checkpoints, "1.json").read_text())
    assert note["where"] == "stage 1, step 5 of 9"
    assert note["fingerprint"] == checkpoints.fingerprint
