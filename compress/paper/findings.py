"""Evaluate the cells: means over seeds, the nearest calibration, and a verdict on each claim."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compress.paper import printed
from compress.paper.experiments import COMPLETE
from compress.train.metrics import headline

Results = Mapping[str, Any]
Line = dict[float, list[float]]  # level -> a value for every seed


def line(
    results: Results, experiment: str, dataset: str, method: str, final: float | None = None, *, before: bool = False
) -> Line:
    """Accuracies in percent or losses in 10^-3 after removal (or `before` it), of one method at all measured levels."""
    found: Line = defaultdict(list)
    for (level, _), value in points(results, experiment, dataset, method, final, before=before).items():
        found[level].append(value)
    return dict(sorted(found.items()))


def points(
    results: Results, experiment: str, dataset: str, method: str, final: float | None = None, *, before: bool = False
) -> dict[tuple[float, int], float]:
    """As `line`: a figure for every level and seed, in the order of the cells."""
    found = {}
    for cell in results["cells"]:
        where = (cell["experiment"], cell["dataset"], cell["method"], cell["final"])
        if where == (experiment, dataset, method, final):
            result = cell["result"]
            measured = (
                result["before_removal" if before else "after_removal"]
                if cell["stage"] is not None
                else result["dense"]
            )
            found[cell["level"], cell["seed"]] = headline(measured)
    return found


def dense(results: Results, experiment: str, dataset: str) -> list[float]:
    return line(results, experiment, dataset, "dense").get(0.0, [])


def mean(values: list[float]) -> float:
    return statistics.fmean(values)


def spread(values: list[float]) -> float:
    """The sample standard deviation; 0 for a single seed."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


# --- the networks nearest to Table I ---


@dataclass(frozen=True)
class Calibrated:
    """One way to train and prune the classifier, and the distance of its hard columns from Table I's."""

    start: str
    batch_size: int
    epochs: int
    bias: bool
    dense: float
    hard: tuple[float, ...]  # percent at 90, 95 and 97 % pruned
    hard_on_training: tuple[float, ...]  # on the training images; all others are on the test images
    retrained: tuple[float, ...]
    soft: Mapping[float, Mapping[str, tuple[float, ...]]]  # final -> before/after -> percent
    distance: float  # mean |difference| to Table I, hard and retrained, in points


LEVELS = (0.9, 0.95, 0.97)


