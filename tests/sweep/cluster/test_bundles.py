"""Files that travel to a node: the same bytes there, whole or not at all, and recognised by their content."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from compress.errors import InputError
from compress.sweep.cluster import bundles
from compress.sweep.cluster.bundles import Bundle


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """An empty one, one of several parts, and one whose end shares a part with the next."""
    found = {}
    for name, size in {"a/empty": 0, "a/b/long": 23, "short": 3, "z": 8}.items():
        path = tmp_path / "from" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))
        found[name] = path
    return found


def repeated(bundle: Bundle) -> Iterator[bytes]:
    return iter(list(bundle.parts()))


@pytest.mark.parametrize("part", [1, 5, 8, 34, 1000])
def test_files_arrive_with_their_bytes(
    files: dict[str, Path], part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "PART", part)
    bundle = Bundle.of(files)
    parts = list(bundle.parts())
    assert b"".join(parts) == b"".join(files[name].read_bytes() for name in sorted(files))
    assert {len(one) for one in parts[:-1]} <= {part}
    bundle.unpack(parts, tmp_path / "to")
    found = {path.relative_to(tmp_path / "to").as_posix(): path.read_bytes() for path in (tmp_path / "to").rglob("*.*")}
    found |= {name: (tmp_path / "to" / name).read_bytes() for name in files}
    assert found == {name: path.read_bytes() for name, path in files.items()}
    assert bundle.is_in(tmp_path / "to")


def test_the_digest_is_that_of_names_and_contents(files: dict[str, Path], tmp_path: Path) -> None:
    lines = [
        [name, len(path.read_bytes()), hashlib.sha256(path.read_bytes()).hexdigest()] for name, path in files.items()
    ]
    bundle = Bundle.of(files)
    assert bundle.digest == hashlib.sha256(json.dumps(sorted(lines)).encode()).hexdigest()
    bundle.unpack(bundle.parts(), tmp_path / "to")
    assert Bundle.of({name: tmp_path / "to" / name for name in files}).digest == bundle.digest


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "absent"])
def test_a_changed_file_is_noticed(files: dict[str, Path], change: str, tmp_path: Path) -> None:
    bundle, path = Bundle.of(files), files["a/b/long"]
    assert bundle.is_in_place()
    content = path.read_bytes()
    other = {"longer": content + b"x", "shorter": content[:-1], "other": b"x" + content[1:]}
    if change == "absent":
        path.unlink()
    else:
        path.write_bytes(other[change])
    assert not bundle.is_in_place()
    if change != "longer":  # of a longer one, the part that was there is sent
        with pytest.raises(InputError, match=r"a/b/long has changed since the sweep was started"):
            bundle.unpack(bundle.parts(), tmp_path / "to")
        written = [path.relative_to(tmp_path / "to") for path in (tmp_path / "to").rglob("*") if path.is_file()]
        assert written == [Path("a/empty")] or written == [], "whole files only"


def test_a_damaged_copy_is_replaced(files: dict[str, Path], tmp_path: Path) -> None:
    bundle, folder = Bundle.of(files), tmp_path / "to"
    bundle.unpack(bundle.parts(), folder)
    (folder / "short").write_bytes(b"xyz")
    assert not bundle.is_in(folder)
    bundle.unpack(bundle.parts(), folder)
    assert bundle.is_in(folder)
