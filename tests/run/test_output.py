import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from compress.errors import OutputError
from compress.run.output import placed, require_file, require_writable, whole_folder

Unchanged = Callable[[Path], AbstractContextManager[None]]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path) -> None:
    (folder / "results.json").write_text("{}")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "weights").write_text("1")


@pytest.mark.parametrize("out", ["out", "deep/er/out"])
def test_the_folder_appears_once_all_is_well(tmp_path: Path, out: str) -> None:
    with whole_folder(tmp_path / out) as folder:
        fill(folder)
        assert not (tmp_path / out).exists()
    assert names(tmp_path / out) == ["checkpoint", "results.json"]
    assert names((tmp_path / out).parent) == ["out"]


def test_the_folder_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with whole_folder(tmp_path / "out") as folder:
        fill(folder)
    for path in (tmp_path / "out", tmp_path / "out" / "checkpoint"):
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [False, True])
def test_it_vanishes_when_something_goes_wrong(
    tmp_path: Path, unchanged: Unchanged, error: type[BaseException], there: bool
) -> None:
    out = tmp_path / "deep" / "out"
    if there:
        out.mkdir(parents=True)
        fill(out)

    def fail() -> None:
        with whole_folder(out) as folder:
            (folder / "half").write_text("...")
            raise error

    with unchanged(tmp_path), pytest.raises(error):
        fail()


@pytest.mark.parametrize("absolute", [False, True])  # as mkdtemp is before Python 3.12, and from then on
def test_a_folder_that_is_there_gets_new_content_and_stays_itself(
    absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a mount or the working directory, and neither can be renamed."""
    made = tempfile.mkdtemp
    if absolute:
        monkeypatch.setattr(tempfile, "mkdtemp", lambda **how: str(Path(made(**how)).absolute()))
    (tmp_path / "old").write_text("old")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "old").write_text("old")
    before = tmp_path.stat().st_ino
    monkeypatch.chdir(tmp_path)
    with whole_folder(Path(".")) as folder:
        fill(folder)
        assert (tmp_path / "old").exists()
    assert names(tmp_path) == ["checkpoint", "results.json"]
    assert names(tmp_path / "checkpoint") == ["weights"]
    assert tmp_path.stat().st_ino == before


def test_a_whole_run_may_go_where_the_user_stands(
    run: Callable[..., object], applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("export", applied / "slim.safetensors", "-o", ".", "--format", "safetensors", "--json")
    assert names(tmp_path) == ["model.safetensors"]
    assert set(json.loads(result.stdout)["files"]) == {"model.safetensors"}  # type: ignore[attr-defined]


def test_what_cannot_be_put_in_place_is_an_error_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/out cannot be written: "), whole_folder(tmp_path / "file" / "out"):
        pass
    out = tmp_path / "out"

    def collide() -> None:
        with whole_folder(out) as folder:
            fill(folder)
            out.mkdir()  # somebody else was there first
            (out / "theirs").touch()

    with pytest.raises(OutputError, match="out cannot be written: "):
        collide()
    assert names(out) == ["theirs"]
    assert names(tmp_path) == ["file", "out"]


def test_where_a_folder_may_be_written(tmp_path: Path, unchanged: Unchanged) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with unchanged(tmp_path):
        require_writable(tmp_path / "empty", force=False)
        require_writable(tmp_path / "new" / "deep", force=False)
        require_writable(tmp_path / "full", force=True)
        for out, force, text in (
            ("full", False, "full is not empty; .* --force"),
            ("full/file", True, "file is a file; name a folder"),
            ("full/file/out", True, r"file/out cannot be written: Not a directory \(.*full/file\)"),
        ):
            with pytest.raises(OutputError, match=text):
                require_writable(tmp_path / out, force=force)


def test_where_a_file_of_weights_may_be_written(tmp_path: Path, unchanged: Unchanged) -> None:
    (tmp_path / "old.pt").touch()
    with unchanged(tmp_path):
        for name in ("new.pt", "deep/new.pth", "new.safetensors"):
            require_file(tmp_path / name, force=False)
        require_file(tmp_path / "old.pt", force=True)
        for name, text in (
            ("old.pt", "old.pt exists; name another file, or replace it with --force"),
            (".", "is a folder; name a file"),
            ("new.onnx", r"new.onnx ends in '.onnx': weights are written as .pt, .pth, .safetensors"),
            ("old.pt/new.pt", "cannot be written: Not a directory"),
        ):
            with pytest.raises(OutputError, match=text):
                require_file(tmp_path / name, force=False)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder that not even root may write to")
def test_a_folder_that_nobody_may_write_to() -> None:
    with pytest.raises(OutputError, match="/proc/out cannot be written"):
        require_writable(Path("/proc/out"), force=False)


def test_what_a_run_reads_is_not_taken_away_by_force(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    model = tmp_path / "out" / "model.pt"
    model.touch()
    with pytest.raises(OutputError, match=r"model\.pt lies in .*out, whose content is to be replaced"):
        require_writable(tmp_path / "out", force=True, inputs=[model])
    require_writable(tmp_path / "other", force=True, inputs=[model])


def test_a_disk_that_is_full_while_files_are_written(tmp_path: Path, unchanged: Unchanged) -> None:
    def fill_up() -> None:
        with whole_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("...")
            raise OSError(28, "No space left on device")

    with unchanged(tmp_path), pytest.raises(OutputError, match="out cannot be written: No space left on device"):
        fill_up()


def test_what_is_half_written_lies_where_it_is_wanted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    within = out / ".partial"
    within.mkdir(parents=True)
    (within / "1.pt").touch()
    (out / "old").touch()
    require_writable(out, force=True)
    with whole_folder(out, within=within) as folder:
        assert folder.parent == within
        fill(folder)
    assert names(out) == [".partial", "checkpoint", "results.json"]
    assert names(within) == ["1.pt", "placed"]
    assert placed(out)


def test_what_a_run_in_progress_keeps_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "out" / ".partial").mkdir(parents=True)
    require_writable(tmp_path / "out", force=False)
