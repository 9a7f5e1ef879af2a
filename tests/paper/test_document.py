"""docs/paper.md and its figures are what results.json says."""

import copy
import json
import re
from pathlib import Path

import pytest

from compress.paper import document, figures, reproducing
from compress.paper.experiments import COMPLETE
from compress.paper.findings import line, mean, verdicts

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = json.loads((DOCS / "paper" / "results.json").read_text(encoding="utf-8"))


def test_the_page_has_not_drifted() -> None:
    text = (DOCS / "paper.md").read_text(encoding="utf-8")
    assert document.page(RESULTS, "paper") == text, "write it again: compress reproduce --draw"
    for name in figures.names(RESULTS):
        for suffix in ("svg", "png"):
            assert (DOCS / "paper" / f"{name}.{suffix}").stat().st_size > 1000


@pytest.mark.extended
def test_figures_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    some = {**RESULTS, "cells": [cell for cell in RESULTS["cells"] if cell["dataset"] == "mnist" and cell["seed"] == 0]}
    some["cells"] = [cell for cell in some["cells"] if cell["experiment"] == "classification"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        figures.write_all(some, tmp_path / name)
    drawn = sorted((tmp_path / "one").glob("*.svg"))
    assert [path.stem for path in drawn] == ["fig1", "fig2", "fig3"]
    for path in drawn:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_page_shows_figures_that_are_there_and_every_verdict() -> None:
    text = (DOCS / "paper.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(shown) >= 8
    assert all((DOCS / path).exists() for path in shown)
    for one in verdicts(RESULTS):
        assert f"| {one.claim} | **{one.verdict}** |" in text
    soft = line(RESULTS, "classification", "mnist", "soft", COMPLETE)
    assert f"{mean(soft[0.95]):.2f}" in text


def test_results_are_written_so_that_they_read_back() -> None:
    assert json.loads(reproducing.written(RESULTS)) == RESULTS
    assert len({cell["key"] for cell in RESULTS["cells"] if cell["method"] != "dense"}) == sum(
        cell["method"] != "dense" for cell in RESULTS["cells"]
    )


def test_nodes_were_pruned_in_the_dense_networks_of_the_weights() -> None:
    """They were trained again, to the same figures up to rounding, and to similar ones on another processor."""
    trained = {cell["network"]: cell["result"] for cell in RESULTS["cells"] if cell["method"] == "dense"}
    found = [cell for cell in RESULTS["cells"] if cell["experiment"].endswith("_nodes") and cell["method"] == "hard"]
    assert found
    for cell in found:
        dense, here = trained[cell["network"]]["dense"], trained[cell["network"]]["cpu"] == cell["result"]["cpu"]
        assert cell["result"]["before_removal"]["loss"] == pytest.approx(dense["loss"], rel=1e-3 if here else 2e-2)
        if "accuracy" in dense:
            assert cell["result"]["before_removal"]["accuracy"] == pytest.approx(dense["accuracy"], abs=2e-4)


def test_no_figure_of_the_page_is_made_of_nothing() -> None:
    assert not re.search(r"\bnan\b|\bNone\b", (DOCS / "paper.md").read_text(encoding="utf-8"))


def test_without_any_cell_nothing_is_claimed() -> None:
    nothing = {**RESULTS, "cells": [], "networks": {}, "stages": []}
    text = document.page(nothing, "paper")
    assert text.count("**not measured**") == 4
    assert f"0 of {RESULTS['planned']:,} cells" in text
    assert re.findall(r"!\[[^]]+\]\(([^)]+)\)", text) == ["paper/fig1.svg"]


def test_the_page_says_where_dense_networks_were_trained_again_on_another_processor() -> None:
    trained = {cell["network"]: cell["result"] for cell in RESULTS["cells"] if cell["method"] == "dense"}
    apart = [
        abs(cell["result"]["before_removal"]["loss"] / trained[cell["network"]]["dense"]["loss"] - 1)
        for cell in RESULTS["cells"]
        if (cell["experiment"], cell["dataset"], cell["method"]) == ("decoder_nodes", "mnist", "hard")
        and cell["result"]["cpu"] != trained[cell["network"]]["cpu"]
    ]
    assert f"losses differ by up to {100 * max(apart):.1f} %" in " ".join(document.page(RESULTS, "paper").split())
    alike = copy.deepcopy(RESULTS)
    for cell in alike["cells"]:
        cell["result"]["cpu"] = "one"
    assert "another processor" not in document.page(alike, "paper")
