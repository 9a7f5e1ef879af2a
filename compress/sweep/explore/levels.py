"""The levels of a recipe's stages, which a search varies by the share that is left."""

from collections.abc import Sequence

from compress.errors import InputError
from compress.recipe import schema
from compress.run.pruning import stage_selection
from compress.run.setting import Setting
from compress.run.stage import check_stage, describe_target
from compress.select.pruned import Pruned
from compress.sweep.cells import Basis, prepare, require_expected, require_network
from compress.sweep.trained import Trained

STEPS = 8
"""Levels in each halving of the share that is left."""

HALVINGS = 7

MEASURES = {"sparsity": "sparsity", "params": "parameters left", "macs": "multiply-adds left"}


def at(stage: schema.Stage, left: float) -> schema.Stage:
    """The stage with the share `left` of its level's measure, in (0, 1]; rounded to six decimals."""
    measure, _ = stage.level
    return stage.model_copy(update={measure: round(1 - left if measure == "sparsity" else left, 6)})


def describe(stage: schema.Stage) -> str:
    measure, value = stage.level
    return f"{describe_target(stage)}: {MEASURES[measure]} {value:.4g}"


def check(recipe: schema.Recipe, trained: Trained, basis: Basis) -> list[int | None]:
    """Check before any time is spent that the stages can be run, with and without the held-out samples.

    Returns:
        For each stage, the number of nodes if its target is a single layer of nodes, by sparsity; else None.

    Raises:
        InputError: data, model or stages do not fit, the network is not what the recipe expects, or a stage's level is
            not a single number.
    """
    for number, stage in enumerate(recipe.stages):
        if stage.layers is not None:
            raise InputError(
                f"stages.{number}.layers: a search varies one level of each stage; give it a sparsity instead, "
                "or leave the stage to `compress apply`"
            )
    model = require_network(trained, basis, recipe.seed)
    sizes: list[int | None] = []
    for tuning in (True, False):
        setting, sketch = prepare(basis, recipe.seed, tuning=tuning), Pruned()
        for number, stage in enumerate(recipe.stages):
            check_stage(model, stage, number, setting, pruned=sketch)
            if tuning:
                sizes.append(_width(stage, number, trained, basis, setting))
    require_expected(trained, basis, recipe.seed)
    return sizes


def grid(width: int | None) -> list[float]:
    """Shares left, falling: every number of nodes of a single layer, or eight in each halving down to 0.8 %."""
    if width is not None:
        return [count / width for count in range(width - 1, 0, -1)]
    return [round(2 ** (-step / STEPS), 4) for step in range(1, STEPS * HALVINGS + 1)]


def halvings(width: int) -> list[float]:
    """A few numbers of nodes of a single layer, as shares: two in each halving, from all but one on."""
    counts = {max(1, round(width * 2 ** (-step / 2))) for step in range(1, 2 * width.bit_length())}
    return [count / width for count in sorted(counts, reverse=True)]


def _width(stage: schema.Stage, number: int, trained: Trained, basis: Basis, setting: Setting) -> int | None:
    if not isinstance(stage.target, schema.Nodes) or stage.level[0] != "sparsity":
        return None
    # A separate network, since principal_axes modifies it.
    model = require_network(trained, basis, basis.recipe.seed)
    sizes: Sequence[int] = list(stage_selection(model, stage, number, Pruned(), setting).layers.values())
    return sizes[0] if len(sizes) == 1 else None
