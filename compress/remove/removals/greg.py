"""Growing regularization (Wang et al., "Neural Pruning via Growing Regularization", 2021; GReg-1).

Chosen weights get an L2 penalty that grows until they are near zero, and are cut then. The penalty acts on the weights
directly, as AdamW's weight decay does, so that it means the same under every optimizer.
"""

from dataclasses import dataclass

from compress.options import option
from compress.remove.removals.removal import Driver, Removal, steps_option


@dataclass(frozen=True)
class GReg(Removal):
    """A penalty on the selected entries grows until they are set to zero (GReg-1; Wang, 2021).

    The penalty grows linearly from 0; after every step the selected weights are multiplied by 1 - penalty, and keep
    learning.
    """

    words = ("greg",)
    learns = True

    steps: int = steps_option("length of the removal; three quarters of the retraining if absent")
    ceiling: float = option("the final penalty: the share of a weight that one step removes", 0.05, gt=0, lt=1)

    def advance(self, driver: Driver, step: int) -> None:
        driver.shrink(1.0 - self.ceiling * step / self.steps)
