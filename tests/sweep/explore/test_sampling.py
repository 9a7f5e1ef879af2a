"""Several stages by Optuna: it resumes, and prefers trials within the bounds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from compress.errors import InputError
from compress.recipe.loading import load_recipe
from compress.sweep.cell_store import Cells
from compress.sweep.cells import Basis
from compress.sweep.explore import sampling, trials
from compress.sweep.explore.bounds import parse
from compress.sweep.explore.trials import Trials, Wanted
from compress.sweep.trained import Trained

pytest.importorskip("optuna")

Run = Callable[..., Result]


@pytest.fixture
def two(recipe_text: str, tmp_path: Path) -> Path:
    """A recipe of two stages, which do not retrain: weights, then nodes."""
    stages = """
stages:
  - {target: {weights: ["decoder.*"]}, criterion: magnitude, sparsity: 0.3, removal: hard}
  - {target: {nodes: latent}, criterion: magnitude, sparsity: 0.25, removal: hard}
"""
    text = recipe_text[: recipe_text.index("stages:")] + stages + "export: []\n"
    (tmp_path / "two.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "two.yaml"


def searched(run: Run, recipe: Path, trained: Path, *options: object) -> dict[str, Any]:
    where = ("-o", recipe.parent / "out", "--cache", recipe.parent / "cells", "--workers", 1, "--json")
    found: dict[str, Any] = json.loads(run("search", recipe, trained, *options, *where).stdout)
    return found


@pytest.mark.extended
def test_a_study_goes_on_where_it_was(two: Path, trained: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = ("--max-loss", "20x")
    first = searched(run, two, trained, *bound, "--trials", 4)
    assert first["trials"][0]["levels"] == [0.3, 0.25], "the recipe's own come first"
    assert len(first["trials"]) == 4
    more = searched(run, two, trained, *bound, "--trials", 12)
    assert more["trials"][:4] == first["trials"]
    assert len({tuple(trial["levels"]) for trial in more["trials"]}) == 12, "none is proposed twice"
    with monkeypatch.context() as patched:
        patched.setattr(trials.Trial, "run", None)  # none is run any more
        again = searched(run, two, trained, *bound, "--trials", 12)
        assert {**again, "warnings": []} == {**more, "warnings": []}  # those of trials are not issued again
    held = [trial for trial in more["trials"] if trial["holds"]]
    assert more["trials"][more["winner"]["trial"]]["params"] == min(trial["params"] for trial in held)
    stages = load_recipe(two.parent / "out" / "recipe.yaml").stages
    assert [stage.sparsity for stage in stages] == more["winner"]["levels"]


@pytest.mark.parametrize("content", ["{}\n{}\n", "[]\n{}\n", "no JSON\n{}\n", "folder"])
def test_a_damaged_journal_is_told(two: Path, trained: Path, run: Run, content: str) -> None:
    basis, cells = Basis(load_recipe(two), two.parent, "cpu"), Cells(two.parent / "cells")
    trials = Trials(Trained.of(trained), basis, Wanted((parse("loss", "0.5"),), "smallest"), cells)
    journal = cells.folder / f"{trials.study}.journal"
    if content == "folder":
        journal.mkdir()
    else:
        journal.write_text(content, encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"\.journal is (damaged .*; remove it: finished trials are kept|a folder; name a file to write)",
    ):
        sampling.sample(trials, 2, cells.folder)


@pytest.mark.extended
def test_what_an_interruption_left_is_done_first(
    two: Path, trained: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, count = trials.Trial.run, 0

    def interrupted(self: trials.Trial, basis: Basis) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return original(self, basis)

    with monkeypatch.context() as patched:
        patched.setattr(trials.Trial, "run", interrupted)
        where = ("-o", two.parent / "out", "--cache", two.parent / "cells", "--workers", 1)
        run("search", two, trained, "--max-loss", "20x", "--trials", 3, *where, code=130)
    found = searched(run, two, trained, "--max-loss", "20x", "--trials", 3)
    assert len(found["trials"]) == 3
    fresh = searched(run, two, trained, "--max-loss", "20x", "--trials", 3, "--cache", two.parent / "fresh")
    assert [trial["levels"] for trial in found["trials"]] == [trial["levels"] for trial in fresh["trials"]]


def test_what_keeps_to_the_bounds_comes_before_what_does_not(two: Path, trained: Path) -> None:
    basis, cells = Basis(load_recipe(two), two.parent, "cpu"), Cells(two.parent / "cells")

    def value(text: str, loss: float, params: int) -> float:
        kind, goal = ("loss", "smallest") if "." in text else ("params", "best")
        bound = parse(kind, text)  # type: ignore[arg-type]
        trials = Trials(Trained.of(trained), basis, Wanted((bound,), goal), cells)  # type: ignore[arg-type]
        return sampling.value_of(trials, {"metric": {"loss": loss}, "params": params})

    assert 0 < value("0.5", 0.1, 10) < value("0.5", 0.5, 500_000) < 1 < value("0.5", 0.51, 1) < value("0.5", 9, 1) < 2
    assert 0 < value("900", 0.1, 900) < value("900", 7.0, 10) < 1 < value("900", 0.0, 901) < value("900", 0, 9999) < 2
    trials = Trials(Trained.of(trained), basis, Wanted((parse("loss", "0.5"),), "smallest"), cells)
    assert sampling.value_of(trials, {"failed": "diverged"}) == 3


def test_without_optuna_it_says_how_to_get_it(
    two: Path, trained: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    where = ("--cache", two.parent / "cells", "--workers", 1)
    result = run("search", two, trained, "--max-loss", "2x", *where, code=2)
    assert "pip install 'softprune[search]'" in result.stderr
