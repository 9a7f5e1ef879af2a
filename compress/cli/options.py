"""Arguments and options shared by several commands, and the recipe that they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli.completion import recipes, weights
from compress.cli.console import tell
from compress.errors import InputError
from compress.sweep.engines import Engine

if TYPE_CHECKING:
    from compress.recipe.schema import Recipe

INPUT = "Input"
OUTPUT = "Output"

RecipeArgument = Annotated[
    str,
    typer.Argument(help="A recipe file, or the name of a shipped one (compress recipes).", autocompletion=recipes),
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="Weights: a .pt, .pth, .ckpt, .bin or .safetensors file, with #KEY if it has several sets; a folder "
        "or an index of shards of transformers; or a .pt2 program.",
        autocompletion=weights,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: stages.0.sparsity=0.9", rich_help_panel=INPUT),
]
DataOption = Annotated[
    Path,
    typer.Option(
        "--data-root",
        envvar="COMPRESS_DATA",
        help="Folder with data sets; downloads are stored here.",
        rich_help_panel=INPUT,
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Override the recipe's seed.", rich_help_panel=INPUT)]
ExpectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--expect",
        metavar="METRIC=VALUE",
        help="Stop unless the dense network reaches it: accuracy=0.43",
        rich_help_panel=INPUT,
    ),
]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, max=1024, help="Processes, with one thread each.")]
EngineOption = Annotated[
    Engine, typer.Option("--engine", help="Where processes run: on this machine, or on a Ray cluster (RAY_ADDRESS).")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document to stdout.", rich_help_panel=OUTPUT),
]
QuietOption = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print only warnings and errors to stderr.", rich_help_panel=OUTPUT)
]
LogOption = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="KIND[:DIR]",
        help="Log the curves as tensorboard or csv, to DIR or below runs.",
        rich_help_panel=OUTPUT,
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force", help="Overwrite the file, or the files in the folder that softprune wrote.", rich_help_panel=OUTPUT
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


ResumeOption = Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")]
EveryOption = Annotated[
    float, typer.Option("--checkpoint-every", min=0.0, help="Approximate seconds between checkpoints.")
]


def expecting(changes: list[str] | None, expect: list[str] | None) -> list[str]:
    """The changes of `--set` with those of `--expect`."""
    return [*(changes or ()), *(f"expect.{text}" for text in expect or ())]


def load(recipe: str, changes: list[str] | None, seed: int | None) -> "Recipe":
    from compress.recipe.loading import load_recipe

    loaded = load_recipe(recipe, [*(changes or []), *([] if seed is None else [f"seed={seed}"])])
    tell_factories(loaded)
    return loaded


def read_by(recipe: "Recipe", *files: str | Path) -> list[Path]:
    """The files that a command reads: those on its command line, and the data that its recipe names."""
    from compress.files.places import without_key

    data = recipe.data.model_dump(include={"npz", "npz_test", "folder", "validation"})
    return [without_key(Path(name))[0] for name in (*files, *data.values()) if isinstance(name, str | Path)]


def tell_factories(recipe: "Recipe") -> None:
    """Print whose code the recipe on the command line is about to run."""
    from compress.recipe.factories import factories

    for line in factories(recipe):
        tell(line)


def batch_sizes_of(text: str) -> list[int]:
    """The numbers of `--batch-sizes`. Raises InputError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--batch-sizes {text}: give numbers separated by commas, such as 1,32") from None


def levels_of(text: str | None) -> tuple[float, ...]:
    """The sparsities of `--levels`. Raises InputError for anything else."""
    try:
        found = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"--levels {text}: give numbers separated by commas, such as .5,.9,.95") from None
    if not all(0 <= share < 1 for share in found):
        raise InputError(f"--levels {text}: levels are between 0 and 1")
    return found
