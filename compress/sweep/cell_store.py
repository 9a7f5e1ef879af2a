"""Finished cells of a sweep as files. A file is the valid result of its cell, or it counts as absent.

Each file names its cell and the code that computed it, with a checksum over both and the result. Changed figures,
copied or damaged files, and results of other versions are therefore never used.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from compress import __version__
from compress.files import marked
from compress.files.atomic import atomic
from compress.files.bounded import read_json, strange
from compress.run_warnings import RunWarning

Result = dict[str, Any]
Code = Mapping[str, str]
"""The version or hash of each part of the code that computes a cell, apart from softprune itself."""

MAX_BYTES = 16 * 2**20


class UnusableCellsWarning(RunWarning):
    """Some files of finished cells are damaged, or were written by other code."""

    kind = "unusable_cells"


class Cells:
    """The finished cells in a folder, as a context manager: at its end one warning counts the unusable ones.

    Several processes may share the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unusable: set[str] = set()  # the keys of unusable cells

    def __enter__(self) -> "Cells":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if count := len(self._unusable):
            cells, are, their = ("cell", "is", "its") if count == 1 else ("cells", "are", "their")
            warnings.warn(
                f"{count} finished {cells} in {self.folder} {are} damaged, or {are} of another version of softprune or "
                f"of your code: {their} figures are not used",
                UnusableCellsWarning,
                stacklevel=2,
            )

    def read(self, wanted: Iterable[tuple[str, Code]]) -> dict[str, Result]:
        """The existing results of the cells, given as (key, code)."""
        found = {}
        for key, code in wanted:
            try:
                found[key] = _result(read_json(self._file(key), MAX_BYTES, links=False), key, code)
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                self._unusable.add(key)
        return found

    def write(self, key: str, code: Code, result: Result) -> None:
        """Write a result, whole or not at all; anything but a file of ours in its place, such as a link, is left alone.

        Raises:
            OutputError: it cannot be written, or the folder is not a cache of ours.
        """
        marked.cells(self.folder)
        path = self._file(key)
        if strange(path, links=False):
            return
        cell = {"key": key, "code": {"softprune": __version__, **code}, "result": result}
        with atomic(path) as temporary:
            text = json.dumps(cell | {"sha256": checksum(cell)}, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8", newline="\n")

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def _result(cell: Any, key: str, code: Code) -> Result:
    """The result in a cell's document. Raises ValueError if it belongs to another cell or to other code."""
    if not isinstance(cell, dict) or set(cell) != {"key", "code", "sha256", "result"}:
        raise ValueError("it is not a cell")
    if cell["key"] != key or cell["code"] != {"softprune": __version__, **code}:
        raise ValueError("it belongs to another cell, or to other code")
    if cell.pop("sha256") != checksum(cell) or not isinstance(cell["result"], dict):
        raise ValueError("its checksum differs")
    return dict(cell["result"])


def checksum(document: Mapping[str, Any]) -> str:
    """The checksum of a JSON document, independent of its formatting."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
