"""Shell completion for arguments; it runs at each press of the key, so it only looks at file names."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from compress.recipe.shipped import shipped_files

WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
MODELS = (*WEIGHTS, ".pt2", ".onnx")


def shipped_names(incomplete: str) -> list[str]:
    return sorted(name for name in shipped_files() if name.startswith(incomplete))


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes, and recipe files."""
    return [*shipped_names(incomplete), *_files(incomplete, (".yaml", ".yml"))]


def weights(incomplete: str) -> list[str]:
    return _files(incomplete, WEIGHTS)


def models(incomplete: str) -> list[str]:
    return _files(incomplete, MODELS)


def training_data(incomplete: str) -> list[str]:
    """Recipes, for their data, and arrays."""
    return [*recipes(incomplete), *_files(incomplete, (".npz",))]


def _files(incomplete: str, suffixes: Sequence[str]) -> list[str]:
    found = _matching(incomplete, suffixes)
    if "complete_bash" in os.environ.values():
        # Bash inserts completions unchanged; other shells escape them.
        return [re.sub(r"([ \t!\"#$&'()*;<>?\[\\\]^`{|}])", r"\\\1", path) for path in found]
    return list(found)


def _matching(incomplete: str, suffixes: Sequence[str]) -> Iterator[str]:
    """Paths that begin with `incomplete`: files, and folders with the files in them.

    The shell would treat a folder alone as the whole word, and begin the next one.
    """
    cut = incomplete.rfind("/") + 1
    written, start = incomplete[:cut], incomplete[cut:]
    for entry in _listed(Path(written or ".").expanduser()):
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
            continue
        if entry.is_dir():
            yield f"{written}{entry.name}/"
            yield from (f"{written}{entry.name}/{inner.name}" for inner in _listed(entry) if inner.suffix in suffixes)
        elif entry.suffix in suffixes:
            yield f"{written}{entry.name}"


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # an unreadable folder offers nothing
        return []
