"""What a rehearsal knows of a stage before the run."""

from collections.abc import Sequence
from dataclasses import dataclass

from compress.recipe import schema
from compress.remove.removals import Removal
from compress.train.latents import Latent


@dataclass(frozen=True)
class Matched:
    """One parameter, or the nodes of one layer with everything coupled to them.

    goes: entries or nodes that are pruned after the stage, `earlier` of them by an earlier stage.
    layers: all layers that compute the nodes.
    """

    name: str
    of: int
    goes: int
    earlier: int
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rehearsed:
    """What a stage would do.

    samples: training samples that the criterion used here; `wanted` is the number in the stage. None: it uses none.
    even: the nodes were chosen by even scores instead of the criterion's scores, which would take too long.
    paths: all parameters with masks, earlier stages' included. trainable: patterns of the parameters that train.
    latent: the nodes that the stage shapes; None where it shapes none.
    analysis_seconds, choice_seconds: how long the stage's preparation and its choice took.
    """

    number: int
    stage: schema.Stage
    steps: int
    steps_per_epoch: int
    removal: Removal
    matched: tuple[Matched, ...]
    asked: float
    achieved: float
    samples: int | None
    wanted: int | None
    even: bool
    paths: Sequence[str]
    trainable: Sequence[str]
    latent: Latent | None
    analysis_seconds: float
    choice_seconds: float

    @property
    def pruned(self) -> int:
        return sum(found.goes for found in self.matched)

    @property
    def of(self) -> int:
        return sum(found.of for found in self.matched)
