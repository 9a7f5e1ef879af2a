import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from compress.errors import RecipeError
from compress.quantize.settings import Calibration, Quantization
from compress.recipe.loading import load_recipe
from compress.recipe.schema import (
    CRITERIA,
    FORMS,
    REMOVALS,
    Duration,
    Nodes,
    Recipe,
    Stage,
    Weights,
    json_schema,
)
from compress.remove import removals
from compress.select import criteria
from compress.select.pattern import Pattern

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "recipe.schema.json"

RETRAIN = {"epochs": 5, "optimizer": "adamw", "lr": 1e-3}
NODES = {"target": {"nodes": "latent"}, "criterion": "skeletonization", "sparsity": 0.75, "removal": "hard"}
WEIGHTS = {"target": {"weights": ["decoder.*"]}, "criterion": "magnitude", "sparsity": 0.8, "removal": "hard"}
RECIPE = {
    "name": "x",
    "model": {"name": "autoencoder"},
    "data": {"name": "mnist"},
    "task": "reconstruct",
    "stages": [NODES],
}


def stage(base: dict[str, Any], **changes: Any) -> Stage:
    return Stage.model_validate({**base, **changes})


def test_defaults() -> None:
    recipe = Recipe.model_validate(RECIPE)
    assert recipe.seed == 0
    assert recipe.train is None
    assert recipe.export == ("onnx", "safetensors", "pt2")
    assert (recipe.benchmark.batch_sizes, recipe.benchmark.threads) == ((1, 32), 1)
    assert recipe.data.batch_size == 128
    assert stage(WEIGHTS).scope == "global"
    assert stage(NODES).scope is None


def test_shorthands_mean_the_long_forms() -> None:
    assert stage(NODES).target == Nodes(nodes=("latent",))
    assert stage(WEIGHTS, target={"weights": "a.*"}).target == Weights(weights=("a.*",))
    assert stage(NODES).criterion == CRITERIA["skeletonization"](kind="skeletonization", error="loss", reduce="square")
    assert stage(WEIGHTS).criterion == CRITERIA["magnitude"](kind="magnitude")
    assert stage(WEIGHTS).removal == REMOVALS["hard"](kind="hard")
    soft = stage(WEIGHTS, removal="soft", retrain=RETRAIN).removal
    assert soft == REMOVALS["soft"](kind="soft", decay="exponential", over=None, factor=None, final=1e-6, learns=False)


def test_only_the_exponential_decay_has_a_final_share() -> None:
    assert REMOVALS["soft"](kind="soft", decay="linear").final is None
    assert REMOVALS["soft"].model_validate({"kind": "soft", "final": 0.5}).final == 0.5


def test_min_keep_is_a_number_of_entries_or_a_share() -> None:
    assert stage(WEIGHTS, min_keep=1).min_keep == 1
    assert isinstance(stage(WEIGHTS, min_keep=1).min_keep, int)
    assert stage(WEIGHTS, min_keep=0.5).min_keep == 0.5


def test_a_recipe_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Recipe.model_validate(RECIPE).seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "steps_per_epoch", "steps"),
    [
        ("3 epochs", 391, 1173),
        ("1 epoch", 391, 391),
        ("0.5 epochs", 391, 196),
        ("0.0001 epochs", 391, 1),
        ("1000 steps", 391, 1000),
        ("1 step", 391, 1),
    ],
)
def test_durations_in_steps(text: str, steps_per_epoch: int, steps: int) -> None:
    assert Duration.parse(text).steps(steps_per_epoch) == steps


