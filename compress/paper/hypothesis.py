"""Where the paper's hypothesis holds: soft removal against hard removal with retraining, for everything pruned."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.paper.experiments import COMPLETE
from compress.paper.findings import Results, mean, points
from compress.sweep.compare.summary import NOISE, paired_p

SUBJECTS: Mapping[str, str] = {
    "classification": "weights of classifiers",
    "classification_nodes": "nodes of classifiers",
    "decoder": "weights of decoders",
    "decoder_nodes": "nodes of decoders",
    "latent": "latent nodes",
}
"""What each experiment prunes."""


@dataclass(frozen=True)
class Gain:
    """What soft removal gains over hard removal with retraining.

    seeds: the mean over the levels for each seed, in points of accuracy, or in percent less loss.
    """

    seeds: tuple[float, ...]
    levels: tuple[float, ...]

    @property
    def p(self) -> float | None:
        """The p of a paired t-test over seeds; None for fewer than three."""
        return paired_p(self.seeds, [0.0] * len(self.seeds))

    @property
    def word(self) -> str:
        """Better, worse or no difference beyond the noise of the seeds; not tested for fewer than three."""
        if self.p is None:
            return "not tested"
        if self.p >= NOISE:
            return "no difference"
        return "better" if mean(list(self.seeds)) > 0 else "worse"


def gain(results: Results, experiment: str, dataset: str, *, before: bool = False) -> Gain | None:
    """Soft removal after a complete decay, or with a decay to 0.5 `before` removal; None if there are no cells.

    Each seed is compared with itself, at the levels that all its seeds have.
    """
    hard = points(results, experiment, dataset, "retrained")
    soft = points(results, experiment, dataset, "soft", 0.5 if before else COMPLETE, before=before)
    by_seed: dict[int, dict[float, float]] = defaultdict(dict)
    for level, seed in soft.keys() & hard.keys():
        by_seed[seed][level] = _better_by(hard[level, seed], soft[level, seed], in_points=_counts(experiment))
    levels = sorted({level for found in by_seed.values() for level in found})
    levels = [level for level in levels if all(level in found for found in by_seed.values())]
    if not levels:
        return None
    return Gain(tuple(mean([by_seed[seed][level] for level in levels]) for seed in sorted(by_seed)), tuple(levels))


def _better_by(hard: float, soft: float, *, in_points: bool) -> float:
    return soft - hard if in_points else 100 * (1 - soft / hard)


def _counts(experiment: str) -> bool:
    """Whether the figures are accuracies."""
    return experiment.startswith("classification")


def where_it_holds(after: Sequence[Gain | None], before: Sequence[Gain | None]) -> str:
    """The verdict on the hypothesis for one subject, from its data sets; `document` states the rule on the page."""
    words = [one.word for one in after if one is not None and one.word != "not tested"]
    if not words:
        return "not tested"
    if "better" in words:
        return "holds" if set(words) == {"better"} else "holds in part"
    early = [one for one in before if one is not None]
    leads = any(one.word == "better" or (one.word == "not tested" and mean(list(one.seeds)) > 0) for one in early)
    return "holds before removal only" if leads else "does not hold"
