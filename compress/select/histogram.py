"""Histograms of the scores of kept and pruned entries, for the results."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from compress.results import Histogram
from compress.select.scores import Scores
from compress.shards import Reducer, local

BINS = 40
SKEWED = 10
"""With a highest score of more than this times the mean, bins of equal width would be empty except for one."""


def histogram(scores: Sequence[Tensor | Scores], keep: Sequence[Tensor]) -> Histogram | None:
    """Count the scores of tensors that were ranked together, in two passes over them, a piece at a time.

    Args:
        scores: those that the choice saw; minus infinity for entries that were pruned earlier.
        keep: bool tensors of their shapes, True = keep.

    Returns:
        {"scale": "linear" or "log", "from", "to": where the `BINS` bins of equal width on that scale begin and end,
        "kept", "gone": counts by bin, "earlier": how many were pruned earlier, "threshold": the highest pruned score,
        absent where nothing is pruned}. The first bin of a log scale also counts all lower scores, zeros included. None
        where all scores are the same.
    """
    ranked = [Scores.of(score) for score in scores]
    reducer = Reducer.of(keep)
    counted = [pair for pair in zip(ranked, keep, strict=True) if reducer.counts(pair[0].tensor)]
    seen = _Seen()
    for score, kept in _pieces(counted):
        seen.add(score, kept)
    seen.add_up(reducer)
    if not seen.low < seen.high:
        return None
    skewed = seen.low >= 0 and seen.high > SKEWED * seen.total / seen.count
    # A decade at least, where a single score is above zero.
    start = max(min(seen.positive, seen.high / 10), seen.high * 1e-8) if skewed else min(seen.low, 0.0)
    counts = torch.zeros(2 * BINS, dtype=torch.int64)
    for score, kept in _pieces(counted):
        counts += torch.bincount(2 * _bins(score, start, seen.high, skewed) + kept, minlength=2 * BINS).cpu()
    counts = reducer.add(counts)
    found: Histogram = {
        "scale": "log" if skewed else "linear",
        "from": start,
        "to": seen.high,
        "kept": counts[1::2].tolist(),
        "gone": counts[::2].tolist(),
        "earlier": sum(score.numel() for score in ranked) - seen.count,
    }
    if math.isfinite(seen.cut):
        found["threshold"] = seen.cut
    return found


class _Seen:
    """Extremes and sum of the scores so far."""

    low, positive, high, cut, total, count = math.inf, math.inf, -math.inf, -math.inf, 0.0, 0

    def add(self, score: Tensor, kept: Tensor) -> None:
        """`score`, of at least one entry; the mask says which are kept."""
        positive, pruned = score.masked_fill(score <= 0, math.inf), score.masked_fill(kept, -math.inf)
        # In one copy, for which Python waits where the scores are on an accelerator.
        found = torch.stack([score.min(), score.max(), positive.min(), pruned.max(), score.sum()]).tolist()
        self.low, self.high = min(self.low, found[0]), max(self.high, found[1])
        self.positive, self.cut = min(self.positive, found[2]), max(self.cut, found[3])
        self.total, self.count = self.total + found[4], self.count + len(score)

    def add_up(self, reducer: Reducer) -> None:
        """With what the other processes have seen."""
        ends = torch.tensor([-self.low, -self.positive, self.high, self.cut], dtype=torch.float64)
        low, positive, self.high, self.cut = reducer.largest(ends).tolist()
        self.low, self.positive = -low, -positive
        self.total = float(reducer.add(torch.tensor(self.total, dtype=torch.float64)))
        self.count = int(reducer.add(torch.tensor(self.count)))


def _pieces(counted: Sequence[tuple[Scores, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The finite scores (float64 or float32) and which are kept, never empty."""
    for ranked, mask in counted:
        flat = local(mask).reshape(-1)
        for place, piece in ranked.pieces():
            score, kept = piece.to(torch.promote_types(piece.dtype, torch.float32)), flat[place]
            finite = score.isfinite()
            if not finite.all():  # picking takes as long as all the rest
                score, kept = score[finite], kept[finite]
            if len(score):
                yield score, kept


def _bins(score: Tensor, start: float, end: float, log: bool) -> Tensor:
    """int64, in [0, BINS)."""
    if log:
        score, start, end = score.clamp(min=start).log(), math.log(start), math.log(end)
    return ((score - start) * (BINS / (end - start))).long().clamp_(0, BINS - 1)
