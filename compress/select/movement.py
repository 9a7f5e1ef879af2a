"""Movement: where a weight has been going since the removal began, instead of how large it is.

Sanh, Wolf & Rush, "Movement pruning: adaptive sparsity by fine-tuning", 2020.
"""

import torch
from torch import Tensor


class Movement:
    """A watcher for `compress.remove.masks.watch`: `score` is the sum of -w * g over all training steps so far.

    g is the gradient of the weight as it acts. A step of plain descent moves w by -g: what moves towards zero has a
    negative score and goes first, what moves away from it stays.
    """

    def __init__(self, like: Tensor) -> None:
        self.score = torch.zeros_like(like)

    @torch.no_grad()
    def __call__(self, weight: Tensor, slope: Tensor) -> None:
        self.score.addcmul_(weight, slope, value=-1.0)
