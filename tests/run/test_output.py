import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from compress.errors import OutputError
from compress.files.marked import MARK, Mark, cells, make, mark_of
from compress.run.output import (
    added,
    begin,
    draft_in,
    free,
    is_written,
    placed,
    require_cache,
    require_file,
    require_names,
    require_new,
    require_writable,
    seen,
    whole_folder,
)

Unchanged = Callable[[Path], AbstractContextManager[None]]


FILES = ("results.json", "checkpoint/weights")


def names(folder: Path) -> list[str]:
    """What is in it, but its mark."""
    return sorted(path.name for path in folder.iterdir() if path.name != MARK)


def results(out: Path) -> None:
    """A folder as a command leaves it."""
    with whole_folder(out, FILES, "apply") as folder:
        fill(folder)


def fill(folder: Path) -> None:
    (folder / "results.json").write_text("{}")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "weights").write_text("1")


@pytest.mark.parametrize("out", ["out", "deep/er/out"])
def test_the_folder_appears_once_all_is_well(tmp_path: Path, out: str) -> None:
    with whole_folder(tmp_path / out, FILES, "apply") as folder:
        fill(folder)
        assert not (tmp_path / out).exists()
    assert names(tmp_path / out) == ["checkpoint", "results.json"]
    assert names((tmp_path / out).parent) == ["out"]


def test_the_folder_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with whole_folder(tmp_path / "out", FILES, "apply") as folder:
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
        results(out)

    def fail() -> None:
        with whole_folder(out, FILES, "apply") as folder:
            fill(folder)
            (folder / f".softprune-{32 * '0'}.onnx").touch()  # half a file
            raise error

    with unchanged(tmp_path), pytest.raises(error):
        fail()


