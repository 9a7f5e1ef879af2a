"""The ramp of gradual pruning: how much of the final set is pruned (Zhu & Gupta, "To prune, or not to prune", 2017)."""


def level(progress: float) -> float:
    """The share of the final set that is pruned at this progress of the ramp, both in [0, 1]: cubic, steep at first."""
    return 1.0 - (1.0 - progress) ** 3


def progress_at(level: float) -> float:
    """The inverse of `level`; what rounding puts above 1 counts as 1."""
    return float(1.0 - max(0.0, 1.0 - level) ** (1 / 3))
