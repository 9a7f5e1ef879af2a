"""Histograms of the scores of kept and pruned entries, for the results."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compress.results import Histogram
from compress.select.scores import Scores
from compress.shards import Reducer, local

BINS = 40
SAMPLE = 1 << 18
"""The most entries that are counted. The standard error of a share of them is 0.1 percentage points at most."""

SKEWED = 10
"""With a highest score of more than this times the mean, bins of equal width would be empty except for one."""


def histogram(scores: Sequence[Tensor | Scores], keep: Sequence[Tensor]) -> Histogram | None:
    """Count the scores of tensors that were ranked together: of all entries, or of a sample of `SAMPLE` of them.

    Args:
        scores: those that the choice saw; minus infinity for entries that were pruned earlier.
        keep: bool tensors of their shapes, True = keep.

    Returns:
        {"scale": "linear" or "log", "from", "to": where the `BINS` bins of equal width on that scale begin and end,
        "kept", "gone": counts by bin, "earlier": how many were pruned earlier, "threshold": the highest pruned score,
        absent where nothing is pruned, "sampled_from": how many entries there are, if they are not all counted}. The
        first bin of a log scale also counts all lower scores, zeros included. None where all scores are the same.
    """
    ranked = [Scores.of(score) for score in scores]
    reducer = Reducer.of(keep)
    entries = sum(score.numel() for score in ranked)
    counted = [pair for pair in zip(ranked, keep, strict=True) if reducer.counts(pair[0].tensor)]
    score, kept = _drawn(counted, SAMPLE / entries if entries > SAMPLE else 1.0)
    finite = score.isfinite()
    drawn, score, kept = len(score), score[finite], kept[finite]
    low, positive, high, cut = _ends(score, kept, reducer)
    if not low < high:
        return None
    sums = torch.tensor([float(score.sum()), len(score), drawn - len(score)], dtype=torch.float64)
    total, count, earlier = reducer.add(sums).tolist()
    skewed = low >= 0 and high > SKEWED * total / count
    # A decade at least, where a single score is above zero.
    start = max(min(positive, high / 10), high * 1e-8) if skewed else min(low, 0.0)
    counts = reducer.add(torch.bincount(2 * _bins(score, start, high, skewed) + kept, minlength=2 * BINS))
    found: Histogram = {
        "scale": "log" if skewed else "linear",
        "from": start,
        "to": high,
        "kept": counts[1::2].tolist(),
        "gone": counts[::2].tolist(),
        "earlier": int(earlier),
    }
    if math.isfinite(cut):
        found["threshold"] = cut
    if entries > SAMPLE:
        found["sampled_from"] = entries
    return found


def _drawn(counted: Sequence[tuple[Scores, Tensor]], share: float) -> tuple[Tensor, Tensor]:
    """Scores (float64 or float32) and which are kept, on the CPU: of a share of this process's entries of each tensor.

    One entry of each of equal stretches, so that no regular structure of a tensor is missed.
    """
    chance = torch.Generator().manual_seed(0)
    drawn, kept = [torch.empty(0)], [torch.empty(0, dtype=torch.bool)]
    for scores, mask in counted:
        flat = local(mask).reshape(-1)
        places: Tensor | slice = slice(None)
        if share < 1:
            stretches = torch.arange(round(share * len(flat)))
            within = torch.rand(len(stretches), dtype=torch.float64, generator=chance)
            places = ((stretches + within) * (len(flat) / max(1, len(stretches)))).long().to(flat.device)
        score = scores.at(places)
        drawn.append(score.to(torch.promote_types(score.dtype, torch.float32)).cpu())
        kept.append(flat[places].cpu())
    return torch.cat(drawn), torch.cat(kept)


def _ends(score: Tensor, kept: Tensor, reducer: Reducer) -> list[float]:
    """[lowest, lowest above zero, highest, highest pruned], infinite where there is none."""

    def highest(numbers: Tensor) -> float:
        return float(numbers.max()) if len(numbers) else -math.inf

    own = [highest(-score), highest(-score[score > 0]), highest(score), highest(score[~kept])]
    low, positive, high, cut = reducer.largest(torch.tensor(own, dtype=torch.float64)).tolist()
    return [-low, -positive, high, cut]


def _bins(score: Tensor, start: float, end: float, log: bool) -> Tensor:
    """int64, in [0, BINS)."""
    if log:
        score, start, end = score.clamp(min=start).log(), math.log(start), math.log(end)
    return ((score - start) * (BINS / (end - start))).long().clamp_(0, BINS - 1)
