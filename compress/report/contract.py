"""The input contract in sentences, for the card, the page and the terminal."""

from collections.abc import Iterator

from compress.results import UNKNOWN_PREPARATION, Contract, TensorContract
from compress.wording import count_of

KINDS = {
    "images": "images",
    "table": "rows of a table",
    "series": "rows of a series",
    "arrays": "arrays",
    "text": "texts",
}
"""Of preparations, in words."""

MOST_NAMES = 30
"""The most tensors and classes that are listed; the contract itself has all."""


def described(contract: Contract) -> Iterator[str]:
    """Inputs and outputs, how samples are prepared, and the classes."""
    yield from (f"takes {_tensor(one)}" for one in contract["inputs"][:MOST_NAMES])
    yield from (f"gives {_tensor(one)}" for one in contract["outputs"][:MOST_NAMES])
    known = contract["preparation"]
    kind = "" if known is None else str(known.get("kind", ""))
    yield UNKNOWN_PREPARATION if known is None else f"the samples are {KINDS.get(kind, 'of an unknown kind')}"
    if contract["classes"]:
        names, count = ", ".join(contract["classes"][:MOST_NAMES]), len(contract["classes"])
        yield f"{count_of(count, 'class', 'classes')}: {names}" + (
            f" and {count - MOST_NAMES:,} more" if count > MOST_NAMES else ""
        )
    if contract["opset"] is not None:
        yield f"opset {contract['opset']} of ONNX"


def _tensor(one: TensorContract) -> str:
    sizes = ", ".join("?" if size is None else str(size) for size in one["shape"])
    return f"{one['name']}, {one['dtype']} [{sizes}]"
