"""Hard pruning: what is chosen is zeroed at once; whatever training follows only holds it at zero."""

from dataclasses import dataclass

from compress.remove.removals.removal import Removal


@dataclass(frozen=True)
class Hard(Removal):
    """Zero at once, before the retraining."""

    words = ("hard",)
