"""Recipes by their names: as they are written, or refused with a way out."""

from pathlib import Path

import pytest

from compress.errors import RecipeError
from compress.recipe.shipped import shipped, shipped_text

RECIPES = Path(__file__).parents[2] / "recipes"


def test_every_recipe_is_listed_with_its_first_line() -> None:
    first = {path.stem: path.read_text(encoding="utf-8").splitlines()[0] for path in RECIPES.glob("*.yaml")}
    assert [(name, f"# {summary}") for name, summary in shipped()] == sorted(first.items())


def test_a_recipe_is_given_as_it_is_written() -> None:
    assert shipped_text("mnist_ae") == (RECIPES / "mnist_ae.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "way_out"),
    [("mnist_a", r"did you mean mnist_ae\?$"), ("zzz", r"shipped are bert_tiny, .*, vowels_lstm$")],
)
def test_an_unknown_name_is_refused_with_the_nearest_or_all(name: str, way_out: str) -> None:
    with pytest.raises(RecipeError, match=rf"^{name}: no shipped recipe of that name; {way_out}"):
        shipped_text(name)
