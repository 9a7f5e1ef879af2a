"""Growing regularization (Wang et al., "Neural Pruning via Growing Regularization", 2021; GReg-1).

What was chosen gets an L2 penalty that grows until it is driven out, and is cut then. The penalty acts on the weights
directly, as AdamW's weight decay does, so that it means the same under every optimizer.
"""

from compress.remove.pruner import Pruner, Removal


class GrowingPenalty(Removal):
    """One set, chosen at the start, multiplied by 1 - penalty after every step while it goes on learning.

    Args:
        steps: the penalty grows linearly from 0 to `ceiling` over so many steps; then the set is cut.
        ceiling: the last penalty, in (0, 1).
    """

    learns = True

    def __init__(self, steps: int, *, ceiling: float = 0.05) -> None:
        self.steps, self.ceiling = steps, ceiling

    def advance(self, pruner: Pruner, step: int) -> None:
        pruner.shrink(1.0 - self.ceiling * step / self.steps)