def test_a_folder_that_is_there_gets_new_content_and_stays_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a mount or the working directory, and neither can be renamed."""
    results(tmp_path / "out")
    with added(tmp_path / "out", "checkpoint/old") as draft:
        draft.write_text("old")
    before = (tmp_path / "out").stat().st_ino
    monkeypatch.chdir(tmp_path / "out")
    require_writable(Path("."), force=True)
    with whole_folder(Path("."), FILES, "apply") as folder:
        fill(folder)
        (folder / "results.json").write_text("new")
        assert Path("checkpoint/old").exists()
    assert names(Path(".")) == ["checkpoint", "results.json"]
    assert names(Path("checkpoint")) == ["weights"]
    assert Path("results.json").read_text() == "new"
    assert Path(".").stat().st_ino == before


def test_a_whole_run_may_go_where_the_user_stands(
    run: Callable[..., object], applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("export", applied / "slim.safetensors", "-o", ".", "--format", "safetensors", "--json")
    assert names(tmp_path) == ["model.safetensors"]
    assert set(json.loads(result.stdout)["files"]) == {"model.safetensors"}  # type: ignore[attr-defined]


def test_what_cannot_be_put_in_place_is_an_error_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"file/out cannot be written: "),
        whole_folder(tmp_path / "file" / "out", FILES, "apply"),
    ):
        pass
    out = tmp_path / "out"

    def collide() -> None:
        with whole_folder(out, FILES, "apply") as folder:
            fill(folder)
            out.mkdir()  # somebody else was there first
            (out / "theirs").touch()

    with pytest.raises(OutputError, match="out has changed since the run began"):
        collide()
    assert names(out) == ["theirs"]
    assert names(tmp_path) == ["file", "out"]


def test_where_a_folder_may_be_written(tmp_path: Path, unchanged: Unchanged) -> None:
    (tmp_path / "empty").mkdir()
    results(tmp_path / "full")
    (tmp_path / "theirs" / "deep").mkdir(parents=True)
    with unchanged(tmp_path):
        require_writable(tmp_path / "empty", force=False)
        require_writable(tmp_path / "new" / "deep", force=False)
        require_writable(tmp_path / "full", force=True)
        for out, force, text in (
            ("full", False, "full is not empty; .* --force"),
            ("theirs", False, "theirs is not empty: softprune did not write deep/"),
            ("theirs", True, "theirs is not empty: softprune did not write deep/"),
            ("full/results.json", True, "results.json is a file; name a folder"),
            (
                "full/results.json/out",
                True,
                r"json/out cannot be written: a part of its path.* in .*full/results.json",
            ),
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
            ("old.pt/new.pt", "cannot be written: a part of its path"),
        ):
            with pytest.raises(OutputError, match=text):
                require_file(tmp_path / name, force=False)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder that not even root may write to")
def test_a_folder_that_nobody_may_write_to() -> None:
    with pytest.raises(OutputError, match="/proc/out cannot be written"):
        require_writable(Path("/proc/out"), force=False)


def test_what_a_run_reads_is_not_taken_away_by_force(tmp_path: Path) -> None:
    results(tmp_path / "out")
    weights = tmp_path / "out" / "checkpoint" / "weights"
    with pytest.raises(OutputError, match=r"weights lies in .*out, whose content is to be replaced"):
        require_writable(tmp_path / "out", force=True, inputs=[weights])
    require_writable(tmp_path / "other", force=True, inputs=[weights])


def test_a_disk_that_is_full_while_files_are_written(tmp_path: Path, unchanged: Unchanged) -> None:
    def fill_up() -> None:
        with whole_folder(tmp_path / "out", FILES, "apply") as folder:
            (folder / "results.json").write_text("...")
            raise OSError(28, "No space left on device")

    with unchanged(tmp_path), pytest.raises(OutputError, match="out cannot be written: the disk is full"):
        fill_up()


def test_what_is_half_written_lies_where_it_is_wanted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    within = out / ".partial"
    make(within, Mark("run", "out", id=32 * "7"))
    require_writable(out, force=False)
    with whole_folder(out, FILES, "apply", within=within) as folder:
        assert folder.parent == within
        fill(folder)
    assert names(out) == [".partial", "checkpoint", "results.json"]
    assert names(within) == [f"{32 * '7'}.placed"]
    assert placed(out)


def test_a_folder_of_a_run_without_its_mark_is_content(tmp_path: Path) -> None:
    (tmp_path / "out" / ".partial").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"softprune did not write \.partial/"):
        require_writable(tmp_path / "out", force=True)


# --- what is not ours ---


@pytest.mark.parametrize("name", ["mine", "slim.onnx", "checkpoint/mine", ".hidden", f".softprune-{32 * 'a'}"])
@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling", "pipe"])
def test_force_leaves_a_folder_alone_that_holds_anything_else(
    tmp_path: Path, unchanged: Unchanged, name: str, kind: str
) -> None:
    out, path = tmp_path / "out", tmp_path / "out" / name
    results(out)
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
            (path / "thesis").touch()
        case "link":
            path.symlink_to(tmp_path)
        case "dangling":
            path.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(path)
    with unchanged(tmp_path), pytest.raises(OutputError, match=f"softprune did not write {name}"):
        require_writable(out, force=True)


@pytest.mark.parametrize("change", ["edited", "link to the same bytes", "folder"])
def test_a_file_of_ours_that_was_changed_is_not_ours(tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    results(out)
    path = out / "results.json"
    if change == "edited":
        path.write_text("{ }")
    else:
        path.rename(tmp_path / "moved")
        path.symlink_to(tmp_path / "moved") if change == "link to the same bytes" else path.mkdir()
    with pytest.raises(OutputError, match=r"did not write results\.json.*, or it was changed since"):
        require_writable(out, force=True)


@pytest.mark.parametrize("out", ["dangling", "to_folder", "loop", "dangling/out", "loop/deep/out"])
def test_a_link_is_found_out_before_any_work(tmp_path: Path, out: str) -> None:
    (tmp_path / "folder").mkdir()
    for name, goal in (("dangling", "nowhere"), ("to_folder", "folder"), ("loop", "loop")):
        (tmp_path / name).symlink_to(goal)
    for check in (
        lambda path: require_writable(path, force=True),
        lambda path: require_file(path.with_suffix(".pt") if path.parent != tmp_path else path, force=True),
        lambda path: require_names(path, FILES, "compare"),
        lambda path: require_new(path, force=True),
    ):
        with pytest.raises(OutputError, match=r"is a link to |is a link that leads nowhere"):
            check(tmp_path / out)


@pytest.mark.parametrize("came", ["results.json", "checkpoint", MARK])
def test_what_comes_while_a_run_is_busy_is_left_alone(tmp_path: Path, came: str) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def collide() -> None:
        with whole_folder(out, FILES, "apply") as folder:
            fill(folder)
            (out / came).write_text("precious")

    with pytest.raises(OutputError, match=r"appeared during the run|is not a mark of softprune's"):
        collide()
    assert [path.name for path in out.iterdir()] == [came]
    assert (out / came).read_text() == "precious"


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path, there: bool, unchanged: Unchanged) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    results(victim)
    if there:
        results(out)

    def swap() -> None:
        with whole_folder(out, FILES, "apply") as folder:
            fill(folder)
            if there:
                out.rename(tmp_path / "away")
            out.symlink_to(victim)

    with unchanged(victim), pytest.raises(OutputError, match="has changed since the run began"):
        swap()
    assert out.is_symlink()


def test_sweeps_leave_other_names_alone_and_refuse_to_write_over_them(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    require_names(tmp_path, FILES, "compare")
    for _ in range(2):  # its own it replaces
        with whole_folder(tmp_path, FILES, "compare") as folder:
            fill(folder)
        require_names(tmp_path, FILES, "compare")
    assert (tmp_path / "mine").read_text() == "precious"
    with pytest.raises(OutputError, match="has the results of `compress compare`; name another folder"):
        require_names(tmp_path, FILES, "search")
    os.link(tmp_path / "results.json", tmp_path / "hard")
    with pytest.raises(OutputError, match=r"results\.json is the same file as .*hard, an input of this command"):
        require_names(tmp_path, FILES, "compare", [tmp_path / "hard"])
    cells(tmp_path / "cells")
    with pytest.raises(OutputError, match="is a folder of softprune's cells; name another folder with -o"):
        require_names(tmp_path / "cells", FILES, "compare")
    with pytest.raises(OutputError, match="is both --cache and -o: name two folders"):
        require_cache(tmp_path / "cells", tmp_path / "deep" / ".." / "cells")
    (tmp_path / "results.json").write_text("mine")
    with pytest.raises(OutputError, match=r"results\.json exists, and `compress compare` did not write it"):
        require_names(tmp_path, FILES, "compare")


def test_a_file_that_is_added_is_known_to_the_mark(tmp_path: Path) -> None:
    begin(tmp_path / "out", "demo")
    for text in ("one", "two", "three"):
        with added(tmp_path / "out", "model.pt") as draft:
            draft.write_text(text)
    assert is_written(tmp_path / "out" / "model.pt", "other")
    require_writable(tmp_path / "out", force=True)
    mark = mark_of(tmp_path / "out", "results")
    assert mark is not None
    assert len(mark.files["model.pt"]) == 2
    (tmp_path / "out" / "model.pt").write_text("zero")
    assert not is_written(tmp_path / "out" / "model.pt", "other")
    assert is_written(tmp_path / "out" / "model.pt", "zero")
    with added(tmp_path, "plain") as draft:
        draft.write_text("no mark, no entry")
    assert not (tmp_path / MARK).exists()


def test_an_output_file_is_never_an_input(tmp_path: Path) -> None:
    given, hard = tmp_path / "results.json", tmp_path / "hard"
    given.touch()
    os.link(given, hard)
    for path in (given, hard):
        with pytest.raises(OutputError, match="an input of this command; name another file"):
            require_new(path, force=True, inputs=[given])
    require_new(tmp_path / "new", force=False, inputs=[given])
    with pytest.raises(OutputError, match="is the mark of its folder"):
        require_new(tmp_path / MARK, force=True)


def test_a_name_is_taken_by_a_link_that_leads_nowhere_too(tmp_path: Path) -> None:
    (tmp_path / "model.pt").symlink_to("nowhere")
    assert free(tmp_path / "model.pt") == tmp_path / "model-2.pt"
    assert seen(tmp_path / "model.pt") != seen(tmp_path / "model-2.pt") is None


def test_what_killed_commands_leave_is_told_from_what_users_have(tmp_path: Path) -> None:
    (tmp_path / f".softprune-{32 * 'b'}").mkdir()  # killed before it was marked
    fill(draft_in(None, tmp_path, Mark("results", "export")))
    require_writable(tmp_path, force=False)
