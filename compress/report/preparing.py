"""Python that makes the inputs of a file out of a raw sample, as the file's own contract says, without this package.

The code reads all numbers and names from the contract in the file. Results may be from anywhere, so nothing of theirs
becomes code: they only decide which of the lines below are there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compress.results import Contract


@dataclass(frozen=True)
class Preparing:
    """Lines that make `inputs`, an array for each input by its name, from `contract` and `known`, its preparation.

    standard: imports of the standard library. packages: those of packages beside numpy, by the package's name.
    described: whether there is a contract in the file.
    """

    lines: str
    standard: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    described: bool = True

    def needing(self, runtime: str) -> str:
        """The packages that code with this runtime needs, in words."""
        *others, last = runtime, *(["numpy"] if "np." in self.lines else []), *self.packages
        return f"{', '.join(others)} and {last}" if others else f"{last} alone"

    def importing(self, *runtimes: str) -> str:
        """All imports of such code."""
        standard = sorted([*self.standard, *(["import json"] if self.described else [])])
        packages = [*(["import numpy as np"] if "np." in self.lines else []), *runtimes, *self.packages.values()]
        packages.sort(key=lambda line: (line.startswith("from"), line))
        return "\n".join([*standard, *([""] if standard else []), *packages, ""])

    def reading(self, notes: str) -> str:
        """Lines that read the contract from a mapping, the metadata of a file."""
        lines = [f'contract = json.loads({notes}["contract"])'] if self.described else []
        return "\n".join([*lines, *(['known = contract["preparation"]'] if "known" in self.lines else []), ""])


def preparing(contract: Contract | None) -> Preparing:
    """How inputs are made; of a kind of preparation that is not known here, inputs of zeros stand for them."""
    if contract is None:
        return _OF_THE_OWNER
    known = contract["preparation"] or {}
    return _KINDS.get(str(known.get("kind")), _others)(contract, known)


_OF_THE_OWNER = Preparing('inputs = {"input": ...}  # arrays by name, prepared as in training', described=False)
"""For results without a contract."""


def _others(contract: Contract, known: Mapping[str, Any]) -> Preparing:
    return Preparing(_zeros(contract, "prepared as in training"))


def _zeros(contract: Contract, what: str) -> str:
    names = dict.fromkeys(size for one in contract["inputs"] for size in one["shape"] if isinstance(size, str))
    more = "" if set(names) <= {"batch"} else "  # 1 stands for any size"
    return (
        f"inputs = {{}}  # by name; put your own arrays in the place of these, {what}\n"
        'for one in contract["inputs"]:\n'
        f'    shape = [1 if isinstance(size, str) else size for size in one["shape"]]{more}\n'
        '    inputs[one["name"]] = np.zeros(shape, one["dtype"])'
    )


def _arrays(contract: Contract, known: Mapping[str, Any]) -> Preparing:
    return Preparing(_zeros(contract, "as they are in the file of the data"))


def _images(contract: Contract, known: Mapping[str, Any]) -> Preparing:
    shape = contract["inputs"][0]["shape"]
    mode = "L" if shape[1:2] == [1] else "RGB"
    return Preparing(
        f'image = Image.open("image.png").convert("{mode}")\n'
        'channels, height, width = contract["inputs"][0]["shape"][1:]\n'
        "pixels = np.asarray(image, np.float32).reshape(height, width, channels) / 255\n"
        'pixels = (pixels - np.float32(known["mean"])) / np.float32(known["std"])\n'
        'inputs = {contract["inputs"][0]["name"]: pixels.transpose(2, 0, 1)[None]}  # [1, C, H, W]',
        packages={"PIL": "from PIL import Image"},
    )


_KINDS: Mapping[str, Callable[[Contract, Mapping[str, Any]], Preparing]] = {"arrays": _arrays, "images": _images}
