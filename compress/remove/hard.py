"""Hard pruning: what is chosen goes at once; whatever training follows only holds it at zero."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from compress.remove.pruner import Pruner, Removal
from compress.select.choose import Scope
from compress.select.criteria import Criterion, magnitude
from compress.select.targets import TargetLike


class Hard(Removal):
    """Everything at once, before the first step."""

    steps = 0


class HardPruner(Pruner):
    """The paper's baseline, with the interface of `SoftPruner`."""

    def __init__(
        self,
        model: nn.Module,
        targets: Iterable[TargetLike] = ("*",),
        sparsity: float | None = None,
        *,
        criterion: Criterion = magnitude,
        scope: Scope = "global",
        min_keep: int | float | None = None,
        bias: bool = False,
        keep: Sequence[Tensor] | None = None,
        mask_gradients: bool = True,
    ) -> None:
        super().__init__(
            model,
            targets,
            sparsity,
            removal=Hard(),
            criterion=criterion,
            scope=scope,
            min_keep=min_keep,
            bias=bias,
            keep=keep,
            mask_gradients=mask_gradients,
        )
