"""The next step after a command, as a line to paste."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compress.ranking import read
from compress.run.output import free

if TYPE_CHECKING:
    from compress.documents import FileContents, FileInput, QuantizedFile, Timed
    from compress.sweep_results import Comparison


def after_train(recipe: str, model: Path, name: str, repeated: Sequence[str]) -> str:
    """Apply the recipe to the trained network, into a folder named after it.

    Args:
        repeated: the options for both commands.
    """
    return _line("apply", recipe, model, *repeated, "-o", free(Path(name)))


def after_plan(recipe: str, model: Path | None, name: str, repeated: Sequence[str], *, trains: bool) -> str:
    """Apply the planned recipe, or train the missing network.

    Args:
        trains: whether the recipe has a `train` section.
    """
    if model is not None:
        return _line("apply", recipe, model, *repeated, "-o", free(Path(name)))
    if trains:
        return _line("train", recipe, *repeated, "-o", free(Path("model.pt")))
    return "to apply it, bring a file of trained weights: the recipe has no `train` section"


def after_apply(out: Path) -> str:
    """Inspect the smallest file of the run."""
    files = [out / name for name in ("slim.safetensors", "slim.onnx", "slim.pt2", "checkpoint/masked.safetensors")]
    return _line("inspect", next(file for file in files if file.exists()))


def after_recipes() -> str:
    """Start your own recipe from a shipped one."""
    return f"{_line('recipes', 'mnist_ae')} > mine.yaml"


def after_export(out: Path, written: Sequence[str]) -> str:
    """Time the ONNX file, or inspect another one."""
    onnx = [out / name for name in written if name.endswith(".onnx")]
    return (_benches(*onnx) if onnx else None) or _line("inspect", out / written[0])


def after_bench(found: "Timed") -> str:
    """Inspect the fastest model at the first batch size."""
    fastest = min(found["models"].items(), key=lambda entry: next(iter(entry[1].values()))["p50"])
    return _line("inspect", fastest[0])


def after_quantize(found: "QuantizedFile") -> list[str]:
    """Time the int8 file beside the float file, if there is one."""
    if "file" not in found:
        return []
    return [_benches(found["source"], found["file"]) or _line("inspect", found["file"])]


def after_inspect(found: "FileContents") -> list[str]:
    """Export weights that name their network, and time an ONNX file; other files have no obvious next step."""
    file = Path(found["file"])
    if found["format"] == "onnx":
        options = _to_bench(found["inputs"])
        return [] if options is None else [_line("bench", file, *options)]
    model = found["recipe"]["values"]["model"] if "recipe" in found else {}
    # `export` does not run factories or programs that only a file names.
    if found["format"] == "safetensors" and model.get("name", "program") != "program":
        return [_line("export", file, "-o", free(Path("files")))]
    return []


def after_compare(results: "Comparison", recipe: str, model: Path, repeated: Sequence[str]) -> list[str]:
    """Apply the recipe with the best rival that prunes, at the last level, whether or not it was beyond the noise."""
    better = max if read(results["metric"]).larger else min
    level = results["levels"][-1]
    pruned = [rival["name"] for rival in results["rivals"] if "scratch" not in rival]
    means = {name: mean for name in pruned if (mean := level["rivals"][name]["mean"]) is not None}
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
    """Apply the recipe that was found, which includes the changes of the original one."""
    return _line("apply", recipe, model, *repeated, "-o", free(Path(name)))


def repeated(
    changes: Sequence[str] | None = None, seed: int | None = None, device: str = "auto", data_root: Path = Path("data")
) -> list[str]:
    """The options of this command that the next one also needs."""
    words = [word for change in changes or () for word in ("--set", change)]
    words += [] if seed is None else ["--seed", str(seed)]
    words += [] if device == "auto" else ["--device", device]
    return words + ([] if data_root == Path("data") else ["--data-root", str(data_root)])


def to_resume(*words: object, out: Path, every: float, json: bool, quiet: bool, force: bool) -> str:
    """The command with these words and options that resumes an interrupted run."""
    options = [name for name, given in (("--json", json), ("--quiet", quiet), ("--force", force)) if given]
    interval = [] if every == 60 else ["--checkpoint-every", f"{every:g}"]
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    together = ["torchrun", "--nproc-per-node", processes, "-m", "compress.cli"]
    start = ["compress"] if processes == "1" else together
    return shlex.join([*start, *map(str, words), "-o", str(out), *interval, *options, "--resume"])


def _benches(*files: object) -> str | None:
    """The line that times the ONNX files, which have equal inputs."""
    from compress.export.onnx_reading import inputs_of, read_onnx

    options = _to_bench(inputs_of(read_onnx(str(files[0]))))
    return None if options is None else _line("bench", *files, *options)


def _to_bench(inputs: Sequence["FileInput"]) -> list[str] | None:
    """The options that `bench` needs for such inputs; None if it also needs sizes, which only the user knows."""
    first = {one["shape"][0] for one in inputs if one["shape"]}
    others = [size for one in inputs for size in one["shape"][1:]]
    fixed = {size for size in first if isinstance(size, int)}
    if any(isinstance(size, str) and size not in first for size in others) or len(first) > 1:
        return None
    if any(not one["dtype"].startswith(("float", "double", "int", "uint", "bool")) for one in inputs):
        return None
    return ["--batch-sizes", str(*fixed)] if fixed else []


def _line(*words: object) -> str:
    return "next: " + shlex.join(["compress", *map(str, words)])


def _as_yaml(value: object) -> str:
    known = {key: part for key, part in value.items() if part is not None} if isinstance(value, dict) else value
    return known if isinstance(known, str) else json.dumps(known)
