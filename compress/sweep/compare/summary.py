"""The summary of the cells: means and spreads over seeds, and whether the best is better than chance."""

import math
import statistics
from collections.abc import Mapping, Sequence

from compress.ranking import read
from compress.results import ScratchLength
from compress.sweep_results import ComparedLevel, ComparedRun, ComparedRuns, RivalFigures

NOISE = 0.05
"""Differences that chance produces at least this often are noise."""


def mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for a single seed."""
    return statistics.stdev(values) if len(values) > 1 else None


def paired_p(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The two-sided p of a paired t-test for equal means; None for fewer than three pairs.

    The pairs are seeds: rivals share the network and the order of the data, so that much of the noise cancels.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < 3:
        return None
    deviation = statistics.stdev(differences)
    if deviation == 0:
        return 0.0 if differences[0] else 1.0
    return student_p(statistics.fmean(differences) / deviation * math.sqrt(len(differences)), len(differences) - 1)


def student_p(t: float, freedom: int) -> float:
    """The probability that |T| >= |t| for Student's T with `freedom` degrees of freedom.

    The finite series of Abramowitz & Stegun (1964), 26.7.3 and 26.7.4.
    """
    angle = math.atan(abs(t) / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for power in range(1 + odd, freedom, 2):
        total += term
        term *= math.cos(angle) ** 2 * power / (power + 1)
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return max(0.0, 1 - inside)


def best(rivals: Mapping[str, Sequence[float]], *, larger: bool) -> tuple[str | None, float | None]:
    """(the rival that beats the second-best beyond the noise, or None; the p of that comparison, if any).

    Args:
        rivals: a value for every seed, the seeds in the same order.
        larger: whether larger values are better.
    """
    ranked = sorted(rivals, key=lambda name: mean(rivals[name]), reverse=larger)
    if len(ranked) < 2:
        return None, None
    p = paired_p(rivals[ranked[0]], rivals[ranked[1]])
    return (ranked[0] if p is not None and p < NOISE else None), p


def scratch_wins(results: ComparedRuns, level: ComparedLevel, length: ScratchLength) -> bool:
    """Whether the shape trained from scratch for so long beats the best way to prune beyond the noise."""
    larger = read(results["metric"]).larger
    here = [cell for cell in results["cells"] if cell["sparsity"] == level["sparsity"]]
    values: dict[ScratchLength | None, list[list[float]]] = {}
    for rival in results["rivals"]:
        found = [cell["value"] for cell in here if cell["rival"] == rival["name"]]
        whole = [value for value in found if value is not None]
        if whole and len(whole) == len(found):
            values.setdefault(rival.get("scratch"), []).append(whole)
    if not values.get(None) or not values.get(length):
        return False
    pruned = (max if larger else min)(values[None], key=mean)
    return best({"pruned": pruned, "scratch": values[length][0]}, larger=larger)[0] == "scratch"


def levels(results: ComparedRuns) -> list[ComparedLevel]:
    """For every sparsity of results.json: its rivals' figures, the `best` one, if any, and its `p`.

    A rival that diverged for a seed does not have a mean, and cannot be the best.
    """
    larger = read(results["metric"]).larger
    found: list[ComparedLevel] = []
    for sparsity in results["sparsities"]:
        here = [cell for cell in results["cells"] if cell["sparsity"] == sparsity]
        rivals = {
            rival["name"]: [cell for cell in here if cell["rival"] == rival["name"]] for rival in results["rivals"]
        }
        values = {name: [cell["value"] for cell in runs if cell["value"] is not None] for name, runs in rivals.items()}
        whole = {name: found for name, found in values.items() if len(found) == len(rivals[name])}
        winner, p = best(whole, larger=larger)
        figures = {name: _figures(runs, whole.get(name)) for name, runs in rivals.items()}
        found.append({"sparsity": sparsity, "best": winner, "p": p, "rivals": figures})
    return found


def _figures(runs: Sequence[ComparedRun], values: Sequence[float] | None) -> RivalFigures:
    diverged = sum(cell["value"] is None for cell in runs)
    means = (mean(values), spread(values)) if values else (None, None)
    return {"lr": runs[0]["lr"], "diverged": diverged, "mean": means[0], "sd": means[1]}
