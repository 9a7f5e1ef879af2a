"""Hard pruning: chosen entries are zeroed at once, and training keeps them at zero."""

from dataclasses import dataclass

from compress.remove.removals.removal import Removal


@dataclass(frozen=True)
class Hard(Removal):
    """Selected entries become zero at once, before the retraining."""

    words = ("hard",)