@given(st.integers(1, 10**13 - 1), st.sampled_from(["epochs", "steps"]))
def test_a_duration_reads_back_from_its_text(ten_thousandths: int, unit: str) -> None:
    # Against exact fractions: up to nine digits before and four behind the point.
    exact = Fraction(ten_thousandths, 10_000) if unit == "epochs" else Fraction(ten_thousandths // 10_000 + 1)
    if exact >= 10**9:
        return
    text = f"{float(exact):.4f}" if unit == "epochs" else str(exact)
    duration = Duration.parse(f"{text} {unit}")
    assert Fraction(str(duration.amount)) == exact
    assert Duration.parse(str(duration)) == duration


@pytest.mark.parametrize(
    "text", ["3", "three epochs", "0 epochs", "-1 epochs", "0.5 steps", "1e3 steps", "3epochs", "3 days", "1 step\n", 3]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="needs a number above 0 and its unit"):
        Duration.parse(text)


def test_the_committed_json_schema_is_current() -> None:
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == json_schema(), (
        "docs/recipe.schema.json is out of date; run: compress recipes --schema > docs/recipe.schema.json"
    )


def test_the_json_schema_takes_what_the_models_take() -> None:
    Draft202012Validator.check_schema(json_schema())
    validator = Draft202012Validator(json_schema())
    soft = {"kind": "soft", "decay": "linear", "over": "3 epochs"}
    for taken in (
        RECIPE,
        {**RECIPE, "stages": [{**WEIGHTS, "removal": soft, "retrain": {**RETRAIN, "trainable": ["a.*"]}}]},
        {**RECIPE, "model": {"factory": "m:build", "args": {"width": [1, None]}}, "data": {"npz": "a.npz"}},
    ):
        Recipe.model_validate(taken)
        assert validator.is_valid(taken)
    for refused in (
        {**RECIPE, "sed": 1},
        {**RECIPE, "stages": []},
        {**RECIPE, "model": {"name": "autoencoder", "classes": 3}},
        {**RECIPE, "stages": [{**NODES, "sparsity": 1.0}]},
        {**RECIPE, "stages": [{**NODES, "criterion": "magic"}]},
        {**RECIPE, "stages": [{**NODES, "removal": {**soft, "over": "3"}}]},
        {**RECIPE, "stages": [{**NODES, "target": {"nodes": []}}]},
    ):
        with pytest.raises(ValidationError):
            Recipe.model_validate(refused)
        assert not validator.is_valid(refused)


@pytest.mark.parametrize("criterion", ["scaled_magnitude", "lamp", "obd"])
def test_a_criterion_for_weights_is_refused_for_nodes(criterion: str) -> None:
    assert stage(WEIGHTS, criterion=criterion, scope="erk").criterion.kind == criterion
    with pytest.raises(ValidationError, match=f"{criterion} ranks weights, and the target is nodes; use skel"):
        stage(NODES, criterion=criterion)


@pytest.mark.parametrize("criterion", ["skeletonization", "norms", "variance", "ablation"])
def test_a_criterion_for_nodes_is_refused_for_weights(criterion: str) -> None:
    assert stage(NODES, criterion=criterion).criterion.kind == criterion
    with pytest.raises(ValidationError, match=f"{criterion} ranks nodes, and the target is weights; use magnitude"):
        stage(WEIGHTS, criterion=criterion)


GRADUAL_WEIGHTS = {**WEIGHTS, "removal": "gradual", "retrain": RETRAIN, "regrow": {"share": 0.3}}


@pytest.mark.parametrize("removal", ["gradual", "gradual_soft"])
def test_regrowth_is_for_weights_that_go_gradually(removal: str) -> None:
    found = stage(GRADUAL_WEIGHTS, removal=removal).regrow
    assert found is not None
    assert (found.share, found.samples) == (0.3, 500)
    assert stage(GRADUAL_WEIGHTS, regrow={"share": 0.3, "samples": "all"}).regrow.samples == "all"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"removal": "hard"}, "hard removal chooses once, .* use removal: gradual or gradual_soft"),
        ({"removal": "soft"}, "soft removal chooses once"),
        ({"removal": "greg"}, "greg removal chooses once"),
        ({"removal": "sfp"}, "weights that sfp removal lowers keep learning, and grow back; remove the key"),
        ({"removal": "srfp"}, "weights that srfp removal lowers keep learning"),
        ({"target": {"nodes": "latent"}, "scope": None}, "regrow is for weights, and the target is nodes"),
        ({"regrow": {"share": 1.0}}, "less than 1"),
        ({"regrow": {"samples": 100}}, "share"),
    ],
)
def test_regrowth_where_there_is_none(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        stage(GRADUAL_WEIGHTS, **changes)


PATTERN = {key: value for key, value in WEIGHTS.items() if key != "sparsity"} | {"scope": {"n": 2, "m": 4}}


def test_a_pattern_sets_the_sparsity() -> None:
    found = stage(PATTERN)
    assert str(found.scope) == "2:4"
    assert (found.level, found.goes, found.sparsity) == (("sparsity", 0.5), 0.5, 0.5)
    assert stage(PATTERN, sparsity=0.5) == found
    assert Stage.model_validate(found.model_dump(mode="json")) == found
    assert found.scope.build() == Pattern(2, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": 0.6}, "found 0.6, and the pattern 2:4 of `scope` prunes 0.5; remove the key"),
        ({"min_keep": 2}, "says how many weights are kept"),
        ({"layers": {"*": 0.5}}, "2:4 and `layers` both set the share"),
        ({"scope": {"n": 4, "m": 4}}, "keep fewer than there are"),
        ({"scope": {"n": 2}}, "m"),
        ({"scope": {"n": 2, "m": 4, "k": 1}}, "Extra inputs"),
        ({"target": {"nodes": "latent"}}, "for weights, and the target is nodes"),
        ({"target": {"weights": "*", "bias": True}}, "the target is biases as well"),
    ],
)
def test_a_pattern_where_it_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        stage(PATTERN, **changes)


