"""Imports go one way, heavy packages wait until they are needed, and the public names are there."""

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up: a part imports from itself and from parts below it, never from others on its own line.
ORDER = (
    ("errors", "lazy_layers", "wording"),
    (
        "duration",
        "evaluation_mode",
        "models",
        "options",
        "ranking",
        "shards",
        "task_words",
        "typed_json",
        "worker_signals",
    ),
    ("tasks",),
    ("inputs",),
    ("batches", "dynamic"),
    ("results",),
    ("documents", "run_warnings", "sweep_results"),
    ("graph",),
    ("proof",),
    ("slimming",),
    ("select",),
    ("remove",),
    ("files",),
    ("data", "sparsify", "train"),
    ("export", "report"),
    ("quantize",),
    ("recipe",),
    ("loops", "run"),
    ("sweep",),
    ("paper",),
    ("cli",),
)
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}

# Their names have homes above them, and are imported when they are first used.
DOORS = {"compress", "compress.export"}

# What report.html may know beside itself: plain results, and how files of text are read and written.
RESULTS = {
    "errors",
    "wording",
    "duration",
    "ranking",
    "task_words",
    "results",
    "documents",
    "run_warnings",
    "sweep_results",
}
PLAIN = [*([part] for part in sorted(RESULTS)), ["files", "bounded"], ["files", "yaml_text"]]

HEAVY = {"torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy", "matplotlib", "pandas"}


def modules() -> dict[str, Path]:
    """All source files by module; the folder export/ is reached through a link, which rglob does not follow."""
    found = {path.relative_to(ROOT): path for path in (ROOT / "compress").rglob("*.py")}
    found = {name: path for name, path in found.items() if name.parts[1] not in ("export", "recipes")}
    found |= {"compress" / path.relative_to(ROOT): path for path in (ROOT / "export").rglob("*.py")}
    return {".".join(name.with_suffix("").parts).removesuffix(".__init__"): path for name, path in found.items()}


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


def module_of(name: str) -> str:
    """The module that an imported name is, or is in."""
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def part_of(module: str) -> str:
    return module.split(".")[1]


MODULES = modules()
NAMES = {module: imported(path) for module, path in MODULES.items()}
OWN = {
    module: {module_of(name) for name in names if name.split(".")[0] == "compress" and name != "compress.__version__"}
    for module, names in NAMES.items()
}


def test_all_files_were_found() -> None:
    parts = {part_of(module) for module in MODULES if module != "compress"}
    assert parts <= set(LEVEL), "a new part needs its place in the order"
    assert len(parts) > 15
    assert len(MODULES) > 150


def test_no_circle_even_between_modules() -> None:
    assert len(list(TopologicalSorter(OWN).static_order())) == len(MODULES)


@pytest.mark.parametrize("module", [module for module in MODULES if module not in DOORS])
def test_imports_go_down(module: str) -> None:
    others = {other for other in OWN[module] if other == "compress" or part_of(other) != part_of(module)}
    assert not {other for other in others if other == "compress" or LEVEL[part_of(other)] >= LEVEL[part_of(module)]}


@pytest.mark.parametrize("module", MODULES)
def test_packages_have_their_places(module: str) -> None:
    packages = {name.split(".")[0] for name in NAMES[module]}
    assert "yaml" not in packages, "PyYAML reads 1e-3 as text"
    assert "matplotlib.pyplot" not in NAMES[module]
    if not module.startswith("compress.recipe."):
        assert "pydantic" not in packages, "pydantic stays in recipe/"
    if module.startswith("compress.report"):
        assert not packages & (HEAVY - {"matplotlib"} if module.endswith(".plots") else HEAVY)
        assert all(other.split(".")[1:] in PLAIN or part_of(other) == "report" for other in OWN[module])


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


@pytest.mark.parametrize("part", ["recipe", "report"])
def test_text_is_read_and_written_without_torch(tmp_path: Path, part: str) -> None:
    wanted = [name for name in MODULES if part_of(f"{name}.") == part and not name.endswith(".plots")]
    found = loaded_by("import " + ", ".join(wanted), tmp_path)
    assert not found & HEAVY


def test_listing_the_recipes_reads_no_yaml(tmp_path: Path) -> None:
    assert "ruamel" not in loaded_by(COMMAND.format(arguments=["recipes"], code=0), tmp_path)


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    found = loaded_by("import compress; compress.__version__; dir(compress)", tmp_path)
    assert not found & (HEAVY | {"pydantic", "ruamel", "typer", "rich"})
