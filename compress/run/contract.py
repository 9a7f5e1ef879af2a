"""The input contract of a network's files: made here alone, and read back from a file's metadata."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import nn

from compress.dynamic import Dynamic
from compress.errors import InputError
from compress.export.signature import signature
from compress.files.bounded import parse_json
from compress.results import CONTRACT, Contract
from compress.run.provenance import versions
from compress.typed_json import first_mistake
from compress.wording import count_of

MAX_CHARACTERS = 8 * 2**20
"""The longest contract that is read: the statistics of a table have some 100 bytes a column."""


def contract_of(
    model: nn.Module,
    example: object,
    dynamic: Dynamic | None,
    *,
    preparation: Mapping[str, Any] | None,
    classes: Sequence[str] | None,
    opset: int | None,
) -> Contract:
    """The contract of the files of `model`, which is called like `example`.

    Args:
        preparation: what `Preparation.described` gives; None where only the loaders' owner knows it.
        classes: their names, in the order of the outputs, if they have some.
        opset: of the ONNX file, if there is one.

    Raises:
        InputError, UnsupportedModelError: as `compress.export.signature.signature`.
    """
    inputs, outputs = signature(model, example, dynamic)
    return {
        "inputs": inputs,
        "outputs": outputs,
        "preparation": None if preparation is None else dict(preparation),
        "classes": None if classes is None else list(classes),
        "opset": opset,
        "versions": versions(),
    }


def noted_contract(metadata: Mapping[str, str], source: str) -> Contract | None:
    """The contract in the metadata of the file `source`; None in one of an older version or of other software.

    Raises:
        InputError: it is damaged, or longer than any contract.
    """
    text = metadata.get(CONTRACT)
    if text is None:
        return None
    damaged = f"the contract inside {source} is damaged"
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"{damaged}: {count_of(len(text), 'character')}; the limit is {MAX_CHARACTERS:,}")
    try:
        found = parse_json(text)
    except ValueError as error:
        raise InputError(f"{damaged}: {error}") from None
    if (mistake := first_mistake(found, Contract)) is not None:
        raise InputError(f"{damaged}: {mistake}")
    return cast(Contract, found)
