from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from compress.report import plans

SIZE = {"params": 2000, "nonzero": 1990, "macs": 1800, "bytes": 8000}


def text(table: Table, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def stage(**changes: Any) -> dict[str, Any]:
    plain = {
        "kind": "nodes",
        "criterion": {"kind": "magnitude"},
        "removal": {"kind": "hard"},
        "measure": "sparsity",
        "asked": 0.5,
        "pruned": 4,
        "of": 8,
        "steps": 0,
        "steps_per_epoch": 5,
        "removal_steps": 0,
        "matched": [{"name": "latent", "of": 8, "goes": 4, "earlier": 0, "layers": ["latent"]}],
        "chosen": {"by": "criterion", "samples": None, "again": False},
        "after": {"params": 1500, "nonzero": 1400, "macs": 1300, "bytes": 6000},
        "seconds": {"training": 60.0, "selection": 1.5, "evaluation": 0.0, "total": 61.5, "timed_steps": 7},
    }
    return plain | changes


def plan(*stages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    seconds = {"stages": 61.5, "closing": 1.0, "total": 100.0, "without": "export and benchmark"}
    plain = {"recipe": "tiny", "model": "m.pt", "now": SIZE, "stages": stages or (stage(),), "kept": []}
    return plain | {"seconds": seconds} | changes


def rows(shown: str) -> list[list[str]]:
    lines = [line for line in shown.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_what_would_go() -> None:
    assert rows(text(plans.matched(plan()))) == [["1", "latent", "8", "4", "4"]]
    tied = {"name": "a", "of": 4, "goes": 1, "earlier": 0, "layers": ["a", "b"]}
    many = stage(matched=[tied] + [{"name": f"w{i}", "of": 10, "goes": 2, "earlier": 0} for i in range(20)])
    found = rows(text(plans.matched(plan(stage(), many))))
    assert found[1] == ["2", "a (with b)", "4", "1", "3"]
    assert len(found) == 1 + plans.ROWS + 2
    assert found[-2] == ["2", "and 9 more", "90", "18", "72"]
    assert found[-1] == ["2", "all nodes", "8", "4", "4"]


def test_sizes_and_steps() -> None:
    soft = {"removal": {"kind": "soft", "decay": "linear"}, "removal_steps": 5, "steps": 10, "measure": "macs"}
    found = rows(text(plans.sizes(plan(stage(), stage(**soft)))))
    assert found == [
        ["parameters", "2,000", "1,500", "1,500"],
        ["of them nonzero", "1,990", "1,400", "1,400"],
        ["MACs", "1,800", "1,300", "1,300"],
        ["tensors, KB", "8.0", "6.0", "6.0"],
        ["asked", "", "sparsity 0.5", "multiply-adds left 0.5"],
        ["removal", "", "hard", "soft, linear over 5 steps"],
        ["retraining", "", "none", "10 steps, 2 epochs"],
        ["estimated time", "", "62 s", "62 s"],
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "stage 1: chosen by magnitude on the current network"),
        (
            {"chosen": {"by": "criterion", "samples": 250, "again": True}, "removal": {"kind": "sfp"}},
            "stage 1: chosen by magnitude on 250 training samples and the current network; sfp chooses again during",
        ),
        (
            {"chosen": {"by": "even scores", "samples": None, "again": False}, "criterion": {"kind": "ablation"}},
            "stage 1: ablation takes too long for a plan, so all layers were given the same scores",
        ),
        (
            {"kind": "weights"},
            "stage 1: weights are pruned one by one, leaving 100 zeros in place; only nodes with no weights",
        ),
    ],
)
def test_how_it_was_found_out(changes: dict[str, Any], line: str) -> None:
    assert any(found.startswith(line) for found in plans.lines(plan(stage(**changes))))


def test_the_other_lines() -> None:
    lines = list(plans.lines(plan(model=None, kept=[{"layer": "out", "reason": "it is the network's output"}])))
    assert lines[0].startswith("no MODEL: the network is untrained.")
    assert "keeps its width, since it is the network's output: out" in lines
    assert lines[-1] == (
        "estimated time of the run: 1.7 min (training 60 s, selection 1.5 s), from 7 training steps timed on this "
        "machine at its current load; export and benchmark are extra"
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0123, "0.012 s"), (89.0, "89 s"), (90.0, "1.5 min"), (5400.0, "1.5 h"), (5399.0, "90 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert plans.duration(seconds) == shown
