"""The settings of optimizers; without torch, since a recipe is checked without it."""

from dataclasses import dataclass
from typing import Literal

from compress.options import check

Optimizer = Literal["sgd", "adam", "adamw", "muon"]
LRSchedule = Literal["constant", "cosine", "linear"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Optimization:
    """An optimizer, its learning rate over time, and the precision of the forward pass.

    lr_schedule: spans the whole training; cosine and linear fall to zero at its end.
    warmup: over this share of the training, in [0, 1), the learning rate first rises to what the schedule says.
    precision: bfloat16 is torch's autocast; weights and optimizer keep float32.

    Raises:
        InputError: an unknown word, or a number out of its bounds.
    """

    optimizer: Optimizer = "adamw"
    lr: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    lr_schedule: LRSchedule = "constant"
    warmup: float = 0.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check("optimizer", self.optimizer, Optimizer)
        check("lr", self.lr, float, gt=0)
        check("momentum", self.momentum, float, ge=0, lt=1)
        check("weight_decay", self.weight_decay, float, ge=0)
        check("lr_schedule", self.lr_schedule, LRSchedule)
        check("warmup", self.warmup, float, ge=0, lt=1)
        check("precision", self.precision, Precision)

    @property
    def elementwise(self) -> bool:
        """Whether the update of a weight depends on its own gradients alone: Muon looks at the whole matrix."""
        return self.optimizer != "muon"
