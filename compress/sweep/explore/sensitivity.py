"""Measure how much each layer tolerates: the metric over its sparsity without retraining, and all layers together.

It is measured on held-out samples; the test samples are not used.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from compress.errors import InputError
from compress.ranking import MetricKind
from compress.recipe import schema
from compress.results import KindEntry
from compress.run.building import build_task
from compress.run.pruning import stage_selection
from compress.run.stage import check_stage, describe_target
from compress.select.pruned import Pruned
from compress.sweep.cell_store import Cells
from compress.sweep.cells import (
    Bar,
    Basis,
    compute,
    described,
    prepare,
    require_expected,
    require_network,
    silent,
    written,
)
from compress.sweep.engines import ONE, Workers
from compress.sweep.explore import bounds
from compress.sweep.explore.bounds import Bound, quality, shown
from compress.sweep.explore.front import knee
from compress.sweep.explore.layers import AllLayers, OneLayer, badness
from compress.sweep.explore.leakage import warn_if_familiar
from compress.sweep.trained import Trained
from compress.sweep_results import BoundKind, LayerCurve, LayerPoint, SensitiveLayer, Sensitivity, ShownLayerPoint
from compress.tasks import ranking

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)

MOST_SIZES = 64
"""The most sizes tried for a target that is one layer of nodes."""


def sensitivity(
    recipe: schema.Recipe,
    model: Path,
    tolerance: Bound,
    data_root: Path,
    cache: Path,
    *,
    number: int = 0,
    shares: Sequence[float] = (),
    workers: Workers = ONE,
    device: str = "cpu",
    bar: Bar = silent,
) -> Sensitivity:
    """Compute the cells that are not in the folder `cache` yet, and return the content of results.json.

    Args:
        number: the stage of the recipe; the others are not used.
        shares: the sparsities to try; if empty, `SHARES` or every size of a single layer of nodes.

    Raises:
        InputError: data, model, stage or tolerance do not fit; nothing has been run.
        SweepError: cells failed. Finished cells are kept.
    """
    if number >= len(recipe.stages):
        raise InputError(f"--stage {number}: {recipe.name} has the stages 0 to {len(recipe.stages) - 1}")
    ranked = ranking(build_task(recipe.task))
    if isinstance(recipe.stages[number].target, schema.Branches):
        raise InputError(
            f"--stage {number}: {recipe.name} removes branches there, each as a whole; sensitivity is to shares of "
            "weights or nodes"
        )
    stage, basis, trained = recipe.stages[number], Basis(recipe, data_root, device), Trained.of(model)
    sizes = _layers(trained, basis, stage, number)
    require_expected(trained, basis, recipe.seed)
    nodes = isinstance(stage.target, schema.Nodes)
    tried = tuple(sorted({0.0, *shares})) if shares else _shares(sizes, nodes=nodes)
    of_one = [OneLayer(trained, _only(stage, layer), number, recipe.seed, tried) for layer in sizes]
    with Cells(cache) as cells:
        with bar("sensitivity") as on_progress:
            found = compute(list(zip(sizes, of_one, strict=True)), basis, cells, workers, on_progress)
        dense = found[0]["curve"][0]["metric"]
        if dense is None:
            raise InputError(
                f"{model}: the network's loss on the held-out samples is not finite; use weights from before "
                "the training diverged"
            )
        warn_if_familiar(tolerance, dense, trained, basis, cells)
        kind, limit = tolerance.kind, tolerance.limit(bounds.badness(tolerance.kind, dense, ranked), ranked)
        # By the loss whatever ranks, since an accuracy is flat over much of the curve.
        curves = tuple(
            (layer, tuple((point["sparsity"], badness(point["metric"], "loss", ranked)) for point in result["curve"]))
            for layer, result in zip(sizes, found, strict=True)
        )
        every = AllLayers(trained, _plain(stage), number, recipe.seed, curves, kind, limit)
        with bar("all together") as on_progress:
            (together,) = compute([("all layers together", every)], basis, cells, ONE, on_progress)
    return {
        **described(basis),
        "metric": written(quality(kind, ranked)),
        "stage": number,
        "target": describe_target(stage),
        "criterion": cast(KindEntry, stage.criterion.model_dump(mode="json")),
        "pruned": "nodes" if nodes else "weights",
        "seed": recipe.seed,
        "tolerated": {"text": tolerance.text, "kind": kind, "limit": limit},
        "dense": {"metric": dense, "value": shown(kind, dense, ranked)},
        "knee": _knee(found[0]["curve"]) if nodes and len(sizes) == 1 else None,
        "layers": [
            _entry(layer, result, together["shares"][layer], kind, ranked)
            for layer, result in zip(sizes, found, strict=True)
        ],
        "together": {
            "sparsity": sum(share * sizes[layer] for layer, share in together["shares"].items()) / sum(sizes.values()),
            "alone": together["alone"],
            "metric": together["metric"],
            "key": together["key"],
        },
    }


def recipe_with(recipe: schema.Recipe, results: Sensitivity) -> schema.Recipe | None:
    """The recipe with its stage's tolerated sparsities; None if nothing is tolerated."""
    shares = {layer["name"]: layer["share"] for layer in results["layers"]}
    if not any(shares.values()):
        return None
    number, stage = results["stage"], recipe.stages[results["stage"]]
    # A single layer gets a sparsity, which every criterion supports.
    level = {"sparsity": next(iter(shares.values()))} if len(shares) == 1 else {"layers": shares, "scope": "layer"}
    changed = _plain(stage).model_copy(update={"sparsity": None, **level})
    stages = (*recipe.stages[:number], changed, *recipe.stages[number + 1 :])
    return recipe.model_copy(update={"stages": stages})


