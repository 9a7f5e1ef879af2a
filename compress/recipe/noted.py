"""The recipe that a file carries as JSON in its metadata."""

from pydantic import ValidationError

from compress.errors import RecipeError
from compress.recipe.schema import Recipe


def noted_recipe(text: str, source: str) -> Recipe:
    """The recipe in `text`, which was found in the file `source`.

    Raises:
        RecipeError: it is not a recipe of this version.
    """
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "all of it"
        raise RecipeError(
            f"the recipe inside {source} is damaged ({key}: {first['msg']}): name one with --recipe"
        ) from None
