"""Soft pruning (Menzies & Siebert, eq. 1): what was chosen decays to zero while the rest trains."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from compress.errors import InputError
from compress.remove import decay as decays
from compress.remove.pruner import Pruner, Removal
from compress.select.choose import Scope
from compress.select.criteria import Criterion, magnitude
from compress.select.targets import TargetLike


class Soft(Removal):
    """One set, chosen at the start, whose mask falls along `decay`.

    learns: the weights underneath the falling mask go on learning, with the gradient of the product; equation 1
        keeps them as they are.
    """

    together = True

    def __init__(self, decay: decays.Decay, *, learns: bool = False) -> None:
        self.decay, self.steps, self.learns = decay, decay.steps, learns

    def advance(self, pruner: Pruner, step: int) -> None:
        pruner.fade_to(self.decay(step))


class SoftPruner(Pruner):
    """Chooses the entries that go, and lets them decay to zero while the rest trains.

    pruner = SoftPruner(model, ["decoder.*"], sparsity=0.9, steps=1000)
    for x, y in loader:
        loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad()
        pruner.step()
    pruner.finalize()
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Iterable[TargetLike] = ("*",),
        sparsity: float | None = None,
        *,
        steps: int | None = None,
        factor: float | None = None,
        decay: str | decays.Curve = "exponential",
        final: float = decays.GONE,
        criterion: Criterion = magnitude,
        scope: Scope = "global",
        min_keep: int | float | None = None,
        bias: bool = False,
        keep: Sequence[Tensor] | None = None,
        mask_gradients: bool = True,
    ) -> None:
        """
        Args:
            steps: the entries are exactly zero after so many calls of `step`; 0 removes them at once.
            factor: instead of `steps`, the x of eq. 1, for the exponential decay.
            decay: the curve, by name or as a function of the progress; see `compress.remove.decay.over`.
            final: the share of its start at which an exponential decay is cut.

        The other arguments, and errors, are those of `compress.remove.pruner.Pruner`.
        """
        self.decay = _decay(steps, factor, decay, final)
        super().__init__(
            model,
            targets,
            sparsity,
            removal=Soft(self.decay),
            criterion=criterion,
            scope=scope,
            min_keep=min_keep,
            bias=bias,
            keep=keep,
            mask_gradients=mask_gradients,
        )


def _decay(steps: int | None, factor: float | None, curve: str | decays.Curve, final: float) -> decays.Decay:
    if (steps is None) == (factor is None):
        raise InputError("give either steps=... (gone after so many steps) or factor=... (the x of eq. 1)")
    if steps is not None:
        return decays.over(steps, curve, final=final)
    assert factor is not None
    if curve != "exponential":
        raise InputError(f"factor={factor} belongs to the exponential decay; for another curve give steps=...")
    return decays.by_factor(factor, final=final)
