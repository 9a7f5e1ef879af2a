from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from compress.report import files

LAYER: dict[str, Any] = {
    "name": "latent",
    "tensors": ["latent.weight", "latent.bias"],
    "shape": [8, 128],
    "entries": 1032,
    "zeros": 258,
    "weights": 1024,
    "rows": 8,
    "zero_rows": 2,
    "columns": 128,
    "zero_columns": 0,
}


def text(table: Table, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def row(layer: dict[str, Any], other: dict[str, Any] = LAYER) -> list[str]:
    """The cells of the first layer."""
    (line,) = [line for line in text(files.layers({"layers": [layer, other]})).splitlines() if layer["name"] in line]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_layer() -> None:
    cells = ["latent", "8 x 128", "1,032", "25.0%", "2 of 8", "0 of 128"]
    other = LAYER | {"name": "x"}
    assert row(LAYER, other) == cells
    assert row(LAYER | {"macs": 1024}, other) == [*cells, "1,024"]
    assert row(LAYER, other | {"macs": 5}) == [*cells, ""], "what is not known is no 0"


def test_names_with_brackets_scalars_and_nothing_at_all() -> None:
    none = {"weights": 0, "rows": 0, "zero_rows": 0, "columns": 0, "zero_columns": 0}
    scalar = {"name": "layers.[a]", "shape": [], "entries": 1, "zeros": 1} | none
    assert row(scalar) == ["layers.[a]", "scalar", "1", "100.0%", "", ""]
    assert row(scalar | {"shape": [0], "entries": 0, "zeros": 0})[1:4] == ["0", "0", "0.0%"]


def test_a_long_name_is_there_in_full() -> None:
    name = "a_very_long_name_of_a_block.".replace(".", ".layers.17.") * 3
    shown = text(files.layers({"layers": [LAYER | {"name": name}]}))
    assert "…" not in shown
    assert name in "".join(line.split("│")[1].strip() for line in shown.splitlines() if "│" in line)


def test_the_summary_of_a_file() -> None:
    found = {"file": "x.onnx", "bytes": 12345, "entries": 1032, "zeros": 258, "layers": [LAYER]}
    found |= {"metadata": {"recipe": "{}", "edits": "e" * 150}}
    assert list(files.summary(found)) == [
        "x.onnx: 12,345 bytes, 1,032 entries, 25.0% of them zero",
        "weights that can be pruned one by one: 1,024",
        "recipe: {}",
        f"edits: {'e' * 100}... (150 characters)",
    ]


def test_the_summary_of_a_known_network() -> None:
    nodes = {
        "prunable": [
            {"name": "a", "layers": ["a"], "nodes": 1000, "cuttable": 2},
            {"name": "b", "layers": ["b", "c"], "nodes": 3, "cuttable": 0},
        ],
        "kept": [{"layer": "d", "reason": "so"}, {"layer": "e", "reason": "so"}],
    }
    recipe = {"brief": "name: tiny\nmodel: x\n", "whole": "name: tiny\nseed: 0\nmodel: x\n"}
    found = {"file": "x", "bytes": 1, "entries": 0, "zeros": 0, "macs": 12345, "layers": [], "nodes": nodes}
    found |= {"note": "[that]", "metadata": {"recipe": "{}"}, "recipe": recipe}
    lines = list(files.summary(found))
    assert lines[1:] == [
        "MACs: 12,345 for one sample",
        "weights that can be pruned one by one: 0",
        "nodes that can be pruned: a (1,000), b (3)",
        "keeps its width, since so: d, e",
        "nodes that slim would cut out now: 2 of a",
        "note: [that]",
        "recipe, in short (--recipe shows all of it):",
        "  name: tiny",
        "  model: x",
    ]
    assert list(files.summary(found, whole_recipe=True))[-4:] == ["recipe:", "  name: tiny", "  seed: 0", "  model: x"]
