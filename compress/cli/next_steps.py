"""What to do after a command, as a line that can be pasted."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compress.run.output import free

if TYPE_CHECKING:
    from compress.documents import FileContents, Timed
    from compress.sweep_results import Comparison


def after_train(recipe: str, model: Path, name: str, repeated: Sequence[str]) -> str:
    """Apply the recipe to what it has trained, into a folder called like it.

    Args:
        repeated: the options that hold for both.
    """
    return _line("apply", recipe, model, *repeated, "-o", free(Path(name)))


def after_plan(recipe: str, model: Path | None, repeated: Sequence[str]) -> str:
    """Do what was planned, or make the network that was missing."""
    if model is None:
        return _line("train", recipe, *repeated, "-o", free(Path("model.pt")))
    return _line("apply", recipe, model, *repeated)


def after_apply(out: Path) -> str:
    """Look into the smallest file that the run has left."""
    files = [out / name for name in ("slim.safetensors", "slim.onnx", "slim.pt2", "checkpoint/masked.safetensors")]
    return _line("inspect", next(file for file in files if file.exists()))


def after_recipes() -> str:
    """Start a recipe of one's own from a shipped one."""
    return f"{_line('recipes', 'mnist_ae')} > mine.yaml"


def after_export(out: Path, written: Sequence[str]) -> str:
    onnx = [name for name in written if name.endswith(".onnx")]
    return _line("bench", out / onnx[0]) if onnx else _line("inspect", out / written[0])


def after_bench(found: "Timed") -> str:
    """Look into the one that is fastest at the first batch size."""
    fastest = min(found["models"].items(), key=lambda entry: next(iter(entry[1].values()))["p50"])
    return _line("inspect", fastest[0])


def after_inspect(found: "FileContents") -> list[str]:
    """Export weights that know their network, and time an ONNX file; of anything else it is unknown what is wanted."""
    file = Path(found["file"])
    if found["format"] == "onnx":
        return [_line("bench", file)]
    model = found["recipe"]["values"]["model"] if "recipe" in found else {}
    # `export` calls no factory and runs no program that only a file names.
    if found["format"] == "safetensors" and model.get("name", "program") != "program":
        return [_line("export", file, "-o", free(Path("files")))]
    return []


def after_compare(results: "Comparison", recipe: str, model: Path, repeated: Sequence[str]) -> list[str]:
    """Apply the recipe with what kept most at the last level, whether or not that was beyond the noise."""
    better = max if results["metric"]["name"] == "accuracy" else min
    level = results["levels"][-1]
    means = {name: found["mean"] for name, found in level["rivals"].items() if found["mean"] is not None}
    if not means:
        return []
    winner = better(means, key=lambda name: means[name])
    cell = next(cell for cell in results["cells"] if (cell["rival"], cell["sparsity"]) == (winner, level["sparsity"]))
    stage = cell["stage"]
    values = {key: stage[key] for key in ("removal", "criterion", "scope", results["measure"])}
    values |= {} if cell["lr"] is None else {"retrain.lr": cell["lr"]}
    settings = [
        word
        for key, value in values.items()
        if value is not None
        for word in ("--set", f"stages.{results['stage']}.{key}={_as_yaml(value)}")
    ]
    return [_line("apply", recipe, model, *repeated, *settings, "-o", free(Path(results["recipe"]["name"])))]


def after_search(recipe: Path, model: Path, name: str, repeated: Sequence[str]) -> str:
    """Apply the recipe that was found, which has the changes of the one that it comes from."""
    return _line("apply", recipe, model, *repeated, "-o", free(Path(name)))


def repeated(
    changes: Sequence[str] | None = None, seed: int | None = None, device: str = "auto", data_root: Path = Path("data")
) -> list[str]:
    """The options of this command that the next one needs too."""
    words = [word for change in changes or () for word in ("--set", change)]
    words += [] if seed is None else ["--seed", str(seed)]
    words += [] if device == "auto" else ["--device", device]
    return words + ([] if data_root == Path("data") else ["--data-root", str(data_root)])


def to_resume(*words: object, out: Path, every: float, json: bool, quiet: bool, force: bool) -> str:
    """The command of these words and options, as it goes on after an interruption."""
    options = [name for name, given in (("--json", json), ("--quiet", quiet), ("--force", force)) if given]
    interval = [] if every == 60 else ["--checkpoint-every", f"{every:g}"]
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    together = ["torchrun", "--nproc-per-node", processes, "-m", "compress.cli"]
    start = ["compress"] if processes == "1" else together
    return shlex.join([*start, *map(str, words), "-o", str(out), *interval, *options, "--resume"])


def _line(*words: object) -> str:
    return "next: " + shlex.join(["compress", *map(str, words)])


def _as_yaml(value: object) -> str:
    known = {key: part for key, part in value.items() if part is not None} if isinstance(value, dict) else value
    return known if isinstance(known, str) else json.dumps(known)
