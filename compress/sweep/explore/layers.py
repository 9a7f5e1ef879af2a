"""Cells of a sensitivity: a trained network with one layer, or all of them, pruned at once and not retrained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch

from compress.errors import TrainingError
from compress.graph.trace import tensors_of
from compress.ranking import MetricKind
from compress.recipe import schema
from compress.results import Metric
from compress.run.building import build_task
from compress.run.pruning import stage_selection
from compress.select.pruned import Pruned
from compress.sweep.cells import Basis, determinants, network, prepare
from compress.sweep.explore import bounds
from compress.sweep.jobs import fingerprint
from compress.sweep.trained import Trained
from compress.sweep_results import AllTogether, BoundKind, LayerCurve, LayerPoint
from compress.tasks import ranking

REVISION = 2  # raised when the code computes something different

HALVINGS = 12
"""Halvings of the interval, on a logarithmic scale, that contains the loss each layer alone may cause."""

SLOPE = 0.01
"""The least cost of a whole layer, as a share of the dense network's loss: flat curves rise at least this much."""

Points = tuple[tuple[float, float], ...]  # (sparsity, loss), by rising sparsity from 0


@dataclass(frozen=True)
class OneLayer:
    """The metric on the held-out samples over the sparsity of one layer.

    stage: its target is that layer alone. number: the stage's place in its recipe.
    shares: sparsities; if two of them prune the same number, the second is left out.
    """

    trained: Trained
    stage: schema.Stage
    number: int
    seed: int
    shares: tuple[float, ...]

    def key(self, basis: Basis) -> str:
        return fingerprint(_determinants(self, basis) | {"sensitivity": "layer", "shares": list(self.shares)})

    def run(self, basis: Basis) -> LayerCurve:
        """`curve`: (sparsity, number `left`, metric); the metric is None if the loss is not finite."""
        pruning = _Pruning(self, basis)
        (layer,) = pruning.names
        curve: dict[int, LayerPoint] = {}
        for share in self.shares:
            metric = pruning.metric({layer: share})
            pruned, size = pruning.chosen.count
            curve.setdefault(size - pruned, {"sparsity": pruned / size, "left": size - pruned, "metric": metric})
        return {"size": size, "curve": list(curve.values())}


@dataclass(frozen=True)
class AllLayers:
    """How far all layers can be pruned together, such that each one alone would raise the loss to the same level.

    curves: the results of `OneLayer`, by layer. limit: the tolerated maximum of a `kind`, for all together.
    """

    trained: Trained
    stage: schema.Stage
    number: int
    seed: int
    curves: tuple[tuple[str, Points], ...]
    kind: BoundKind
    limit: float

    def key(self, basis: Basis) -> str:
        own = {"curves": self.curves, "kind": self.kind, "limit": self.limit}
        return fingerprint(_determinants(self, basis) | {"sensitivity": "all"} | own)

    def run(self, basis: Basis) -> AllTogether:
        """The `shares` by layer, the `metric` with all of them, and `alone`: the loss that each may cause."""
        pruning, ranked = _Pruning(self, basis), ranking(build_task(basis.recipe.task))
        nodes = isinstance(self.stage.target, schema.Nodes)
        low = self.curves[0][1][0][1]  # the dense network's loss, with nothing pruned
        best: AllTogether = {"shares": {layer: 0.0 for layer, _ in self.curves}, "metric": None, "alone": low}

        def keeps(level: float) -> bool:
            shares = {
                layer: whole(share_at(points, level), size if nodes else None)
                for (layer, points), size in zip(self.curves, pruning.chosen.layers.values(), strict=True)
            }
            # A criterion that replaces a layer by others keeps the order.
            metric = pruning.metric(dict(zip(pruning.names, shares.values(), strict=True)))
            if badness(metric, self.kind, ranked) > self.limit:
                return False
            best["shares"], best["metric"], best["alone"] = shares, metric, level
            return True

        high = max(loss for _, points in self.curves for _, loss in points if math.isfinite(loss)) + SLOPE * low
        keeps(low)
        if not keeps(high):
            for _ in range(HALVINGS):
                middle = math.sqrt(low * high)
                low, high = (middle, high) if keeps(middle) else (low, middle)
        return best


def share_at(points: Points, level: float) -> float:
    """The sparsity at which a curve first reaches the loss `level`, interpolated linearly.

    The curve is treated as never falling, and rising by at least `SLOPE`: the result is 0 at the dense network's loss,
    and grows with `level`.
    """
    least, highest, share = SLOPE * points[0][1], -math.inf, 0.0
    rising = []
    for sparsity, loss in points:
        highest = max(highest, loss)
        rising.append((sparsity, highest + least * sparsity))
    for (start, below), (end, above) in pairwise(rising):
        if above > level:
            part = (level - below) / (above - below) if math.isfinite(above) else 0.0
            return start + max(0.0, part) * (end - start)
        share = end
    return share


def whole(share: float, nodes: int | None) -> float:
    """The share rounded down to four decimals or, for a layer of `nodes`, to a whole number of nodes."""
    unit = nodes or 10_000
    return round(math.floor(unit * share + 1e-6) / unit, 6)


def badness(metric: Metric | None, kind: BoundKind, ranked: MetricKind) -> float:
    """Like `bounds.badness`; infinite without a metric."""
    return math.inf if metric is None else bounds.badness(kind, metric, ranked)


def _determinants(cell: OneLayer | AllLayers, basis: Basis) -> dict[str, object]:
    unused = {"sparsity", "layers", "params", "macs", "scope", "removal", "retrain", "regrow"}
    return {
        **determinants(cell.trained, basis, tuning=True),
        "revision": REVISION,
        "stage": cell.stage.model_dump(mode="json", exclude_defaults=True, exclude=unused),
        "number": cell.number,
        "seed": cell.seed,
    }


class _Pruning:
    """The cell's network: its layers are pruned by individual shares, measured, and restored bit for bit."""

    def __init__(self, cell: OneLayer | AllLayers, basis: Basis) -> None:
        torch.manual_seed(cell.seed)
        self._setting = prepare(basis, cell.seed, tuning=True)
        self._model = network(cell.trained, basis, cell.seed)
        self.chosen = stage_selection(self._model, cell.stage, cell.number, Pruned(), self._setting)
        self._masks, self._compensates = self.chosen.ranked(), cell.stage.compensates
        self._whole = {name: value.detach().clone() for name, value in tensors_of(self._model).items()}

    @property
    def names(self) -> list[str]:
        return list(self.chosen.names)

    @torch.no_grad()
    def metric(self, shares: Mapping[str, float]) -> Metric | None:
        """The metric on the held-out samples at these sparsities; None if the loss is not finite."""
        try:
            masks = self._masks(shares)
            if self._compensates:
                self.chosen.compensate(masks)
            for name, keep in masks.items():
                self._model.get_parameter(name).masked_fill_(~keep, 0.0)
            return self._setting.evaluate(self._model)
        except TrainingError:
            return None
        finally:
            for name, tensor in tensors_of(self._model).items():
                tensor.copy_(self._whole[name])
