"""The grid of a comparison: rivals, sparsities, learning rates and seeds, checked by the recipe's own schema."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from compress.errors import InputError, RecipeError
from compress.options import require_word
from compress.recipe import schema
from compress.recipe.loading import load_recipe
from compress.results import ScratchLength
from compress.run.inputs import making, require_model
from compress.sweep.trained import Trained
from compress.wording import count_of

RATES = (0.5, 1.0, 2.0, 4.0)
"""Factors on the recipe's learning rate, tried if no learning rates are named."""

SEEDS = 5


RIVALS = ("scratch",)
"""Rivals that prune nothing, by name."""


@dataclass(frozen=True)
class Rival:
    """One combination of criterion and removal: a stage whose sparsity and learning rate are free.

    scratch: instead of pruning, train the shape that this stage leaves from random weights: for the total of the dense
        training's epochs and the retraining's, or for the retraining's.
    epochs: of the training from scratch.
    """

    template: schema.Stage
    scratch: ScratchLength | None = None
    epochs: int = 0

    @property
    def parts(self) -> tuple[str, str, str]:
        """Removal, criterion and scope as people write them; the scope may be empty."""
        removal = _written(self.template.removal)
        if self.scratch:
            removal = f"from scratch, {count_of(self.epochs, 'epoch')}"
        return removal, _written(self.template.criterion), str(self.template.scope or "")

    @property
    def name(self) -> str:
        return ", ".join(filter(None, self.parts))

    @property
    def trains(self) -> bool:
        return self.template.retrain is not None and self.template.retrain.epochs > 0

    def stage(self, sparsity: float, rate: float | None) -> schema.Stage:
        """The stage at a level and a learning rate of the grid, checked by `plan`; None is the recipe's rate."""
        measure, _ = self.template.level
        changes: dict[str, object] = {measure: sparsity} if self.template.layers is None else {}
        if rate is not None and self.template.retrain is not None:
            changes["retrain"] = self.template.retrain.model_copy(update={"lr": rate})
        return self.template.model_copy(update=changes)


@dataclass(frozen=True)
class Grid:
    """Everything that a comparison varies.

    recipe: the source of model, data and task. number: the varied stage; the others are not run.
    rates: learning rates; None is the recipe's own.
    models: weights of the dense network, one file for all seeds or one for each.
    """

    recipe: schema.Recipe
    number: int
    rivals: tuple[Rival, ...]
    sparsities: tuple[float, ...]
    rates: tuple[float | None, ...]
    models: tuple[Trained, ...]
    seeds: tuple[int, ...]

    def tuned_like(self, rival: Rival) -> Rival:
        """The rival whose learning rate is taken: the long training from scratch has that of the retraining."""
        return self.rivals[0] if rival.scratch == "total" else rival

    def model(self, seed: int) -> Trained:
        return self.models[self.seeds.index(seed) % len(self.models)]


def plan(
    recipe: str | Path,
    models: Sequence[Path],
    *,
    removals: Sequence[str] = (),
    criteria: Sequence[str] = (),
    scopes: Sequence[str] = (),
    sparsities: Sequence[str] = (),
    rates: Sequence[str] = (),
    rivals: Sequence[str] = (),
    seeds: int | None = None,
    number: int = 0,
    changes: Sequence[str] = (),
) -> Grid:
    """The grid of all combinations of the named values; other settings are the recipe's.

    Args:
        removals: values of the stage's key, as YAML; likewise for the next four.
        criteria: values of `criterion`.
        scopes: values of `scope`.
        sparsities: values of `sparsity`.
        rivals: "scratch" adds the shape that the first combination leaves, trained from random weights.
        rates: learning rates; if empty, the recipe's own times `RATES`.
        seeds: the number of seeds, from the recipe's seed on; if None, the number of models, or 5 for a single one.
        changes: arguments of `--set`.

    Raises:
        InputError: the recipe has no such stage, a value is named twice, or models and seeds differ in number.
        RecipeError: everything that the recipe's schema refuses.
        CheckpointError: a model cannot be read.
    """
    base = load_recipe(recipe, changes)
    if number >= len(base.stages):
        raise InputError(f"--stage {number}: {base.name} has the stages 0 to {len(base.stages) - 1}")
    own = Rival(base.stages[number])
    if not rates and own.template.retrain is not None and own.trains:
        rates = [f"{own.template.retrain.lr * factor:.6g}" for factor in RATES]
    ways = {"removal": removals, "criterion": criteria, "scope": scopes}
    levels = {"sparsity": sparsities, "retrain.lr": rates}
    stages = _stages(recipe, changes, number, ways | levels)
    each = prod(max(1, len(texts)) for texts in levels.values())
    return Grid(
        base,
        number,
        (*(Rival(stage) for stage in stages[::each]), *_from_scratch(base, stages[0], rivals)),
        tuple(dict.fromkeys(stage.level[1] for stage in stages)),
        tuple(dict.fromkeys(None if stage.retrain is None else stage.retrain.lr for stage in stages)),
        tuple(_trained(model, making(model, base, recipe, changes)) for model in models),
        _seeds(base.seed, seeds, len(models)),
    )


