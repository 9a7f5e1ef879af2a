"""Arguments and options that several commands share, and the recipe that they name."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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


ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run has left off.")]
EveryOption = Annotated[
    float, typer.Option("--checkpoint-every", min=0.0, help="Seconds, about, that an interruption may cost.")
]


def command_line(*words: object, **options: object) -> str:
    """A command as people would type it; options that are None, False or empty are left out."""
    found = ["compress", *map(str, words)]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        match value:
            case None | False:
                continue
            case True:
                found.append(option)
            case list():
                for entry in value:
                    found += [option, str(entry)]
            case _:
                found += [option, str(value)]
    return shlex.join(found)


def load(recipe: str, changes: list[str] | None, seed: int | None) -> "Recipe":
    from compress.recipe.loading import load_recipe

    return load_recipe(recipe, [*(changes or []), *([] if seed is None else [f"seed={seed}"])])
