"""Means and verdicts, from results made by hand."""

from typing import Any

import pytest

from compress.paper import printed
from compress.paper.experiments import COMPLETE
from compress.paper.findings import calibrated, line, mean, spread, verdicts


def cell(experiment: str, dataset: str, method: str, level: float, **more: Any) -> dict[str, Any]:
    metric = "accuracy" if experiment in ("classification", "calibration") else "loss"
    scale = 100 if metric == "accuracy" else 1000
    found = {
        "before_removal": {metric: more.pop("before", 0.0) / scale},
        "after_removal": {metric: more.pop("after", 0.0) / scale},
        "dense": {metric: more.pop("dense", 0.0) / scale},
        "training_images": {metric: more.pop("training", 0.0) / scale},
    }
    base = {"experiment": experiment, "dataset": dataset, "method": method, "level": level, "result": found}
    return {**base, "final": None, "seed": 0, "network": "n", "stage": 0, **more}


def results(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"cells": list(cells), "networks": {}, "stages": [{"target": {"bias": False}}, {"target": {"bias": True}}]}


def test_lines_collect_seeds_in_the_papers_units() -> None:
    found = results(
        cell("latent", "mnist", "soft", 0.75, final=COMPLETE, after=10, before=9),
        cell("latent", "mnist", "soft", 0.75, final=COMPLETE, after=14, before=9, seed=1),
        cell("latent", "mnist", "soft", 0.5, final=COMPLETE, after=7, before=7),
        cell("latent", "mnist", "soft", 0.75, final=0.5, after=99, before=1),
    )
    after = line(found, "latent", "mnist", "soft", COMPLETE)
    assert list(after) == [0.5, 0.75]
    assert after[0.75] == pytest.approx([10, 14])
    assert mean(after[0.75]) == pytest.approx(12)
    assert spread(after[0.75]) == pytest.approx(8**0.5)
    assert spread(after[0.5]) == 0
    assert line(found, "latent", "mnist", "soft", 0.5, before=True)[0.75] == pytest.approx([1])


@pytest.mark.parametrize(
    ("after", "before", "verdict"),
    [(3.9, 3.9, "holds"), (9.5, 3.9, "holds before removal only"), (9.5, 9.0, "does not hold")],
)
def test_the_latent_gain(after: float, before: float, verdict: str) -> None:
    found = results(
        cell("latent", "mnist", "retrained", 0.75, after=10.0),
        cell("latent", "mnist", "soft", 0.75, final=COMPLETE, after=after, before=after),
        cell("latent", "mnist", "soft", 0.75, final=0.5, after=50.0, before=before),
    )
    judged = verdicts(found)[2]
    assert judged.verdict == verdict
    assert f"MNIST (the paper: 60.9 %): {100 * (1 - after / 10):.1f} % after removal" in " ".join(judged.why)


@pytest.mark.parametrize(
    ("hard", "soft", "early", "verdict"),
    [
        (10.4, 72.3, 90.0, "holds"),
        (10.4, 12.0, 90.0, "holds before removal only"),
        (80.0, 79.0, 79.0, "not measured"),  # hard pruning does not guess there
        (10.4, 12.0, 20.0, "does not hold"),
    ],
)
def test_accuracy_where_hard_pruning_guesses(hard: float, soft: float, early: float, verdict: str) -> None:
    found = results(
        cell("classification", "mnist", "retrained", 0.95, after=hard),
        cell("classification", "mnist", "soft", 0.95, final=COMPLETE, after=soft, before=soft),
        cell("classification", "mnist", "soft", 0.95, final=0.5, after=10.0, before=early),
    )
    assert verdicts(found)[0].verdict == verdict


def test_the_rise_at_95_percent() -> None:
    found = results(
        cell("latent", "mnist", "dense", 0.0, dense=5.0, stage=None),
        cell("latent", "mnist", "soft", 0.95, final=COMPLETE, after=40.0, before=40.0),
        cell("latent", "mnist", "soft", 0.95, final=0.5, after=80.0, before=5.2),
    )
    judged = verdicts(found)[3]
    assert judged.verdict == "holds before removal only"
    assert judged.why == ("After removal +700 %.", "With a decay to 0.5, before removal, +4 %.")


def test_nothing_measured_is_no_verdict() -> None:
    assert {one.verdict for one in verdicts(results())} == {"not measured"}


def test_the_nearest_calibration_comes_first() -> None:
    columns = printed.TABLE_I["mnist"]
    cells = []
    for network, off in (("far", 9.0), ("near", 1.0)):
        cells.append(cell("calibration", "mnist", "dense", 0.0, dense=91.0, stage=None, network=network))
        cells += [
            cell("calibration", "mnist", method, level, after=columns[method][level] + off, network=network)
            for method in ("hard", "retrained")
            for level in (0.9, 0.95, 0.97)
        ]
    found = results(*cells, cell("calibration", "mnist", "hard", 0.9, after=1, network="near", stage=1))
    settings = {"start": "xavier", "data": {"batch_size": 64}, "train": {"epochs": 1}}
    found["networks"] = {"far": settings, "near": settings}
    ranked = calibrated(found)
    assert [one.distance for one in ranked] == pytest.approx([1.0, 9.0])
    assert ranked[0].dense == pytest.approx(91.0)