def _layers(trained: Trained, basis: Basis, stage: schema.Stage, number: int) -> dict[str, int]:
    """The size of every layer that the stage's target matches, by name.

    Raises:
        InputError: the data, the network and the stage do not fit each other.
    """
    model = require_network(trained, basis, basis.recipe.seed)
    setting = prepare(basis, basis.recipe.seed, tuning=True)
    check_stage(model, stage, number, setting)
    if stage.criterion.kind != "principal_axes":
        return dict(stage_selection(model, stage, number, Pruned(), setting).layers)
    # The criterion replaces the layer by one with another name; the recipe needs the original name.
    by_norm = stage.model_copy(update={"criterion": schema.CRITERIA["magnitude"](kind="magnitude")})
    found = dict(stage_selection(model, by_norm, number, Pruned(), setting).layers)
    if len(found) > 1:
        raise InputError(
            f"principal_axes prunes a single layer, and {describe_target(stage)} matches {len(found)} "
            f"({', '.join(found)}); target one"
        )
    return found


def _shares(sizes: Mapping[str, int], *, nodes: bool) -> tuple[float, ...]:
    if not nodes or len(sizes) > 1:
        return SHARES
    (size,) = sizes.values()
    left = range(size, 0, -1) if size <= MOST_SIZES else _spread(size)
    return tuple(1 - count / size for count in left)


def _spread(size: int) -> Iterable[int]:
    """Whole numbers from `size` down to 1, spaced by roughly equal factors."""
    return sorted({round(size ** (step / (MOST_SIZES - 1))) for step in range(MOST_SIZES)}, reverse=True)


def _plain(stage: schema.Stage) -> schema.Stage:
    """The stage with a sparsity, whatever its own level is."""
    level: dict[str, object] = {"layers": None, "params": None, "macs": None, "sparsity": stage.goes}
    return stage.model_copy(update=level)


def _only(stage: schema.Stage, layer: str) -> schema.Stage:
    target = stage.target
    if isinstance(target, schema.Nodes):
        return _plain(stage).model_copy(update={"target": schema.Nodes(nodes=(layer,))})
    return _plain(stage).model_copy(update={"target": target.model_copy(update={"weights": (layer,)})})


def _knee(curve: Sequence[LayerPoint]) -> int | None:
    """The number of nodes left at the bend of the loss over the size."""
    points = sorted((point["left"], point["metric"]["loss"]) for point in curve if point["metric"] is not None)
    index = knee([left for left, _ in points], [loss for _, loss in points])
    return None if index is None else int(points[index][0])


def _entry(name: str, result: LayerCurve, share: float, kind: BoundKind, ranked: MetricKind) -> SensitiveLayer:
    valued: list[ShownLayerPoint] = [
        {**point, "value": None if point["metric"] is None else shown(kind, point["metric"], ranked)}
        for point in result["curve"]
    ]
    return {
        "name": name,
        "size": result["size"],
        "share": share,
        "curve": valued,
        "key": result["key"],
        "seconds": result["seconds"],
    }
