import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from typer.testing import Result

from compress.recipe.loading import load_recipe, resolved_yaml
from compress.recipe.schema import FORMS, Part, Recipe, json_schema
from compress.recipe.shipped import shipped, shipped_text
from compress.task_words import WORDS

ROOT = Path(__file__).parents[2]
PARTS = ("ae", "classifier", "decoder")
PAPER = [*(f"{data}_{part}" for data in ("cifar10", "fashion_mnist", "mnist") for part in PARTS), "mnist_latent"]
FEATURES, LENETS = "mnist_ae_features", ["lenet_300_100", "lenet_5"]
OTHER_DATA = ["bert_tiny", "breast_cancer_mlp", "char_lm", "char_lm_transformer", "shuttle_ae", "vowels_lstm"]
NAMES = sorted([*PAPER, FEATURES, *OTHER_DATA, "cifar10_resnet", "fashion_mnist_vit", "mnist_lstm", *LENETS])


def test_recipes_are_shipped_each_with_a_summary() -> None:
    assert [name for name, _ in shipped()] == NAMES
    of_the_paper = re.compile(r"\w.* \(paper, section (IV|V|VI|VIII)\)\.")
    assert [name for name, summary in shipped() if of_the_paper.fullmatch(summary)] == sorted([*PAPER, FEATURES])
    assert all(re.fullmatch(r"\w.*\.", summary) for _, summary in shipped())


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_loads_and_is_named_like_its_file(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe == load_recipe(ROOT / "recipes" / f"{name}.yaml")
    assert recipe.train is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_says_what_it_does_how_to_run_it_and_what_to_expect(name: str) -> None:
    lines = shipped_text(name).splitlines()
    assert lines[1] == "# yaml-language-server: $schema=../docs/recipe.schema.json"
    assert f"#   compress train recipes/{name}.yaml -o model.pt" in lines
    assert f"#   compress apply recipes/{name}.yaml model.pt" in lines
    assert any(line.startswith("# Expected") for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_editors_find_no_fault_with_a_shipped_recipe(name: str) -> None:
    validator = Draft202012Validator(json_schema())
    for text in ((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"), resolved_yaml(load_recipe(name))):
        assert [error.message for error in validator.iter_errors(YAML(typ="safe", pure=True).load(text))] == []


@pytest.mark.parametrize("data", ["cifar10", "fashion_mnist", "mnist"])
def test_the_recipes_train_and_take_as_much_as_the_paper(data: str) -> None:
    """How it goes is what the comparisons found to be best; networks, training and epochs are the paper's."""
    for what, epochs, sparsity in (("ae", 3 if data == "cifar10" else 5, 0.75), ("decoder", 1, 0.9)):
        recipe = load_recipe(f"{data}_{what}")
        stage = recipe.stages[0]
        assert recipe.train is not None
        assert stage.retrain is not None
        assert (recipe.train.optimizer, recipe.train.lr, recipe.train.weight_decay) == ("adamw", 1e-3, 1e-4)
        assert (stage.retrain.epochs, stage.retrain.trainable, stage.sparsity) == (epochs, "all", sparsity)


@pytest.mark.parametrize("data", ["cifar10", "fashion_mnist", "mnist"])
def test_the_classifiers_retrain_as_long_as_the_paper_and_otherwise_take_what_wins(data: str) -> None:
    (stage,) = load_recipe(f"{data}_classifier").stages
    assert stage.retrain is not None
    assert (stage.removal.kind, stage.retrain.epochs, stage.sparsity) == ("gradual_soft", 1, 0.97)


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(
    ("name", "change", "measure"),
    [
        ("cifar10_resnet", "model.image=[1, 28, 28]", "macs"),
        ("mnist_lstm", "model.hidden=32", "params"),
        ("fashion_mnist_vit", "model.depth=2", None),
    ],
)
def test_recipes_for_other_networks_run_from_end_to_end(
    run: Callable[..., Result], tmp_path: Path, name: str, change: str, measure: str | None
) -> None:
    """On a few digits: 4 steps an epoch."""
    changes = [change, "data={name: mnist_sample, train: 96, test: 40, batch_size: 24}", "train.epochs=1"]
    changes += ["stages.0.criterion.samples=48", "stages.0.retrain.epochs=1", "export=[]"]
    if load_recipe(name).stages[0].removal.kind == "soft":
        changes += ["stages.0.removal=soft"]
    else:
        changes += [f"stages.0.removal.{key}" for key in ("cohort=1 step", "every=1 step", "over=3 steps")]
    options = [part for item in changes for part in ("--set", item)]
    run("train", name, "-o", tmp_path / "model.pt", *options)
    found = json.loads(run("apply", name, tmp_path / "model.pt", "-o", tmp_path / "out", "--json", *options).stdout)
    dense, slim = found["models"]["dense"], found["models"]["slim"]
    assert found["parity"]["masked_vs_slim"] <= found["parity"]["tolerance"]
    assert slim["params"] < dense["params"]
    if measure is not None:
        assert 0.3 * dense[measure] < slim[measure] <= 0.5 * dense[measure]
    else:
        assert found["stages"][0]["achieved"] == 0.5


def schema_parts() -> list[type[Part]]:
    found: list[type[Part]] = []

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Part) and annotation not in found:
            found.append(annotation)
            for field in annotation.model_fields.values():
                visit(field.annotation)
        for inner in get_args(annotation):
            visit(inner)

    visit(Recipe)
    return found


def test_every_form_is_known_to_the_explanations() -> None:
    kinds = {
        value
        for part in schema_parts()
        for key in ("kind", "name")
        if part is not Recipe and key in part.model_fields
        for value in get_args(part.model_fields[key].annotation)
    }
    of_int8 = {"auto", "static", "dynamic"}  # a word of `quantize`, which has one form
    assert kinds - of_int8 - set(WORDS) <= set(FORMS)  # a task with settings has one form, whatever its word
    assert {form for form in FORMS.values() if form} <= set(schema_parts())


def test_the_table_of_recipes_is_complete() -> None:
    readme = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"[{name}]({name}.yaml)" not in readme] == []


def test_the_example_of_a_recipe_of_ones_own_loads(tmp_path: Path) -> None:
    readme = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    path = tmp_path / "mine.yaml"
    path.write_text(example, encoding="utf-8")
    assert load_recipe(path).name == "mine"
