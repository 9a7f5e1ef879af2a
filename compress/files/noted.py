"""What a file's metadata note of its tensors: JSON, {"version": ..., "tensors": {NAME: ...}}."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from compress.errors import CheckpointError


def noted(version: int, tensors: Mapping[str, object]) -> str:
    """The text for the metadata."""
    return json.dumps({"version": version, "tensors": tensors}, separators=(",", ":"))


def read_noted(text: str, key: str, version: int, is_entry: Callable[[Any], bool], damaged: str) -> dict[str, Any]:
    """The entries of the tensors by name.

    Args:
        key: of the metadata, for the error text, as is `damaged`, its beginning.
        version: the one that this package reads.
        is_entry: whether an entry is one that this package writes.

    Raises:
        CheckpointError: the text is damaged, or of a later version.
    """
    try:
        found: Any = json.loads(text)
        other, tensors = found["version"], dict(found["tensors"])
        well_formed = all(map(is_entry, tensors.values()))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise CheckpointError(f"{damaged}: its metadata {key} is not what this package writes") from None
    if other != version:
        raise CheckpointError(
            f"{damaged}: its metadata {key} has version {str(other)[:20]}, and this package reads {version}; install a "
            "newer softprune"
        )
    if not well_formed:
        raise CheckpointError(f"{damaged}: its metadata {key} is not what this package writes")
    return tensors
