"""What the cells say: means over seeds, the calibration that comes nearest, and a verdict on each claim."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compress.paper import printed

COMPLETE = 1e-6
Results = Mapping[str, Any]
Line = dict[float, list[float]]  # level -> a value for every seed


def line(
    results: Results, experiment: str, dataset: str, method: str, final: float | None = None, *, before: bool = False
) -> Line:
    """Accuracies in percent or losses in 10^-3 after removal (or `before` it), of one method at all levels measured."""
    found: Line = defaultdict(list)
    for cell in results["cells"]:
        where = (cell["experiment"], cell["dataset"], cell["method"], cell["final"])
        if where == (experiment, dataset, method, final):
            result = cell["result"]
            measured = (
                result["before_removal" if before else "after_removal"]
                if cell["stage"] is not None
                else result["dense"]
            )
            found[cell["level"]].append(value(measured))
    return dict(sorted(found.items()))


def value(metric: Mapping[str, float]) -> float:
    return 100 * metric["accuracy"] if "accuracy" in metric else 1000 * metric["loss"]


def dense(results: Results, experiment: str, dataset: str) -> list[float]:
    return line(results, experiment, dataset, "dense").get(0.0, [])


def mean(values: list[float]) -> float:
    return statistics.fmean(values)


def spread(values: list[float]) -> float:
    """Sample standard deviation; 0 for a single seed, which has none to show."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


# --- which networks come nearest to Table I ---


@dataclass(frozen=True)
class Calibrated:
    """One way to train and prune the classifier, and how far its hard columns are from Table I's."""

    start: str
    batch_size: int
    epochs: int
    bias: bool
    dense: float
    hard: tuple[float, ...]  # percent at 90, 95 and 97 % pruned
    retrained: tuple[float, ...]
    soft: Mapping[float, Mapping[str, tuple[float, ...]]]  # final -> before/after -> percent
    distance: float  # mean |difference| to Table I, hard and retrained, in points


LEVELS = (0.9, 0.95, 0.97)


def calibrated(results: Results) -> list[Calibrated]:
    """All settings whose six hard cells are there, the nearest to the paper first."""
    groups: dict[tuple[str, bool], dict[Any, Any]] = defaultdict(dict)
    trained: dict[str, float] = {}
    for cell in results["cells"]:
        if cell["experiment"] != "calibration":
            continue
        if cell["stage"] is None:
            trained[cell["network"]] = value(cell["result"]["dense"])
            continue
        bias = results["stages"][cell["stage"]]["target"]["bias"]
        groups[cell["network"], bias][cell["method"], cell["final"], cell["level"]] = cell["result"]
    found = [
        _calibrated(results["networks"][network], bias, trained[network], cells)
        for (network, bias), cells in groups.items()
        if network in trained and all((m, None, x) in cells for m in ("hard", "retrained") for x in LEVELS)
    ]
    return sorted(found, key=lambda one: one.distance)


def _calibrated(network: Mapping[str, Any], bias: bool, trained: float, cells: Mapping[Any, Any]) -> Calibrated:
    columns = {
        method: tuple(value(cells[method, None, level]["after_removal"]) for level in LEVELS)
        for method in ("hard", "retrained")
    }
    finals = {final for method, final, _ in cells if method == "soft"}
    soft = {
        final: {
            when: tuple(value(cells["soft", final, level][f"{when}_removal"]) for level in LEVELS)
            for when in ("before", "after")
        }
        for final in sorted(finals)
        if all(("soft", final, level) in cells for level in LEVELS)
    }
    wanted = [printed.TABLE_I["mnist"][method][level] for method in columns for level in LEVELS]
    measured = [figure for method in columns for figure in columns[method]]
    distance = mean([abs(one - other) for one, other in zip(wanted, measured, strict=True)])
    train = network["train"]
    return Calibrated(
        network["start"],
        network["data"]["batch_size"],
        train["epochs"],
        bias,
        trained,
        columns["hard"],
        columns["retrained"],
        soft,
        distance,
    )


# --- verdicts ---


@dataclass(frozen=True)
class Verdict:
    claim: str
    verdict: str  # "holds", "holds before removal only", "does not hold", "not measured"
    why: str


