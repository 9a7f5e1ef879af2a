"""What a user gets: a wheel built from the tracked files, and an installation beside a foreign export.py."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

EXPORT = """\
import torch, compress.export
linear = torch.nn.Linear(3, 2)
print(compress.export.__file__)
print(compress.export.onnx(linear, "linear.onnx", torch.zeros(1, 3)) < 1e-5)
"""

# reveal_type shows that names are more than Any to the checker.
TYPED = """\
import torch, compress
pruner = compress.Pruner(torch.nn.Linear(3, 2), sparsity=0.5, removal=compress.Soft(steps=10))
small = compress.slim(torch.nn.Linear(3, 2), torch.zeros(1, 3))
difference = compress.export.onnx(small, "small.onnx", torch.zeros(1, 3))
reveal_type(pruner.achieved)
reveal_type(difference)
compress.Pruner(sparcity=0.5)
"""

# Reading all of torch takes mypy half a minute; here it is only asked about this package.
MYPY = """\
[mypy]
[mypy-torch.*,numpy.*,onnx.*,onnx_ir.*,onnxruntime.*,safetensors.*]
follow_imports = skip
ignore_missing_imports = True
"""


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Stdout of a fresh interpreter, with `path` before the installed packages."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment |= {"PYTHONPATH": str(path), "MYPYPATH": str(path)}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 or "mypy" in arguments, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git tracks (or would, once it is committed)."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("only a git checkout tells which files belong to the project")
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    source = tmp_path_factory.mktemp("source")
    for name in filter(None, names):
        if (ROOT / name).exists():  # tracked, and deleted since
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    assert (source / "compress" / "export").is_symlink()
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), str(source), cwd=source)
    (built,) = (source / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    python(*pip, "--target", str(folder), str(wheel), cwd=folder)
    return folder


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A user's folder, with a file export.py and folders of their own that are called like ours."""
    (tmp_path / "export.py").write_text("raise RuntimeError('a foreign export.py was imported')\n", encoding="utf-8")
    (tmp_path / "recipes").mkdir()
    return tmp_path


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"compress", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    packaged = {name for name in names if name.startswith("compress/")}
    expected = {f"compress/{path.relative_to(ROOT / 'compress')}" for path in (ROOT / "compress").rglob("*.py")}
    expected |= {f"compress/export/{path.name}" for path in (ROOT / "export").glob("*.py")}
    expected |= {f"compress/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    assert len(expected) > 40
    assert packaged == expected | {"compress/py.typed", "compress/report/page.html", "compress/report/page.css"}
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


@pytest.mark.extended
def test_the_installed_package_exports_beside_a_foreign_export(site: Path, desk: Path) -> None:
    where, close = python("-c", EXPORT, cwd=desk, path=site).splitlines()
    assert Path(where) == site / "compress" / "export" / "__init__.py"
    assert close == "True"
    assert (desk / "linear.onnx").stat().st_size > 0


@pytest.mark.extended
def test_an_editable_installation_exports_beside_a_foreign_export(desk: Path) -> None:
    code = "import compress.export; print(compress.export.__file__, type(compress.slim).__name__)"
    where, kind = python("-c", code, cwd=desk).split()
    assert kind == "function"
    assert Path(where).resolve() == ROOT / "export" / "__init__.py"


def test_a_shipped_recipe_is_found_by_its_name(site: Path, desk: Path) -> None:
    command = "from compress.cli import main; main()"
    assert python("-c", command, "recipes", "mnist_ae", cwd=desk, path=site).startswith("# Cut an MNIST autoencoder")
    load = "from compress.recipe.loading import load_recipe; print(load_recipe('mnist_ae').name)"
    assert python("-c", load, cwd=desk, path=site) == "mnist_ae\n"


@pytest.mark.extended
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_a_type_checker_sees_the_public_names(site: Path, desk: Path, editable: bool) -> None:
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    (desk / "user.py").write_text(TYPED, encoding="utf-8")
    (desk / "mypy.ini").write_text(MYPY, encoding="utf-8")
    text = python("-m", "mypy", "--cache-dir", os.devnull, "user.py", cwd=desk, path=None if editable else site)
    lines = [line.removeprefix("user.py:") for line in text.splitlines()]
    assert lines[0] == '5: note: Revealed type is "float"'
    assert lines[1] == '6: note: Revealed type is "float"'
    assert lines[2:-1]
    assert all(line.startswith("7: ") for line in lines[2:-1]), text
    assert any('Unexpected keyword argument "sparcity"' in line for line in lines)
