"""Imports go one way, heavy packages wait until they are needed, and the public names are there."""

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import compress

ROOT = Path(__file__).parents[1]

# DESIGN.md, section 4, spelled out: what each part may import of the others.
ALLOWED = {
    "errors": set(),
    "atomic": {"errors"},
    "aside": {"atomic"},
    "marked": {"atomic", "errors"},
    "duration": set(),
    "metrics": {"errors"},
    "models": {"errors"},
    "stats": {"errors", "metrics"},
    "data": {"errors", "metrics", "models"},
    "distill": {"data", "metrics"},
    "streaming": {"errors", "data", "metrics"},
    "sources": {"atomic", "errors", "data", "streaming"},
    "select": {"errors"},
    "remove": {"errors", "select"},
    "slim": {"errors", "metrics"},
    "checkpoint": {"atomic", "errors", "slim"},
    "chance": set(),
    "divergence": set(),
    "ranks": {"errors"},
    "retrain": {"aside", "ranks", "chance", "divergence", "errors", "metrics", "data"},
    "export": {"atomic", "errors", "stats", "checkpoint", "metrics", "slim"},
    "yaml_text": set(),
    "report": {"errors", "yaml_text"},
}
ALLOWED["recipe"] = set(ALLOWED)
ALLOWED["loops"] = {"atomic", "errors", "duration", "select", "remove"}
ALLOWED["engines"] = {"errors"}
ALLOWED["sweep"] = {"atomic", "engines", "errors", "marked"}
ALLOWED["paper"] = set(ALLOWED)
ALLOWED["trials"] = set(ALLOWED) - {"paper", "report"}
ALLOWED["compare"] = set(ALLOWED) - {"paper"}
ALLOWED["explore"] = set(ALLOWED) - {"paper", "compare"}
ALLOWED["cli"] = {"atomic", "compare", "engines", "errors", "explore", "export", "paper", "ranks", "recipe", "report"}

HEAVY = {"torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy", "matplotlib", "pandas"}


def modules() -> list[tuple[str, Path]]:
    """(part, file) of all source files; the folder export/ is reached through a link, which rglob does not follow."""
    files = [(path.relative_to(ROOT / "compress"), path) for path in (ROOT / "compress").rglob("*.py")]
    files = [(name, path) for name, path in files if name.parts[0] not in ("export", "recipes")]
    files += [(path.relative_to(ROOT), path) for path in (ROOT / "export").rglob("*.py")]
    return [(name.parts[0].removesuffix(".py"), path) for name, path in files]


def imported(path: Path) -> set[str]:
    """Dotted names of everything that the file imports, at its top or within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports inside the package are absolute"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


MODULES = modules()


def test_all_files_were_found() -> None:
    parts = {part for part, _ in MODULES}
    assert parts - {"__init__"} == set(ALLOWED), "a new part needs its place in the order"
    assert len(MODULES) > 35
    assert len({path for _, path in MODULES}) == len(MODULES)


def test_the_order_is_an_order() -> None:
    assert len(list(TopologicalSorter(ALLOWED).static_order())) == len(ALLOWED)


@pytest.mark.parametrize(
    ("part", "path"), MODULES, ids=[str(path.relative_to(ROOT).with_suffix("")) for _, path in MODULES]
)
def test_imports_go_one_way(part: str, path: Path) -> None:
    names = imported(path)
    own = {name.split(".")[1] for name in names if name.split(".")[0] == "compress"} - {part, "__version__"}
    if part != "__init__":
        assert own <= ALLOWED[part]
    packages = {name.split(".")[0] for name in names}
    assert "yaml" not in packages, "PyYAML reads 1e-3 as text"
    assert "matplotlib.pyplot" not in names
    if part != "recipe":
        assert "pydantic" not in packages, "pydantic stays in recipe/"
    if part == "report":
        assert not packages & (HEAVY - {"matplotlib"} if path.name == "plots.py" else HEAVY)
    if path.parent.name == "schema" or path.name == "loading.py":
        assert own <= {"duration", "errors", "yaml_text"}
        assert not packages & HEAVY


def loaded_by(code: str, folder: Path) -> set[str]:
    """The packages in sys.modules after `code` has run in a fresh interpreter in `folder`."""
    code += "\nimport json, sys; print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


COMMAND = """
import sys
from compress.cli import main
sys.argv[1:] = {arguments}
try:
    main()
except SystemExit as exit:
    assert (exit.code or 0) == {code}, exit.code
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["apply", "--help"], 0),
        (["recipes"], 0),
        (["recipes", "mnist_ae", "--json"], 0),
        (["train", "broken.yaml", "-o", "model.pt"], 2),
        (["apply", "mnist_ae", "model.pt", "--set", "seed=no"], 2),
        (["plan", "mnist_ae", "model.pt", "--set", "seed=no"], 2),
        (["compare", "mnist_ae", "model.pt", "--removal", "hrd"], 2),
    ],
)
def test_what_needs_no_torch_does_not_wait_for_it(tmp_path: Path, arguments: list[str], code: int) -> None:
    (tmp_path / "broken.yaml").write_text("name: broken\n", encoding="utf-8")
    found = loaded_by(COMMAND.format(arguments=arguments, code=code), tmp_path)
    assert "typer" in found
    assert not found & HEAVY


def test_listing_the_recipes_reads_no_yaml(tmp_path: Path) -> None:
    assert "ruamel" not in loaded_by(COMMAND.format(arguments=["recipes"], code=0), tmp_path)


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    found = loaded_by("import compress; compress.__version__; dir(compress)", tmp_path)
    assert not found & (HEAVY | {"pydantic", "ruamel", "typer", "rich"})


def test_the_public_names() -> None:
    assert set(compress.__all__) == {
        "CompressError",
        "HardPruner",
        "SoftPruner",
        "__version__",
        "export",
        "load",
        "slim",
    }
    assert all(getattr(compress, name) is not None for name in compress.__all__)
    assert set(compress.__all__) <= set(dir(compress))
    assert callable(compress.slim)
    assert {"onnx", "pt2", "safetensors"} <= set(compress.export.__all__)
    assert all(callable(getattr(compress.export, name)) for name in compress.export.__all__)
    with pytest.raises(AttributeError, match="module 'compress' has no attribute 'prune'"):
        compress.prune  # noqa: B018
