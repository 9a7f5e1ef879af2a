from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from compress.errors import CheckpointError
from compress.recipe.loading import load_recipe
from compress.run.inputs import making, require_model

Run = Callable[..., Result]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "slim.safetensors").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("mnist_ae", "mnist_ae is a recipe, not a file of weights; way out"),
        ("mine.yaml", "mine.yaml is a recipe, not a file of weights; way out"),
        ("nowhere.yml", "nowhere.yml is a recipe, not a file of weights; way out"),
        ("model.pt", "model.pt does not exist; way out"),
        ("full", "full is a folder, not a file of weights; name a file in it, such as full/slim.safetensors"),
        ("empty", "empty is a folder, not a file of weights; way out"),
    ],
)
def test_what_is_no_file_of_weights(here: Path, given: str, text: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        require_model(Path(given), "way out")
    assert str(caught.value) == text


def test_a_file_called_like_a_recipe_is_a_file(here: Path) -> None:
    (here / "mnist_ae").touch()
    require_model(Path("mnist_ae"))


def test_how_to_come_by_weights(here: Path) -> None:
    recipe = load_recipe("mnist_ae")
    changes = ["model.latent=32", "name=my"]
    command = "compress train 'a b.yaml' -o m.pt --set model.latent=32 --set name=my"
    assert making(Path("m.pt"), recipe, "a b.yaml", changes) == f"train the network first: {command}"
    # What is there, or has a name that weights cannot have, is not to be written.
    for given in ("mnist_ae", "mine.yaml", "full"):
        assert making(Path(given), recipe, "mnist_ae").endswith("compress train mnist_ae -o model.pt")
    bare = recipe.model_copy(update={"train": None})
    assert "has no `train` section" in making(Path("m.pt"), bare, "mnist_ae")


def test_the_line_that_makes_the_model_works(
    run: Run, recipe_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pasted: Callable[[str], list[str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my recipe.yaml").write_text(recipe_text, encoding="utf-8")
    arguments = ("apply", "my recipe.yaml", "my model.pt", "--set", "train.epochs=1")
    text = run(*arguments, code=2).stderr
    run(*pasted(text.partition("train the network first: ")[2]))
    run(*arguments)
    assert (tmp_path / "tiny" / "results.json").exists()


@pytest.mark.parametrize("command", ["train", "apply"])
def test_a_model_where_the_recipe_belongs(run: Run, trained: Path, command: str) -> None:
    arguments = [trained, "-o", "m.pt"] if command == "train" else [trained, "mnist_ae"]
    text = run(command, *arguments, code=2).stderr
    assert text == f"error: {trained}: found a model, not a recipe; the recipe comes first: RECIPE MODEL\n"


@pytest.mark.parametrize("arguments", [["export", "mnist_ae", "-o", "files"], ["compare", "mnist_ae", "mnist_ae"]])
def test_a_recipe_where_the_model_belongs(run: Run, here: Path, arguments: list[str]) -> None:
    assert "error: mnist_ae is a recipe, not a file of weights; " in run(*arguments, code=2).stderr