def _from_scratch(recipe: schema.Recipe, stage: schema.Stage, names: Sequence[str]) -> Iterator[Rival]:
    for name in names:
        require_word("--rival", name, RIVALS)
    if not names:
        return
    if isinstance(recipe.model, schema.Program):
        raise InputError("--rival scratch needs random weights, and a program has only its own")
    retrained = 0 if stage.retrain is None else stage.retrain.epochs
    if recipe.train is None and not retrained:
        raise InputError("--rival scratch trains as `train` and `retrain` say, and the recipe has neither; add one")
    if recipe.train is not None:
        yield Rival(stage, "total", recipe.train.epochs + retrained)
    if retrained:
        yield Rival(stage, "retraining", retrained)


def split(text: str | None) -> list[str]:
    """The values of a comma-separated list, ignoring commas in brackets; [] for None."""
    parts, depth = [""], 0
    for sign in text or "":
        depth += (sign in "{[") - (sign in "}]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [] if text is None else [part.strip() for part in parts]


def _stages(
    recipe: str | Path, changes: Sequence[str], number: int, axes: Mapping[str, Sequence[str]]
) -> list[schema.Stage]:
    """The stage with all combinations of the axes' texts, the last axis fastest; an empty axis changes nothing."""
    found: list[schema.Stage] = []
    wrong: dict[str, None] = {}
    choices: list[list[str | None]] = [[*texts] or [None] for texts in axes.values()]
    for texts in product(*choices):
        settings = [f"stages.{number}.{key}={text}" for key, text in zip(axes, texts, strict=True) if text is not None]
        try:
            stage = load_recipe(recipe, [*changes, *settings]).stages[number]
        except RecipeError as error:
            wrong |= dict.fromkeys(_as_options(str(error), number).splitlines())
            continue
        if stage in found:
            raise InputError(f"{' '.join(settings)} is listed twice; name every removal, criterion and level once")
        found.append(stage)
    if wrong:
        raise RecipeError("\n".join(wrong))
    return found


def _as_options(text: str, number: int) -> str:
    """The schema's complaints, with the options of `compress compare` instead of `--set`."""
    for key in ("removal", "criterion", "scope", "sparsity", "retrain.lr"):
        text = text.replace(f"--set stages.{number}.{key}=", f"--{key.removeprefix('retrain.')} ")
    return text


def _seeds(first: int, wanted: int | None, models: int) -> tuple[int, ...]:
    count = wanted or (SEEDS if models == 1 else models)
    if models not in (1, count):
        raise InputError(
            f"{count_of(models, 'model')} and {count_of(count, 'seed')}: give one model for all seeds, or one for each"
        )
    return tuple(range(first, first + count))


def _trained(path: Path, way_out: str) -> Trained:
    require_model(path, way_out)
    return Trained.of(path)


def _written(part: Any) -> str:
    """Its kind and explicit settings: "gradual_soft (cohort 100 steps)"."""
    given = part.model_dump(mode="json", exclude_unset=True)
    kind = given.pop("kind")
    return f"{kind} ({', '.join(f'{key} {value}' for key, value in given.items())})" if given else str(kind)
