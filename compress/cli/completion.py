"""What the shell offers for an argument; it asks at each press of the key, so nothing but file names is looked at."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from compress.recipe.shipped import shipped

WEIGHTS = (".pt", ".pth", ".safetensors")
MODELS = (*WEIGHTS, ".pt2", ".onnx")


def shipped_names(incomplete: str) -> list[tuple[str, str]]:
    """Shipped recipes, with what they do."""
    return [(name, summary) for name, summary in shipped() if name.startswith(incomplete)]


def recipes(incomplete: str) -> list[tuple[str, str]]:
    """Shipped recipes, and recipe files."""
    return [*shipped_names(incomplete), *((path, "") for path in _files(incomplete, (".yaml", ".yml")))]


def weights(incomplete: str) -> list[str]:
    return list(_files(incomplete, WEIGHTS))


def models(incomplete: str) -> list[str]:
    return list(_files(incomplete, MODELS))


def onnx(incomplete: str) -> list[str]:
    return list(_files(incomplete, (".onnx",)))


def _files(incomplete: str, suffixes: Sequence[str]) -> Iterator[str]:
    """Paths that begin like this: files, and folders with the files that they hold.

    A folder alone would be taken for the whole word, and the shell would begin the next.
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
    except OSError:  # a folder that may not be read has nothing to offer
        return []
