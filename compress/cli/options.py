"""Arguments and options that several commands share, and the recipe that they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli.voices import tell

if TYPE_CHECKING:
    from compress.recipe.schema import Recipe

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (compress recipes).")]
ModelArgument = Annotated[Path, typer.Argument(help="Weights: a state_dict as .pt or .pth, or a .safetensors file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: stages.0.sparsity=0.9")
]
DataOption = Annotated[
    Path, typer.Option("--data-root", envvar="COMPRESS_DATA", help="Where data sets lie or are downloaded to.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Instead of the recipe's.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def load(recipe: str, changes: list[str] | None, seed: int | None) -> "Recipe":
    from compress.recipe.loading import load_recipe

    loaded = load_recipe(recipe, [*(changes or []), *([] if seed is None else [f"seed={seed}"])])
    tell_factories(loaded)
    return loaded


def tell_factories(recipe: "Recipe") -> None:
    """Whose code the recipe that the command line names is about to run."""
    from compress.recipe.factories import factories

    for line in factories(recipe):
        tell(line)