def test_every_criterion_has_a_name() -> None:
    """What recipes, and Python, can name is what the two lists of the core hold."""
    assert CRITERIA.keys() == {word for member in criteria.CRITERIA for word in member.words}
    assert REMOVALS.keys() == {word for member in removals.REMOVALS for word in member.words}
    assert {*CRITERIA, *REMOVALS} <= set(FORMS)


@pytest.mark.parametrize("word", CRITERIA)
def test_a_criterion_of_a_recipe_is_that_of_python(word: str) -> None:
    """Built from what the recipe says, it is the object that the word means in Python."""
    base = NODES if CRITERIA[word].member.ranks_nodes() else WEIGHTS
    assert stage(base, criterion=word).criterion.build() == criteria.criterion_of(word)
    if "samples" in CRITERIA[word].model_fields:
        built = stage(base, criterion={"kind": word, "samples": "all"}).criterion.build()
        assert built == dataclasses.replace(criteria.criterion_of(word), samples="all")


@pytest.mark.parametrize("word", REMOVALS)
def test_a_removal_of_a_recipe_is_that_of_python(word: str) -> None:
    wanted = {"kind": word} if word == "hard" else {"kind": word, "over": "30 steps"}
    built = stage(WEIGHTS, removal=wanted, retrain=RETRAIN).removal.build(500, 100)
    member = removals.BY_WORD[word]
    assert type(built) is member
    assert built.length == (0 if word == "hard" else 30)
    if word not in ("hard", "soft"):
        assert built == member(steps=30)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"patch": 5}, "patches of 5 x 5 do not fill images of 28 x 28"),
        ({"image": [3, 32, 30], "patch": 4}, "patches of 4 x 4 do not fill images of 32 x 30"),
        ({"heads": 5}, "5 heads do not divide tokens of 64; choose a divisor, or another `dim`"),
        ({"dim": 30, "heads": 4}, "4 heads do not divide tokens of 30"),
    ],
)
def test_a_vision_transformer_has_whole_patches_and_heads(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({**RECIPE, "task": "classify", "model": {"name": "vision_transformer", **model}})


@pytest.mark.parametrize(
    "model",
    [
        {"name": "vision_transformer", "image": [3, 32, 16], "patch": 8, "dim": 30, "heads": 5},
        {"name": "resnet20", "image": [1, 28, 28]},
        {"name": "row_lstm", "hidden": 7, "layers": 1},
        {"name": "lstm_classifier", "inputs": 12, "steps": 29},
        {"name": "mlp", "inputs": 30, "hidden": [5], "outputs": 3},
    ],
)
def test_networks_that_are_not_the_papers(model: dict[str, Any]) -> None:
    recipe = {**RECIPE, "task": "classify", "model": model, "data": {"npz": "a.npz"}}
    assert Recipe.model_validate(recipe).model.name == model["name"]
    assert Draft202012Validator(json_schema()).is_valid(recipe)
    with pytest.raises(ValidationError, match="classify"):
        Recipe.model_validate({**recipe, "task": "reconstruct"})


def test_a_network_for_tables_has_several_tasks() -> None:
    mlp = {"name": "mlp", "inputs": 30}
    autoencoder = {"name": "mlp_autoencoder", "inputs": 30, "hidden": [8, 4]}
    for model, task in ((mlp, "regress"), (mlp, "multilabel"), (autoencoder, "anomaly"), (autoencoder, "reconstruct")):
        assert Recipe.model_validate({**RECIPE, "model": model, "task": task, "data": {"npz": "a.npz"}}).task == task
    for model, task, able in ((mlp, "anomaly", "classify or"), (autoencoder, "classify", "reconstruct or anomaly")):
        with pytest.raises(ValidationError, match=f"found '{task}', and the model {model['name']} can only {able}"):
            Recipe.model_validate({**RECIPE, "model": model, "task": task, "data": {"npz": "a.npz"}})
    with pytest.raises(ValidationError, match="at least 1 item"):
        Recipe.model_validate({**RECIPE, "model": {**mlp, "hidden": []}, "task": "classify"})


def test_layers_may_have_sparsities_of_their_own() -> None:
    base = {key: value for key, value in WEIGHTS.items() if key != "sparsity"}
    layered = stage(base, layers={"decoder.1.weight": 0.9, "decoder.*": 0})
    assert layered.layers == {"decoder.1.weight": 0.9, "decoder.*": 0}
    assert layered.scope == "layer"
    assert (layered.level, layered.goes) == (("sparsity", 0.9), 0.9)
    for changes, message in (
        ({"layers": {"*": 0.5}, "sparsity": 0.5}, "found together with layers"),
        ({"layers": {"*": 0.5}, "scope": "global"}, "global and `layers` both set the share"),
        ({"layers": {"*": 0}}, "every layer keeps everything"),
        ({"layers": {"*": 1}}, "less than 1"),
        ({"layers": {}}, "at least 1 item"),
        ({}, "missing"),
    ):
        with pytest.raises(ValidationError, match=message):
            stage(base, **changes)
    nodes = {key: value for key, value in NODES.items() if key != "sparsity"}
    assert stage(nodes, layers={"latent": 0.5}).scope == "layer"
    with pytest.raises(ValidationError, match="principal_axes prunes a single layer"):
        stage(nodes, layers={"latent": 0.5}, criterion="principal_axes")
    with pytest.raises(ValidationError, match="found together with layers and macs"):
        stage(NODES, layers={"latent": 0.5}, macs=0.5)


def test_int8_is_made_of_an_onnx_file_and_its_section_needs_it() -> None:
    wanted = {"kind": "static", "calibration": {"samples": 64, "method": "entropy"}, "exclude": ["Gemm"], "max_drop": 1}
    recipe = Recipe.model_validate({**RECIPE, "export": ["onnx", "int8"], "quantize": wanted})
    assert recipe.quantize is not None
    assert recipe.quantize.build() == Quantization("static", True, 1, Calibration(64, "entropy"), ("Gemm",))
    for changes, said in (
        ({"export": ["int8"]}, "int8 is made of the ONNX file"),
        ({"quantize": {}}, "no int8 file is written"),
        ({"export": ["onnx", "int8"], "quantize": {"kind": "qat"}}, "'auto', 'static' or 'dynamic'"),
    ):
        with pytest.raises(ValidationError, match=said):
            Recipe.model_validate({**RECIPE, **changes})


# --- export ---


@pytest.mark.parametrize(
    ("export", "files", "opset"),
    [
        (["onnx", "pt2"], ("onnx", "pt2"), None),
        ([], (), None),
        ({"onnx": {"opset": 20}}, ("onnx",), 20),
        ({"onnx": None, "safetensors": None}, ("onnx", "safetensors"), None),
        ({"sparse": {}, "onnx": {}, "int8": {}}, ("onnx", "int8", "sparse"), None),
        ({}, (), None),
    ],
)
def test_files_are_a_list_or_a_mapping_with_settings(export: Any, files: tuple[str, ...], opset: int | None) -> None:
    recipe = Recipe.model_validate({**RECIPE, "export": export})
    assert (recipe.files, recipe.opset) == (files, opset)
    for dumped in (recipe.model_dump(mode="json"), recipe.model_dump(mode="json", exclude_none=True)):
        assert list(dumped["export"]) == [*files]  # a file that was not asked for is not there
        again = Recipe.model_validate(dumped)
        assert (again.files, again.opset) == (files, opset)


@pytest.mark.parametrize(
    ("export", "text"),
    [
        ({"onnx": {"opset": 17}}, "export.onnx.opset: found 17; needs at least 18"),
        ({"onnx": {"opset": 26}}, "export.onnx.opset: found 26; needs at most 25"),
        ({"onnx": {"opset": "20"}}, "export.onnx.opset: found '20'; needs a whole number"),
        ({"onnx": {"opzet": 20}}, "export.onnx.opzet: unknown key; did you mean opset?"),
        ({"onx": {"opset": 20}}, "export.onx: unknown key; did you mean onnx?"),
        ({"onnx": 20}, "export.onnx: found 20; needs a mapping"),
        (
            {"safetensors": {"opset": 20}},
            "export.safetensors: found the key opset; this file has no settings, write {}",
        ),
        ({"int8": {}}, "export: int8 is made of the ONNX file"),
        (20, "export: found 20; needs a list"),
    ],
)
def test_wrong_settings_of_files_are_named(export: Any, text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({**RECIPE, "export": export}), encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert text in str(error.value)
