"""What a worker does on its machine: copies what it lacks once, uses what it sees, and returns what a call writes."""

import pickle
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from compress.errors import DataError, InputError
from compress.sweep.cluster import carried, node
from compress.sweep.cluster.bundles import Bundle
from compress.sweep.cluster.carried import NOTHING, Carried
from compress.sweep.cluster.node import Answer, Missing, Task, work


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine that has done nothing yet. A worker's folder and modules are its own process's."""
    monkeypatch.setenv(node.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr(node, "_KNOWN", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(node, "one_thread", lambda: None)
    monkeypatch.chdir(tmp_path)
    node._is_in_place.cache_clear()
    node._scratch.cache_clear()
    yield tmp_path / "cache"
    node._scratch().cleanup()


def read(path: Path) -> tuple[str, str]:
    return str(path), path.read_text(encoding="utf-8")


def write(path: Path, folder: Path) -> list[str]:
    before = sorted(entry.name for entry in folder.iterdir())
    (folder / "new.safetensors").write_text("weights", encoding="utf-8")
    return before


def fail() -> None:
    raise DataError("no such images")


def refuse() -> None:
    class OwnError(Exception):
        pass

    raise OwnError("mine")


def task(call: Any, cwd: Path) -> Task:
    return Task(pickle.dumps(call), str(cwd))


def nowhere(digest: str) -> Iterable[bytes] | None:
    return None


def test_files_that_it_sees_are_read_there(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "data.txt").write_text("digits", encoding="utf-8")
    found = work(
        task(partial(read, Path("data.txt")), tmp_path), Carried((carried.of_file(Path("data.txt")),)), nowhere
    )
    assert isinstance(found, Answer)
    assert pickle.loads(found.pickled) == (str(tmp_path / "data.txt"), "digits")
    assert not list(cache.rglob("data.txt"))


def test_files_that_it_lacks_are_asked_for_and_copied_once(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "data.txt").write_text("digits", encoding="utf-8")
    place = carried.of_file(Path("data.txt"))
    parts, asked = list(place.bundle.parts()), list[str]()
    (tmp_path / "data.txt").unlink()
    call = task(partial(read, Path("data.txt")), tmp_path)
    assert work(call, Carried((place,)), nowhere) == Missing((place.bundle.digest,))

    def given(digest: str) -> Iterable[bytes]:
        asked.append(digest)
        return parts

    for _ in range(2):
        node._KNOWN.clear()  # as in another worker of the machine
        found = work(call, Carried((place,)), given)
        assert isinstance(found, Answer)
        path, content = pickle.loads(found.pickled)
        assert content == "digits"
        assert cache in Path(path).parents
    assert asked == [place.bundle.digest]


def test_modules_come_with_the_call(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "own_module.py").write_text("def build():\n    return 'mine'\n", encoding="utf-8")
    code = Bundle.of({"own_module.py": tmp_path / "own_module.py"})
    call = b"cown_module\nbuild\n."  # the pickle of a function that only the sweep's machine has
    parts = list(code.parts())
    (tmp_path / "own_module.py").unlink()
    try:
        found = work(Task(call, str(tmp_path / "absent")), Carried(code=code, roots=(str(tmp_path),)), lambda _: parts)
        assert isinstance(found, Answer)
        assert not found.raised
        assert pickle.loads(found.pickled) == "mine"
        assert cache in Path.cwd().parents, "the sweep's folder is absent here"
    finally:
        sys.modules.pop("own_module", None)


def test_what_a_call_writes_comes_back(tmp_path: Path, cache: Path) -> None:
    networks = tmp_path / "networks"
    networks.mkdir()
    (networks / "old.safetensors").write_text("earlier", encoding="utf-8")
    place = carried.of_file(networks / "old.safetensors")
    call = task(partial(write, networks / "old.safetensors", networks), tmp_path)
    found = work(call, Carried((place,), written=str(networks)), nowhere)
    assert isinstance(found, Answer)
    assert pickle.loads(found.pickled) == ["old.safetensors"], "what earlier cells have written is there"
    assert found.files == {"new.safetensors": b"weights"}
    assert [entry.name for entry in networks.iterdir()] == ["old.safetensors"], "the sweep writes it"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [(fail, DataError, "no such images"), (refuse, RuntimeError, "OwnError: mine")],
)
def test_errors_come_back(call: Any, error: type[Exception], message: str, tmp_path: Path, cache: Path) -> None:
    found = work(task(call, tmp_path), NOTHING, nowhere)
    assert isinstance(found, Answer)
    assert found.raised
    raised = pickle.loads(found.pickled)
    assert (type(raised), str(raised)) == (error, message)


def test_another_version_is_refused(tmp_path: Path, cache: Path) -> None:
    found = work(Task(pickle.dumps(dict), str(tmp_path), version="0.0.1"), NOTHING, nowhere)
    assert isinstance(found, Answer)
    raised = pickle.loads(found.pickled)
    assert isinstance(raised, InputError)
    assert "and the sweep 0.0.1: install the same version everywhere" in str(raised)


def test_a_folder_of_others_is_not_written_to(tmp_path: Path, cache: Path) -> None:
    (cache / socket.gethostname()).mkdir(parents=True)
    (cache / socket.gethostname() / "mine").touch()
    found = work(Task(pickle.dumps(dict), str(tmp_path / "absent")), NOTHING, nowhere)
    assert isinstance(found, Answer)
    assert re.search(rf"not a cache that softprune made.*{node.FOLDER}", str(pickle.loads(found.pickled)))