def calibrated(results: Results) -> list[Calibrated]:
    """All settings whose six hard cells exist, the nearest to the paper first."""
    groups: dict[tuple[str, bool], dict[Any, Any]] = defaultdict(dict)
    trained: dict[str, float] = {}
    for cell in results["cells"]:
        if cell["experiment"] != "calibration":
            continue
        if cell["stage"] is None:
            trained[cell["network"]] = headline(cell["result"]["dense"])
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
        method: tuple(headline(cells[method, None, level]["after_removal"]) for level in LEVELS)
        for method in ("hard", "retrained")
    }
    finals = {final for method, final, _ in cells if method == "soft"}
    soft = {
        final: {
            when: tuple(headline(cells["soft", final, level][f"{when}_removal"]) for level in LEVELS)
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
        tuple(headline(cells["hard", None, level]["training_images"]) for level in LEVELS),
        columns["retrained"],
        soft,
        distance,
    )


# --- verdicts ---

GUESSING = 15.0
"""The percentage of correct answers below which ten classes count as guessed."""


@dataclass(frozen=True)
class Verdict:
    claim: str
    verdict: str  # "holds", "holds before removal only", "does not hold", "not measured"
    why: tuple[str, ...]  # what was measured, one sentence each


def verdicts(results: Results) -> list[Verdict]:
    """The claims of the paper's abstract, each judged by the means over seeds."""
    return [_accuracy(results), _gain(results, "decoder", 17.0), _gain(results, "latent", 60.0), _rise(results)]


def _accuracy(results: Results) -> Verdict:
    """Judged where hard pruning guesses: in the trained classifier, and in the one nearest to Table I."""
    claim = "Classification: over 60 % accuracy where hard pruning is at the level of guessing (MNIST)."
    trained = {
        level: (mean(hard), mean(after[level]), None if level not in early else mean(early[level]))
        for after in [line(results, "classification", "mnist", "soft", COMPLETE)]
        for early in [line(results, "classification", "mnist", "soft", 0.5, before=True)]
        for level, hard in line(results, "classification", "mnist", "retrained").items()
        if level in after
    }
    brief: dict[float, tuple[float, float, float | None]] = {}
    if near := next((one for one in calibrated(results) if {COMPLETE, 0.5} <= set(one.soft)), None):
        columns = zip(near.retrained, near.soft[COMPLETE]["after"], near.soft[0.5]["before"], strict=True)
        brief = dict(zip(LEVELS, columns, strict=True))
    guessing = [row for rows in (trained, brief) for row in rows.values() if row[0] < GUESSING]
    if not guessing:
        return _unmeasured(claim)
    reasons = [
        f"{network}, {100 * level:g} % pruned: retrained {hard:.1f} %, soft after removal {after:.1f} %"
        + ("" if early is None else f", decay to 0.5 before removal {early:.1f} %")
        + "."
        for network, rows in (("Trained network", trained), ("Briefly trained network, near Table I", brief))
        for level, (hard, after, early) in rows.items()
        if level >= 0.95
    ]
    verdict = _judged(any(after > 60 for _, after, _ in guessing), any((early or 0) > 60 for _, _, early in guessing))
    return Verdict(claim, verdict, tuple(reasons))


def _gain(results: Results, experiment: str, wanted: float) -> Verdict:
    """Up to `wanted` percent less loss than hard pruning with retraining."""
    where, paper = {
        "decoder": ("Decoder", printed.DECODER_GAIN),
        "latent": ("Latent space", printed.LATENT_GAIN),
    }[experiment]
    claim = f"{where}: up to {wanted:g} % less loss than hard pruning with retraining."
    gains: dict[str, tuple[float, float | None]] = {}
    for dataset in ("mnist", "fashion_mnist", "cifar10"):
        hard = line(results, experiment, dataset, "retrained")
        after = _best(hard, line(results, experiment, dataset, "soft", COMPLETE))
        if after is not None:
            gains[dataset] = after, _best(hard, line(results, experiment, dataset, "soft", 0.5, before=True))
    if not gains:
        return _unmeasured(claim)
    reasons = [
        f"{NAMES[dataset]} (the paper: {paper[dataset]:g} %): {after:.1f} % after removal"
        + ("" if early is None else f", {early:.1f} % with a decay to 0.5 before removal")
        + "."
        for dataset, (after, early) in gains.items()
    ]
    verdict = _judged(
        any(after >= wanted for after, _ in gains.values()), any((early or 0) >= wanted for _, early in gains.values())
    )
    return Verdict(claim, verdict, ("Less loss at the best level:", *reasons))


def _best(hard: Line, soft: Line) -> float | None:
    return max((100 * (1 - mean(soft[level]) / mean(hard[level])) for level in soft if level in hard), default=None)


def _rise(results: Results) -> Verdict:
    claimed, _ = printed.LATENT_RISE["mnist"]
    claim = f"Latent space: {claimed:g} % more loss than the dense network at 95 % pruned (MNIST)."
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
    reasons = [f"After removal {rises['after']:+.0f} %."]
    if "all" in rises:
        reasons.append(f"After removal, with everything trainable, {rises['all']:+.0f} %.")
    if "early" in rises:
        reasons.append(f"With a decay to 0.5, before removal, {rises['early']:+.0f} %.")
    verdict = _judged(rises["after"] <= claimed, rises.get("early", 1000.0) <= claimed)
    return Verdict(claim, verdict, tuple(reasons))


def _judged(after: bool, before: bool) -> str:
    return "holds" if after else "holds before removal only" if before else "does not hold"


def _unmeasured(claim: str) -> Verdict:
    return Verdict(claim, "not measured", ("The cells it needs have not been run.",))


NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR-10", "mnist_sample": "MNIST sample"}