def verdicts(results: Results) -> list[Verdict]:
    """The claims of the paper's abstract, each judged by the means over seeds."""
    return [_accuracy(results), _gain(results, "decoder", 17.0), _gain(results, "latent", 60.0), _rise(results)]


def _accuracy(results: Results) -> Verdict:
    claim = "Classification: over 60 % accuracy where hard pruning is at the level of guessing (MNIST, 95 and 97 %)."
    hard = line(results, "classification", "mnist", "retrained")
    after = line(results, "classification", "mnist", "soft", COMPLETE)
    early = line(results, "classification", "mnist", "soft", 0.5, before=True)
    if not hard or not after:
        return _unmeasured(claim)
    guessing = [level for level in hard if level in after and mean(hard[level]) < 15]
    shown = "; ".join(
        f"{level:.0%}: retrained {mean(hard[level]):.1f} %, soft after removal {mean(after[level]):.1f} %"
        + (f", before the removal of a decay that stops at 0.5 {mean(early[level]):.1f} %" if level in early else "")
        for level in (0.95, 0.97, 0.99)
        if level in hard and level in after
    )
    return Verdict(
        claim,
        _judged(
            any(mean(after[level]) > 60 for level in guessing),
            any(mean(early[level]) > 60 for level in early if level in guessing or mean(hard[level]) < 60),
        ),
        shown + ".",
    )


def _gain(results: Results, experiment: str, wanted: float) -> Verdict:
    """Up to `wanted` percent less loss than hard pruning with retraining."""
    where = {"decoder": "Decoder", "latent": "Latent space"}[experiment]
    claim = f"{where}: up to {wanted:g} % less loss than hard pruning with retraining."
    gains: dict[str, tuple[float, float]] = {}
    for dataset in ("mnist", "fashion_mnist", "cifar10"):
        hard = line(results, experiment, dataset, "retrained")
        after = line(results, experiment, dataset, "soft", COMPLETE)
        early = line(results, experiment, dataset, "soft", 0.5, before=True)
        if after:
            gains[dataset] = (_best(hard, after), _best(hard, early))
    if not gains:
        return _unmeasured(claim)
    why = "; ".join(
        f"{NAMES[dataset]}: {after:.1f} % after removal"
        + (f", {early:.1f} % before the removal of a decay that stops at 0.5" if early > -100 else "")
        for dataset, (after, early) in gains.items()
    )
    best = [max(gain) for gain in zip(*gains.values(), strict=True)]
    return Verdict(claim, _judged(best[0] >= wanted, best[1] >= wanted), f"At the best level, {why}.")


def _best(hard: Line, soft: Line) -> float:
    gains = [100 * (1 - mean(soft[level]) / mean(hard[level])) for level in soft if level in hard]
    return max(gains, default=-1000.0)


def _rise(results: Results) -> Verdict:
    claim = "Latent space: 8.4 % more loss than the dense network at 95 % pruned (MNIST)."
    start = dense(results, "latent", "mnist")
    after = line(results, "latent", "mnist", "soft", COMPLETE).get(0.95)
    early = line(results, "latent", "mnist", "soft", 0.5, before=True).get(0.95)
    everything = line(results, "latent", "mnist", "soft_all", COMPLETE).get(0.95)
    if not start or not after:
        return _unmeasured(claim)
    rises = {
        name: 100 * (mean(values) / mean(start) - 1)
        for name, values in (("after", after), ("early", early), ("all", everything))
        if values
    }
    why = f"After removal {rises['after']:+.0f} %"
    if "all" in rises:
        why += f", with everything trainable {rises['all']:+.0f} %"
    if "early" in rises:
        why += f"; before the removal of a decay that stops at 0.5 {rises['early']:+.0f} %"
    return Verdict(claim, _judged(rises["after"] <= 8.4, rises.get("early", 1000.0) <= 8.4), why + ".")


def _judged(after: bool, before: bool) -> str:
    return "holds" if after else "holds before removal only" if before else "does not hold"


def _unmeasured(claim: str) -> Verdict:
    return Verdict(claim, "not measured", "The cells it needs have not been run.")


NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR-10", "mnist_sample": "MNIST sample"}
