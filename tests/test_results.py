"""What results.json and the other documents hold is what their types say, and nothing passes untyped."""

import ast
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compress import documents, results, sweep_results
from compress.errors import InputError
from compress.results import Results, checked
from compress.typed_json import first_mistake, schema

ROOT = Path(__file__).parents[1]
REAL = Path(__file__).parent / "fuzz" / "results.json"  # as `compress apply` has left it


@pytest.fixture
def real() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REAL.read_text(encoding="utf-8"))
    return found


def test_what_a_run_has_left_is_taken(real: dict[str, Any]) -> None:
    assert checked(real, REAL) is real


def test_what_several_processes_have_left_is_taken(real: dict[str, Any]) -> None:
    real["machine"]["processes"] = 2
    assert first_mistake(real, Results) is None


@pytest.mark.parametrize(
    ("way", "value"),
    [
        ("recipe.name", 3),
        ("recipe.benchmark.threads", 0),
        ("seed", -1),
        ("versions.torch", None),
        ("machine.cpu", ["a"]),
        ("data.sha256", "abc"),
        ("data.mean", []),
        ("stages", []),
        ("stages.0.kind", "biases"),
        ("stages.1.criterion.kind", 1),
        ("stages.0.before_removal.loss", "low"),
        ("stages.0.after_removal.accuracy", 1.5),
        ("stages.0.curve.share.3", "x"),
        ("stages.0.scores.0.gone.0", -1),
        ("models.slim.params", 0),
        ("models.masked.bytes.onnx", "1 KB"),
        ("models.dense.latency_ms.32.quantiles", [1.0]),
        ("tensors.2.shape.0", 1.5),
        ("confusion.slim.4", "x"),
        ("parity.tolerance", 0),
        ("warnings.0", ""),
        ("timing.phases.training", -1),
    ],
)
def test_the_first_wrong_key_is_named(real: dict[str, Any], way: str, value: object) -> None:
    real["warnings"] = ["said"]
    *above, last = (int(key) if key.isdecimal() and key != "32" else key for key in way.split("."))
    inner: Any = real
    for key in above:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(InputError) as error:
        checked(real, Path("out/results.json"))
    assert str(error.value).startswith(f"out/results.json is damaged: {way}: ")
    assert str(error.value).endswith("; run `compress apply` again")


def required(document: object, described: object, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the document has keys that its schema requires."""
    known = schema(Results, "")["$defs"]
    assert isinstance(described, dict)
    if "$ref" in described:
        described = known[described["$ref"].rpartition("/")[2]]  # type: ignore[index]
    if isinstance(document, dict):
        yield from ((*way, key) for key in described.get("required", ()))
        for key, inner in described.get("properties", {}).items():
            if key in document:
                yield from required(document[key], inner, (*way, key))
    if isinstance(document, list) and document:
        yield from required(document[0], described["items"], (*way, 0))


def test_what_is_missing_is_named(real: dict[str, Any]) -> None:
    ways = list(required(real, schema(Results, "")))
    assert len(ways) > 60
    for way in ways:
        changed = copy.deepcopy(real)
        inner: Any = changed
        for key in way[:-1]:
            inner = inner[key]
        del inner[way[-1]]
        assert first_mistake(changed, Results) == f"{'.'.join(map(str, way))} is missing"


@pytest.mark.parametrize("absent", ["tensors", "confusion", "stages.0.curve", "stages.0.scores", "data.note"])
def test_what_may_be_absent_is_no_mistake(real: dict[str, Any], absent: str) -> None:
    *above, last = (int(key) if key.isdecimal() else key for key in absent.split("."))
    inner: Any = real
    for key in above:
        inner = inner[key]
    del inner[last]
    assert first_mistake(real, Results) is None


def test_every_document_has_a_schema() -> None:
    for described in (
        documents.Exported,
        documents.FileContents,
        documents.Plan,
        documents.Timed,
        documents.TrainedNetwork,
        results.Results,
        sweep_results.Comparison,
        sweep_results.Search,
        sweep_results.Sensitivity,
    ):
        assert schema(described, described.__name__)["required"]


# --- nothing untyped between run and report ---

TYPED = (
    *sorted((ROOT / "compress" / "report").glob("*.py")),
    *sorted((ROOT / "compress" / "sweep" / "compare").glob("*.py")),
    *sorted((ROOT / "compress" / "sweep" / "explore").glob("*.py")),
    *sorted((ROOT / "compress" / "cli").glob("*.py")),
    *(ROOT / "compress" / name for name in ("results.py", "documents.py", "sweep_results.py", "graph/stats.py")),
    *(ROOT / "export" / name for name in ("contents.py", "latency.py")),
    *(
        ROOT / "compress" / "run" / f"{name}.py"
        for name in (
            *("apply", "artefacts", "clock", "curve", "demo", "entries", "event_log", "exporting", "inspecting"),
            *("pictures", "plan", "provenance", "stage"),
        )
    ),
    ROOT / "compress" / "select" / "histogram.py",
    ROOT / "compress" / "sweep" / "cells.py",
)
STATES = {"state_dict", "load_state_dict"}
"""What checkpoints hold is torch's word, and nobody's to read but the part's that wrote it."""


def untyped(tree: ast.AST) -> Iterator[int]:
    """Lines with a mapping of anything: dict[str, Any], Mapping[str, Any], Dict, and the like."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name in STATES:
            continue
        if (
            isinstance(node, ast.Subscript)
            and ast.unparse(node.value).rpartition(".")[2].lower() in ("dict", "mapping", "mutablemapping")
            and isinstance(node.slice, ast.Tuple)
            and ast.unparse(node.slice.elts[-1]).rpartition(".")[2] == "Any"
        ):
            yield node.lineno
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "[str, Any]" in node.value:
            yield node.lineno  # an annotation in quotes
        yield from untyped(node)


@pytest.mark.parametrize("path", TYPED, ids=[str(path.relative_to(ROOT)) for path in TYPED])
def test_nothing_passes_untyped_between_run_and_report(path: Path) -> None:
    assert list(untyped(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_the_search_finds_what_it_looks_for() -> None:
    code = """
def a(x: dict[str, Any]) -> None: ...
def b(x: "Mapping[str, Any]") -> None: ...
found: list[typing.Dict[str, Any]] = []
Alias = list[collections.abc.Mapping[str, typing.Any]]
def state_dict(self) -> dict[str, Any]: ...
fine: dict[str, NDArray[Any]] = {}
"""
    assert sorted(untyped(ast.parse(code))) == [2, 3, 4, 5]
