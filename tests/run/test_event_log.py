"""`--log`, read back with the readers of those who use it."""

import csv
import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from compress.errors import InputError, OutputError
from compress.run import event_log
from compress.run.setting import Moment

Run = Callable[..., Result]


@pytest.fixture
def two_stages(tmp_path: Path, recipe_text: str) -> Path:
    """A recipe that decays nodes softly, then takes weights along a ramp."""
    path = tmp_path / "two.yaml"
    second = (
        "  - {target: {weights: [decoder.*]}, criterion: magnitude, sparsity: 0.5,\n"
        "     removal: {kind: gradual, every: 1 steps},\n"
        "     retrain: {epochs: 2, optimizer: sgd, lr: 0.01, lr_schedule: linear}}\n"
    )
    path.write_text(recipe_text.replace("export: []", f"{second}export: []"), encoding="utf-8")
    return path


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, as TensorBoard itself reads them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def table(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    with (folder / "events.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["tag"], []).append((int(row["step"]), float(row["value"])))
    return found


READERS = {"tensorboard": scalars, "csv": table}


@pytest.mark.parametrize("kind", READERS)
def test_the_log_says_what_results_json_says(
    run: Run, two_stages: Path, trained: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(kind)
    monkeypatch.chdir(tmp_path)
    run("apply", two_stages, trained, "-o", tmp_path / "out", "--log", kind)
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    found = READERS[kind](tmp_path / "runs" / kind / "tiny")

    assert {tag.partition("/")[0] for tag in found} == {"stage_1", "stage_2"}
    for part, stage in zip(("stage_1", "stage_2"), results["stages"], strict=True):
        losses = found[f"{part}/loss"]
        assert [step for step, _ in losses] == list(range(1, 11))
        epochs = [sum(loss for _, loss in losses[start : start + 5]) / 5 for start in (0, 5)]
        assert epochs == pytest.approx(stage["epoch_losses"], rel=1e-6)
        for when, last in (("before_removal", stage["removal_steps"]), ("after_removal", 10)):
            ((step, value),) = found[f"{part}/{when}/loss"]
            assert (step, value) == (last, pytest.approx(stage[when]["loss"], rel=1e-6))

    factors = [value for _, value in found["stage_1/mask_factor"]]
    assert factors[:4] == pytest.approx([1e-6 ** (step / 5) for step in (1, 2, 3, 4)], rel=1e-4)
    assert factors[4:] == [0.0] * 6
    assert {value for _, value in found["stage_1/share"]} == {1.0}
    shares = [value for _, value in found["stage_2/share"]]
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] == 1.0
    assert [value for _, value in found["stage_1/lr"]] == pytest.approx([1e-3] * 10)
    assert [value for _, value in found["stage_2/lr"]] == pytest.approx([0.01 * (1 - step / 10) for step in range(10)])


def test_the_log_of_a_training(run: Run, recipe: Path, tmp_path: Path) -> None:
    told = run("train", recipe, "-o", tmp_path / "m.pt", "--json", "--log", f"csv:{tmp_path / 'my log'}")
    done, found = json.loads(told.stdout), table(tmp_path / "my log")
    assert found.keys() == {"train/loss", "train/lr", "train/test/loss"}
    assert found["train/test/loss"] == [(20, done["metric"]["loss"])]
    assert told.stderr.splitlines()[-1] == f"log: {tmp_path / 'my log'}"


@pytest.mark.extended
@pytest.mark.parametrize("kind", READERS)
def test_a_log_changes_nothing(run: Run, recipe: Path, trained: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip(kind)

    def outcome(name: str, *log: object) -> tuple[bytes, Any]:
        run("apply", recipe, trained, "-o", tmp_path / name, *log)
        results = json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8"))
        for entry in (results, *results["stages"]):
            entry.pop("timing", None), entry.pop("seconds", None)
        return (tmp_path / name / "checkpoint" / "masked.safetensors").read_bytes(), results

    assert outcome("plain") == outcome("logged", "--log", f"{kind}:{tmp_path / 'log'}")


def test_every_run_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    for _ in range(3):
        kind, folder = event_log.where("csv", "tiny")
        with event_log.event_log(kind, folder) as log:
            log.measured("test", {"loss": 1.0}, 1)
            found.append(folder.as_posix())
    assert found == ["runs/csv/tiny", "runs/csv/tiny-2", "runs/csv/tiny-3"]


def test_a_windows_drive_is_part_of_the_folder() -> None:
    pytest.importorskip("tensorboard")
    assert event_log.where("tensorboard:C:\\logs", "tiny")[1] == Path("C:\\logs")


def test_long_trainings_are_thinned_out() -> None:
    written: list[tuple[str, int]] = []
    log = event_log.EventLog(lambda tag, value, step: written.append((tag, step)))
    log.begin("train", "train tiny")
    with log.training(10_007, 100) as on_step:
        for step in range(1, 10_008):
            on_step(Moment(step, 0.5))
    assert [tag for tag, _ in written] == ["train/loss"] * 1001
    assert written[-1][1] == 10_007


# --- before any time is spent ---


def test_what_is_no_log(run: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "events").touch()
    with pytest.raises(InputError, match="--log wandb: needs tensorboard or csv, with a folder as in"):
        event_log.where("wandb", "tiny")
    with pytest.raises(OutputError, match=r"--log: full is not empty: softprune did not write events"):
        event_log.where("csv:full", "tiny")
    for inside in ("out", "out/log"):
        with pytest.raises(OutputError, match=f"--log: {inside} lies in out, which appears whole at the end"):
            event_log.where(f"csv:{inside}", "tiny", Path("out"))
    result = run("train", recipe, "-o", "m.pt", "--log", "wandb", code=2)
    assert result.stderr.startswith("error: --log wandb")
    assert not (tmp_path / "m.pt").exists()


@pytest.mark.parametrize("kind", READERS)
def test_a_run_that_is_refused_leaves_no_log(
    run: Run, recipe: Path, tmp_path: Path, kind: str, unchanged: Callable[[Path], AbstractContextManager[None]]
) -> None:
    pytest.importorskip(kind)
    with unchanged(tmp_path):
        changes = ("--set", "data={npz: nowhere.npz}")
        run("train", recipe, "-o", tmp_path / "m.pt", "--log", f"{kind}:{tmp_path / 'log'}", *changes, code=2)


def test_a_missing_package_names_the_extra(
    run: Run,
    recipe: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unchanged: Callable[[Path], AbstractContextManager[None]],
) -> None:
    monkeypatch.setattr(event_log.importlib.util, "find_spec", lambda name: None)
    with unchanged(tmp_path):
        text = run("apply", recipe, trained, "-o", tmp_path / "out", "--log", "tensorboard", code=2).stderr
    (extra,) = re.findall(r"pip install 'softprune\[(\w+)\]'", text)
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f"\n{extra} = [" in pyproject
