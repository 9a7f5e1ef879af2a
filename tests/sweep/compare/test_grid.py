"""What the options mean: lists, every combination, and what the schema refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from compress.errors import CheckpointError, InputError, RecipeError
from compress.sweep.compare.grid import RATES, Grid, plan, split


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, []),
        ("hard", ["hard"]),
        ("hard, soft", ["hard", "soft"]),
        ("hard,{kind: soft, over: 5 steps},sfp", ["hard", "{kind: soft, over: 5 steps}", "sfp"]),
        ("{a: [1, 2], b: 3},[4, 5]", ["{a: [1, 2], b: 3}", "[4, 5]"]),
    ],
)
def test_commas_count_outside_of_brackets(text: str | None, parts: list[str]) -> None:
    assert split(text) == parts


def test_everything_named_with_everything_else(recipe: Path, trained: Path) -> None:
    found = plan(
        recipe,
        [trained],
        removals=["hard", "{kind: soft, over: 5 steps}"],
        criteria=["magnitude", "random"],
        sparsities=[".5", "0.75"],
        rates=["1e-3", "2e-3"],
        seeds=3,
    )
    assert [rival.name for rival in found.rivals] == [
        "hard, magnitude",
        "hard, random",
        "soft (over 5 steps), magnitude",
        "soft (over 5 steps), random",
    ]
    assert (found.sparsities, found.rates, found.seeds) == ((0.5, 0.75), (0.001, 0.002), (0, 1, 2))
    stage = found.rivals[3].stage(0.75, 0.002)
    assert stage.retrain is not None
    assert (stage.sparsity, stage.retrain.lr, str(stage.criterion.kind)) == (0.75, 0.002, "random")
    assert stage.retrain.trainable == "adjacent", "what is not named is the recipe's"


def test_what_is_not_named_is_the_recipes(recipe: Path, trained: Path) -> None:
    found = plan(recipe, [trained])
    assert [rival.name for rival in found.rivals] == ["soft (over 1 epoch), skeletonization"]
    assert found.rivals[0].stage(0.75, 0.001) == found.recipe.stages[0]
    assert found.sparsities == (0.75,)
    assert found.rates == pytest.approx([0.001 * factor for factor in RATES])
    assert found.seeds == (0, 1, 2, 3, 4)


def test_a_model_for_every_seed(recipe: Path, trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(trained.read_bytes() + b"\0")
    found = plan(recipe, [trained, other], changes=["seed=7"])
    assert found.seeds == (7, 8)
    assert [found.model(seed).path for seed in found.seeds] == [trained, other]
    assert found.models[0].sha256 != found.models[1].sha256
    one = plan(recipe, [trained], seeds=3)
    assert {one.model(seed).path for seed in one.seeds} == {trained}
    with pytest.raises(InputError, match="2 models and 3 seeds"):
        plan(recipe, [trained, other], seeds=3)
    with pytest.raises(CheckpointError, match=r"nowhere\.pt does not exist; train the network first: compress train"):
        plan(recipe, [Path("nowhere.pt")])


def test_all_that_the_schema_refuses_is_told_at_once(recipe: Path, trained: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(recipe, [trained], removals=["hrd", "soft"], scopes=["erk"], sparsities=["1.5"], rates=["0"])
    lines = str(caught.value).splitlines()
    assert sorted(line.partition(": ")[0] for line in lines) == [
        "--lr 0",
        "--removal hrd",
        "--scope erk",
        "--sparsity 1.5",
    ]
    assert "--removal hrd: stages.0.removal: found 'hrd'; did you mean hard?" in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": 1}, "--stage 1: tiny has the stages 0 to 0"),
        ({"removals": ["hard", "{kind: hard}"]}, "is listed twice"),
        ({"sparsities": [".5", "0.50"]}, "is listed twice"),
    ],
)
def test_what_makes_no_grid(options: dict[str, object], message: str, recipe: Path, trained: Path) -> None:
    with pytest.raises(InputError, match=message):
        plan(recipe, [trained], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--removal", "hrd"), ("--criterion", "magnitud"), ("--removal", "{kind: soft, ovr: 1 epoch}"), ("--stage", "3")],
)
def test_a_wrong_name_is_told_before_anything_runs(
    option: str, value: str, recipe: Path, trained: Path, tmp_path: Path, run: Callable[..., Result]
) -> None:
    result = run("compare", recipe, trained, option, value, "-o", tmp_path / "out", "--cache", tmp_path / "c", code=2)
    assert f"{option} {value}" in result.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "c").exists()


def test_nothing_trains_without_retraining(recipe: Path, trained: Path) -> None:
    found: Grid = plan(recipe, [trained], changes=["stages.0.removal=hard", "stages.0.retrain=null"])
    assert found.rates == (None,)
    assert not found.rivals[0].trains
    assert found.rivals[0].stage(0.5, None).sparsity == 0.5


def test_the_same_shape_from_scratch_is_a_rival(recipe: Path, trained: Path) -> None:
    found = plan(recipe, [trained], removals=["hard", "soft"], rivals=["scratch"], sparsities=[".5", ".75"])
    first, _, total, retraining = found.rivals
    epochs = found.recipe.train.epochs if found.recipe.train else 0
    assert total.name == f"from scratch, {epochs + 2} epochs, skeletonization"
    assert retraining.name == "from scratch, 2 epochs, skeletonization"
    assert total.stage(0.5, 0.1) == retraining.stage(0.5, 0.1) == first.stage(0.5, 0.1)
    assert [found.tuned_like(rival) for rival in (total, retraining)] == [first, retraining]


def test_only_what_is_known_is_trained_from_scratch(recipe: Path, trained: Path) -> None:
    hard, never = ["stages.0.removal=hard", "stages.0.retrain=null"], "train=null"
    lengths = [
        [rival.scratch for rival in plan(recipe, [trained], rivals=["scratch"], changes=changes).rivals]
        for changes in ([never], hard)
    ]
    assert lengths == [[None, "retraining"], [None, "total"]]
    with pytest.raises(InputError, match="the recipe has neither"):
        plan(recipe, [trained], rivals=["scratch"], changes=[never, *hard])
    with pytest.raises(InputError, match="--rival: found 'scrach'; there is scratch; did you mean scratch"):
        plan(recipe, [trained], rivals=["scrach"])
