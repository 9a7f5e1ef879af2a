"""What cells have in common: the data that they hold."""

from pathlib import Path

import pytest

from compress.errors import DataError
from compress.recipe import schema
from compress.sweep import cells


def test_a_folder_is_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(wanted: schema.FolderData, root: Path) -> None:
        asked.append(wanted)
        raise DataError("too large")

    monkeypatch.setattr(cells, "build_data", refuse)
    with pytest.raises(DataError, match="too large"):
        cells.load(schema.FolderData(folder="images", stream=True, workers=3), tmp_path, tuning=False)
    assert asked == [schema.FolderData(folder="images", stream=False, workers=3)]
