"""Where the hypothesis holds: the gains against numpy and scipy, and the rule that the page states."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from compress.paper import document
from compress.paper.experiments import COMPLETE
from compress.paper.hypothesis import SUBJECTS, Gain, gain, where_it_holds

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = json.loads((DOCS / "paper" / "results.json").read_text(encoding="utf-8"))
MEASURED = sorted(
    {(one["experiment"], one["dataset"]) for one in RESULTS["cells"] if one["experiment"] in SUBJECTS},
)


def brute(experiment: str, dataset: str, *, before: bool) -> np.ndarray:
    """[seeds, levels] in points or percent, from the cells alone; NaN where there is none."""
    final, when = (0.5, "before_removal") if before else (COMPLETE, "after_removal")
    cells = [one for one in RESULTS["cells"] if (one["experiment"], one["dataset"]) == (experiment, dataset)]
    soft = [one for one in cells if one["method"] == "soft" and one["final"] == final]
    levels, seeds = (sorted({one[name] for one in soft}) for name in ("level", "seed"))
    found = np.full((len(seeds), len(levels)), np.nan)
    for one in soft:
        (hard,) = (
            other["result"]["after_removal"]
            for other in cells
            if (other["method"], other["level"], other["seed"]) == ("retrained", one["level"], one["seed"])
        )
        place = seeds.index(one["seed"]), levels.index(one["level"])
        decayed = one["result"][when]
        if "accuracy" in hard:
            found[place] = 100 * (decayed["accuracy"] - hard["accuracy"])
        else:
            found[place] = 100 * (hard["loss"] - decayed["loss"]) / hard["loss"]
    return found


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(("experiment", "dataset"), MEASURED)
def test_gains_are_those_of_numpy_and_words_those_of_scipy(experiment: str, dataset: str, before: bool) -> None:
    wanted = brute(experiment, dataset, before=before)
    found = gain(RESULTS, experiment, dataset, before=before)
    if not wanted.size:
        assert found is None
        return
    assert found is not None
    means = wanted.mean(axis=1)
    np.testing.assert_allclose(found.seeds, means, rtol=1e-9, atol=1e-9)
    assert len(found.levels) == wanted.shape[1]
    if len(means) < 3:
        word = "not tested"
    elif stats.ttest_1samp(means, 0.0).pvalue >= 0.05:
        word = "no difference"
    else:
        word = "better" if means.mean() > 0 else "worse"
    assert found.word == word
    spread = f" ± {means.std(ddof=1):.2f}" if len(means) > 1 else ""
    row = next(line for line in page().splitlines() if line.startswith(f"| {SUBJECTS[experiment]} | **"))
    assert f" {word}: {means.mean():+.2f}{spread} " in row


def page() -> str:
    return (DOCS / "paper.md").read_text(encoding="utf-8")


BETTER, WORSE, SAME = (Gain(seeds, (0.5,)) for seeds in ((3.0, 3.1, 3.2), (-3.0, -3.1, -3.2), (-1.0, 0.1, 1.2)))
AHEAD, BEHIND = Gain((40.0,), (0.95,)), Gain((-40.0,), (0.95,))


@pytest.mark.parametrize(
    ("after", "before", "verdict"),
    [
        ([BETTER, BETTER], [BEHIND, BEHIND], "holds"),
        ([BETTER, BEHIND], [None, None], "holds"),  # a single seed after removal is no test
        ([BETTER, SAME], [AHEAD, AHEAD], "holds in part"),
        ([WORSE, BETTER], [None, None], "holds in part"),
        ([SAME, WORSE], [BEHIND, AHEAD], "holds before removal only"),
        ([SAME, SAME], [WORSE, BETTER], "holds before removal only"),
        ([SAME, AHEAD], [SAME, BEHIND], "does not hold"),
        ([WORSE, None], [None, None], "does not hold"),
        ([AHEAD, None], [AHEAD, None], "not tested"),
    ],
)
def test_the_rule(after: list[Gain | None], before: list[Gain | None], verdict: str) -> None:
    assert where_it_holds(after, before) == verdict


def cell(method: str, level: float, seed: int, loss: float, final: float | None = None) -> dict[str, Any]:
    result = {"before_removal": {"loss": loss}, "after_removal": {"loss": loss}}
    where = {"experiment": "decoder_nodes", "dataset": "mnist", "method": method, "level": level, "seed": seed}
    return {**where, "final": final, "stage": 0, "result": result}


def test_seeds_are_compared_with_themselves_at_the_levels_of_all() -> None:
    cells = [
        cell("soft", 0.5, 1, 3.0, COMPLETE),
        cell("retrained", 0.5, 0, 2.0),
        cell("retrained", 0.5, 1, 4.0),
        cell("soft", 0.5, 0, 1.0, COMPLETE),
        cell("retrained", 0.8, 0, 2.0),  # only one seed has it
        cell("soft", 0.8, 0, 9.0, COMPLETE),
        cell("soft", 0.5, 0, 99.0, 0.1),
    ]
    found = gain({"cells": cells}, "decoder_nodes", "mnist")
    assert found is not None
    assert found.seeds == pytest.approx((50.0, 25.0))
    assert found.levels == (0.5,)
    assert gain({"cells": cells}, "decoder_nodes", "mnist", before=True) is None


def test_the_table_has_a_row_for_everything_that_was_pruned() -> None:
    text = page()
    table = text[text.index("## Where the hypothesis holds") : text.index("## Decay curves")]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")]
    assert rows[2:] == [SUBJECTS[name] for name in SUBJECTS if name in {experiment for experiment, _ in MEASURED}]
    assert document.page({**RESULTS, "cells": []}, "paper").count("Where the hypothesis holds") == 0
