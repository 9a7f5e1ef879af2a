"""Scores that are computed a piece at a time, so that no tensor as large as the weights has to hold them."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from compress.errors import InputError
from compress.shards import is_sharded, like, local

PIECE = 1 << 17
"""Entries at a time: few enough to remain in a processor's cache from one operation to the next."""

ON_ACCELERATOR = 1 << 24
"""The same on an accelerator, where each piece costs some kernel launches, and Python waits for it several times."""


def piece_size(device: torch.device) -> int:
    """Entries at a time on a device."""
    return PIECE if device.type == "cpu" else ON_ACCELERATOR


class Scores:
    """The scores of one tensor's entries, computed again each time they are read.

    Scores(criteria.magnitude, weight)
    Scores(criteria.taylor, weight, mean_abs)
    """

    def __init__(self, compute: Callable[..., Tensor], *sources: Tensor) -> None:
        """
        Args:
            compute: an entry's score from the entries of `sources` at the same place and from nothing else, since it is
                given flat pieces of them. Larger = keep, any float dtype.
            sources: tensors of one shape, and of one placement if they are sharded: this process computes the scores
                of its part. One that is not contiguous is copied while it is read.

        Raises:
            InputError: shapes that differ.
        """
        shapes = {tuple(source.shape) for source in sources}
        if len(shapes) != 1:
            raise InputError(f"scores are computed entry by entry, from tensors of one shape, and not {sorted(shapes)}")
        parts = {tuple(local(source).shape) for source in sources}
        if len(parts) != 1:
            raise InputError(
                f"scores are computed entry by entry, from tensors of one placement: found {sorted(parts)}"
            )
        self._compute, self._sources = compute, sources

    @classmethod
    def of(cls, scores: "Tensor | Scores") -> "Scores":
        """`scores`, wrapped if it is a tensor."""
        return scores if isinstance(scores, Scores) else cls(lambda held: held, scores)

    @property
    def shape(self) -> torch.Size:
        return self._sources[0].shape

    @property
    def dtype(self) -> torch.dtype:
        return self._compute(*(local(source).new_empty(0) for source in self._sources)).dtype

    @property
    def device(self) -> torch.device:
        return self._sources[0].device

    @property
    def tensor(self) -> Tensor:
        """A tensor of the scores' shape and placement."""
        return next(filter(is_sharded, self._sources), self._sources[0])

    def numel(self) -> int:
        return self._sources[0].numel()

    def then(self, change: Callable[..., Tensor], *more: Tensor) -> "Scores":
        """change(score, entries of `more` at the same place), instead of the score."""
        compute, own = self._compute, len(self._sources)
        return Scores(lambda *all_: change(compute(*all_[:own]), *all_[own:]), *self._sources, *more)

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """(place in this process's flat part, scores of its entries), from the first to the last."""
        flat = self._flat()
        size = piece_size(flat[0].device)
        for start in range(0, flat[0].numel(), size):
            place = slice(start, start + size)
            yield place, self._compute(*(source[place] for source in flat))

    def at(self, places: Tensor | slice) -> Tensor:
        """Scores of the entries at these places (int64) of this process's flat part."""
        return self._compute(*(source[places] for source in self._flat()))

    def _flat(self) -> list[Tensor]:
        return [local(source).detach().reshape(-1) for source in self._sources]

    def at_once(self) -> Tensor:
        """All of them in one tensor, with the shape and placement of the sources."""
        part = local(self.tensor)
        found = [piece for _, piece in self.pieces()] or [part.new_empty(0, dtype=self.dtype)]
        return like(torch.cat(found).view(part.shape), self.tensor)


def removed_first(score: Tensor, removed: Tensor) -> Tensor:
    """The score, below all others where the entry is removed already."""
    return score.masked_fill(removed, -torch.inf)
