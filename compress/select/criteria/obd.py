"""Optimal brain damage (LeCun, Denker & Solla, "Optimal brain damage", 1990)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion, Samples, samples_option

if TYPE_CHECKING:
    from torch import Tensor

    from compress.select.scores import Scores
    from compress.select.scoring import Scoring
    from compress.select.targets import Target


def obd(weight: Tensor, fisher: Tensor) -> Tensor:
    """w^2 * h / 2, the rise of the loss at an optimum to second order.

    The empirical Fisher information, the mean of the squared gradients of single samples, approximates h, the diagonal
    of the Hessian.
    """
    return weight.detach().square() * fisher / 2


@dataclass(frozen=True)
class OBD(Criterion):
    """Prunes the smallest w^2 h / 2 first, with h the diagonal of the Fisher information (LeCun, 1990)."""

    words = ("obd",)
    needs_data = True
    needs_loss = True

    samples: Samples = samples_option(1000)

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        from compress.select import gradients
        from compress.select.scores import Scores

        places = [(target.module, target.name) for target in targets]
        with gradients.effective(places) as leaves:
            found = gradients.fisher(
                scoring.model, places, leaves, scoring.batches(self, self.samples), scoring.loss(self)
            )
        return [Scores(obd, target.parameter, fisher) for target, fisher in zip(targets, found, strict=True)]
