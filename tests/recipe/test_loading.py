import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress.errors import RecipeError
from compress.recipe.loading import MAX_BYTES, load_recipe, resolved_yaml
from compress.recipe.schema import Autoencoder, NamedData, Nodes, Recipe
from compress.remove.removals import Soft

GOOD = """\
name: good
seed: 0
model: {name: autoencoder, latent: 64}
data: {name: mnist, train: 50000, batch_size: 128}
task: reconstruct
train: {epochs: 60, optimizer: adamw, lr: 1e-3, weight_decay: 1e-4}
stages:
  - target: {nodes: latent}
    criterion: skeletonization
    sparsity: 0.75
    removal: {kind: soft, decay: exponential, over: 3 epochs}
    retrain: {epochs: 5, optimizer: adamw, lr: 1e-3, trainable: adjacent}
  - target: {weights: ["decoder.*"]}
    criterion: magnitude
    scope: layer
    sparsity: 0.5
    removal: hard
export: [onnx]
benchmark: {batch_sizes: [1, 32]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(path: Path, *overrides: str) -> list[str]:
    """The lines of the error, with the folder taken off."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value).replace(f"{path.parent}{os.sep}", "").splitlines()


def test_a_good_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.model == Autoencoder(name="autoencoder", latent=64)
    assert recipe.data == NamedData(name="mnist", train=50000)
    assert [stage.sparsity for stage in recipe.stages] == [0.75, 0.5]
    assert recipe.stages[0].target == Nodes(nodes=("latent",))


def test_a_float_without_a_point_is_a_number(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.train is not None
    assert (recipe.train.lr, recipe.train.weight_decay) == (0.001, 0.0001)


# (what stands in GOOD, what stands there instead, the mistake)
ONE_MISTAKE = [
    ("name: good", "name: my recipe", "1: name: found 'my recipe'; needs letters, digits, _ and -, such as mnist_ae"),
    ("name: good", "name: 7", "1: name: found 7; needs text (in quotes, if it looks like something else) (letters"),
    ("name: good\n", "", "1: name: missing; add it (letters, digits, _ and -, such as mnist_ae)"),
    ("seed: 0", "sed: 0", "2: sed: unknown key; did you mean seed?"),
    (
        "seed: 0",
        "verbosity: 0",
        "2: verbosity: unknown key; known here are name, seed, model, data, dynamic, task, ",
    ),
    ("seed: 0", "seed: -1", "2: seed: found -1; needs at least 0"),
    ("seed: 0", "seed: 4294967296", "2: seed: found 4294967296; needs a number below 4294967296"),
    ("seed: 0", "seed: yes", "2: seed: found 'yes'; needs a whole number"),
    ("name: autoencoder", "name: autoencodr", "3: model.name: found 'autoencodr'; did you mean autoencoder?"),
    ("name: autoencoder", "name: gpt", "3: model.name: found 'gpt'; needs autoencoder, conv_autoencoder, "),
    ("{name: autoencoder, latent: 64}", "autoencoder", "3: model: found 'autoencoder'; needs a mapping with exactly "),
    ("{name: autoencoder", "{factory: 'a:b', name: autoencoder", "3: model: found a mapping with the keys factory, "),
    ("{nodes: latent}", "{nodes: !part latent}", "8: stages.0.target.nodes: found the YAML tag !part; write the value"),
    ("{nodes: latent}", "{nodes: !!set {latent}}", "8: stages.0.target.nodes: found set("),
    ("latent: 64", "latnt: 64", "3: model.latnt: unknown key; did you mean latent?"),
    ("latent: 64", "classes: 10", "3: model.classes: unknown key; known here are name, latent, image"),
    ("latent: 64", "latent: 0", "3: model.latent: found 0; needs at least 1"),
    ("latent: 64", "image: [1, 28]", "3: model.image.2: missing; add it (channels, height, width)"),
    ("latent: 64", "image: [1, 28, x]", "3: model.image.2: found 'x'; needs a whole number (channels, height, width)"),
    (
        "{name: autoencoder, latent: 64}",
        "{factory: my_module}",
        "3: model.factory: found 'my_module'; needs a function",
    ),
    ("latent: 64}", "image: [3, 32, 32]}", "4: data: mnist has images of [1, 28, 28], and the model takes [3, 32, 32]"),
    (
        "name: mnist,",
        "name: imagenet,",
        "4: data.name: found 'imagenet'; needs mnist, fashion_mnist, cifar10, ",
    ),
    (
        "{name: mnist,",
        "{",
        "4: data: found a mapping with the keys train, batch_size; needs a mapping with exactly one",
    ),
    ("{name: mnist,", "{npz: 3,", "4: data.npz: found 3; needs text"),
    (
        "{name: mnist,",
        "{folder: a, sream: b,",
        "4: data.sream: unknown key; did you mean stream?",
    ),
    (
        "batch_size: 128",
        "batch_size: null",
        "4: data.batch_size: found nothing; needs a whole number (samples in a batch)",
    ),
    ("task: reconstruct", "task: clasify", "5: task: found 'clasify'; did you mean classify?"),
    (
        "task: reconstruct",
        "task: classify",
        "5: task: found 'classify', and the model autoencoder can only reconstruct",
    ),
    ("epochs: 60", "epochs: 0", "6: train.epochs: found 0; needs at least 1 (passes over the training samples)"),
    ("epochs: 60", "epochs: 1.5", "6: train.epochs: found 1.5; needs a whole number"),
    ("epochs: 60, ", "", "6: train.epochs: missing; add it (passes over the training samples)"),
    (
        "optimizer: adamw, lr: 1e-3, weight",
        "optimizer: adma, lr: 1e-3, weight",
        "6: train.optimizer: found 'adma'; did you ",
    ),
    ("lr: 1e-3, weight", "lr: 2001-01-01, weight", "6: train.lr: found 2001-01-01; needs a number (learning rate"),
    ("weight_decay: 1e-4", "weight_decay: .nan", "6: train.weight_decay: found nan; needs a finite number"),
    (
        "weight_decay: 1e-4",
        "momentum: 0.9",
        "6: train.momentum: found 0.9, and adamw has no momentum; remove the key, or ",
    ),
    ("{nodes: latent}", "latent", "8: stages.0.target: found 'latent'; needs a mapping with exactly one of the keys"),
    ("{nodes: latent}", "{nodes: []}", "8: stages.0.target.nodes: found an empty list; needs at least 1 entry"),
    ("{nodes: latent}", "{nodes: [a, a]}", "8: stages.0.target.nodes: a is listed twice; name it once"),
    ("{nodes: latent}", "{nodes: latent, bias: true}", "8: stages.0.target.bias: unknown key; known here are nodes"),
    (
        "skeletonization",
        "skeletonisation",
        "9: stages.0.criterion: found 'skeletonisation'; did you mean skeletonization?",
    ),
    ("skeletonization", "{knd: x}", "9: stages.0.criterion: found a mapping with the keys knd; needs the key kind"),
    ("skeletonization", "{kind: magnitud}", "9: stages.0.criterion.kind: found 'magnitud'; did you mean magnitude?"),
    (
        "skeletonization",
        "[a]",
        "9: stages.0.criterion: found a list of 1; needs a name, or a mapping with the key `kind`",
    ),
    (
        "skeletonization",
        "{kind: skeletonization, reduce: sqare}",
        "9: stages.0.criterion.reduce: found 'sqare'; did you mean square?",
    ),
    (
        "criterion: magnitude",
        "criterion: skeletonization",
        "14: stages.1.criterion: skeletonization ranks nodes, and the ",
    ),
    ("sparsity: 0.75", "sparsity: 1.0", "10: stages.0.sparsity: found 1.0; needs a number below 1 (share of"),
    ("sparsity: 0.75", "sparsity: 75%", "10: stages.0.sparsity: found '75%'; needs a number (share of"),
    ("    sparsity: 0.75\n", "", "8: stages.0.sparsity: missing; add it (share of"),
    (
        "sparsity: 0.75",
        "sparsity: 0.75\n    scope: erk",
        "11: stages.0.scope: erk distributes weights over tensors, and the target is nodes",
    ),
    ("sparsity: 0.75", "sparsity: 0.75\n    macs: 0.5", "10: stages.0.sparsity: found together with macs; both set"),
    ("sparsity: 0.75", "params: 1.5", "10: stages.0.params: found 1.5; needs a number below 1 (instead of sparsity"),
    ("sparsity: 0.5", "macs: 0.5", "16: stages.1.macs: macs is for nodes, and the target is weights; remove the key"),
    ("scope: layer", "scope: isomorphic", "15: stages.1.scope: isomorphic is for nodes, and the target is weights"),
    ("sparsity: 0.75", "sparsity: 0.75\n    min_keep: -1", "11: stages.0.min_keep: found -1; needs at least 0"),
    ("sparsity: 0.75", "sparsity: 0.75\n    min_keep: 1.0", "11: stages.0.min_keep: found 1.0; needs a number below 1"),
    (
        "decay: exponential",
        "decay: exponental",
        "11: stages.0.removal.decay: found 'exponental'; did you mean exponential?",
    ),
    (
        "over: 3 epochs",
        "over: 3",
        "11: stages.0.removal.over: found 3; needs a number above 0 and its unit, as `3 epochs`",
    ),
    (
        "over: 3 epochs",
        "over: 6 epochs",
        "12: stages.0.retrain: 5 epochs end before the removal does (over: 6 epochs);",
    ),
    ("over: 3 epochs", "over: 3 epochs, factor: 0.9", "11: stages.0.removal.factor: found together with the length"),
    (
        "exponential, over: 3 epochs",
        "linear, factor: 0.9",
        "11: stages.0.removal.factor: found 0.9, and only the expon",
    ),
    (
        "exponential, over",
        "linear, final: 0.1, over",
        "11: stages.0.removal.final: found 0.1, and only the exponential",
    ),
    ("removal: hard", "removal: sotf", "17: stages.1.removal: found 'sotf'; did you mean soft?"),
    (
        "removal: hard",
        "removal: {kind: hard, over: 1 epoch}",
        "17: stages.1.removal.over: unknown key; known here are kind",
    ),
    ("removal: hard", "removal: soft", "13: stages.1.retrain: soft removal happens during retraining; add `retrain`"),
    ("retrain: {epochs: 5", "retrain: {epochs: 0", "12: stages.0.retrain: soft removal happens during retraining"),
    (
        "removal: hard",
        "removal: hard\n    retrain: {epochs: 1, optimizer: sgd, lr: 1, trainable: adjacent}",
        "18: stages.1.retrain: trainable: adjacent is for nodes, and the target is weights; use all, or a list",
    ),
    (
        "trainable: adjacent",
        "trainable: latent",
        "12: stages.0.retrain.trainable: found 'latent'; needs all or adjacent",
    ),
    ("trainable: adjacent", "trainable: 1", "12: stages.0.retrain.trainable: found 1; needs a list (all, adjacent to"),
    ("export: [onnx]", "export: [onx]", "18: export.0: found 'onx'; did you mean onnx?"),
    ("export: [onnx]", "export: onnx", "18: export: found 'onnx'; needs a list"),
    ("export: [onnx]", "export: [onnx, onnx]", "18: export: onnx is listed twice; name it once"),
    ("batch_sizes: [1, 32]", "batch_sizes: [0]", "19: benchmark.batch_sizes.0: found 0; needs at least 1"),
    ("benchmark: {batch_sizes: [1, 32]}", "benchmark: 3", "19: benchmark: found 3; needs a mapping"),
    (
        "seed: 0",
        "dynamic: {x: length}",
        "2: dynamic.x: found 'length'; needs a mapping, `key: value` (names of the s",
    ),
    ("seed: 0", "dynamic: {x: {rows: n}}", "2: dynamic.x.rows: found 'rows'; needs a whole number (names of the s"),
    ("seed: 0", "dynamic: {x: {-1: n}}", "2: dynamic.x.-1: found '-1'; needs at least 0 (names of the s"),
    ("seed: 0", "dynamic: {x: {1: a b}}", "2: dynamic.x.1: found 'a b'; needs names of the sizes that vary besides"),
    ("seed: 0", "dynamic: {x: {}}", "2: dynamic.x: found an empty mapping; needs at least 1 entry"),
]


@pytest.mark.parametrize(("old", "new", "expected"), ONE_MISTAKE)
def test_one_mistake_is_one_line_with_its_place(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    (line,) = mistakes(write(tmp_path, GOOD.replace(old, new, 1)))
    assert line.startswith(f"recipe.yaml:{expected}")


def test_all_mistakes_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("seed: 0", "sed: 0").replace("sparsity: 0.75", "sparsity: 1.0").replace("[onnx]", "[onx]")
    text = text.replace("removal: hard", "removal: soft").replace("latent: 64", "latnt: 64")
    found = mistakes(write(tmp_path, text), "train.lr=0", "foo", "stages.7.scope=layer")
    assert [line.split(": ")[:2] for line in found] == [
        ["recipe.yaml:2", "sed"],
        ["recipe.yaml:3", "model.latnt"],
        ["recipe.yaml:10", "stages.0.sparsity"],
        ["recipe.yaml:13", "stages.1.retrain"],
        ["recipe.yaml:18", "export.0"],
        ["--set train.lr=0", "train.lr"],
        ["--set foo", "needs a key and a value, as in --set stages.0.sparsity=0.9"],
        ["--set stages.7.scope=layer", "stages has no entry '7'; its 2 entries are numbered from 0"],
    ]


NOT_A_RECIPE = [
    (b"", "recipe.yaml:1: found nothing; a recipe is a mapping with keys such as name, model, stages"),
    (b"# only a comment\n", "recipe.yaml:1: found nothing; a recipe is"),
    (b"- name: x\n", "recipe.yaml:1: found a list of 1; a recipe is a mapping"),
    (b"mnist\n", "recipe.yaml:1: found 'mnist'; a recipe is a mapping"),
    (b"name: x\nname: y\n", "recipe.yaml:2: name: appears twice; keep one of the two"),
    (b"name: x\ntrain:\n\tepochs: 3\n", "recipe.yaml:3: found a tab; YAML is indented with spaces"),
    (b"name: x\nmodel: a: b\n", "recipe.yaml:2: not YAML: mapping values are not allowed here; check"),
    (b"a: [1, 2\nb: 3\n", "recipe.yaml:2: not YAML: "),
    (b"a: 1\n---\nb: 1\n", "recipe.yaml:2: not YAML: but found another document"),
    (b"a: *nowhere\n", "recipe.yaml:1: not YAML: found undefined alias 'nowhere'"),
    (b"a: &x 1\nb: &x 2\n", "recipe.yaml:1: not YAML: found duplicate anchor 'x'"),
    (
        b"a: 0x" + b"f" * 5000 + b"\n",
        "recipe.yaml:1: a: found a whole number of 20,000 bits; no key takes more than 1,024",
    ),
    (b"a: 2001-99-99\n", "recipe.yaml:1: not YAML: month must be in 1..12; quote values that are text"),
    (b"a: \x07\n", "recipe.yaml:1: not YAML: unacceptable character"),
    (b"name: x\nb: \xff\n", "recipe.yaml:2: byte 0xff is not UTF-8 text; save the file as UTF-8"),
    ("name: x\n".encode("utf-16"), "recipe.yaml:1: byte 0xff is not UTF-8 text"),
    (b"\x80\x02}q\x00.", "recipe.yaml:1: byte 0x80 is not UTF-8 text"),
    (b"a: 1\nb:\n" + b"- " * 5000, "recipe.yaml:1: nested deeper than 32 levels; write it flatter"),
    (b"a: " + b"[" * 40 + b"]" * 40, "recipe.yaml:1: nested deeper than 32 levels; write it flatter"),
    (b"#" * (MAX_BYTES + 1), "recipe.yaml: it is larger than 65,536 bytes; is it the right file?"),
]


@pytest.mark.parametrize(("content", "expected"), NOT_A_RECIPE)
def test_what_is_no_recipe_at_all(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    (line,) = mistakes(path)
    assert line.startswith(expected)


STRANGE = [
    *(
        "9" * 5000,
        "0x" + "f" * 5000,
        "-0x" + "f" * 5000,
        "0b" + "1" * 20_000,
        "0o" + "7" * 6000,
        "1e999",
        "-.inf",
        ".nan",
    ),
    *(
        "2001-01-01",
        "2001-13-45",
        "2001-01-01T00:00:00Z",
        "12:30:45",
        "!!binary aGk=",
        "!!set {a}",
        "!!int x",
        "&a [*a]",
    ),
    *(
        "*b",
        '"\\ud800"',
        '"\\x00"',
        "0x",
        "[" * 20_000,
        "{a: " * 5000,
        "{? [a, b] : c}",
        "{.nan: 1}",
        "\u2028",
        "\x1b[2J",
        "@",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value[:12]))
def test_any_value_is_taken_or_refused_wherever_it_stands(tmp_path: Path, value: str) -> None:
    good = write(tmp_path, GOOD)
    own = GOOD.replace("{name: autoencoder, latent: 64}", "{factory: 'a:b', args: {x: 1}}")
    changes = [f"{key}={value}" for key in ("seed", "stages.0.sparsity", "train.lr", "model.args.x", "name")]
    changes += [f"{before}{value}=1" for before in ("", "model.", "stages.")]
    for change in changes:
        with suppress(RecipeError):
            resolved_yaml(load_recipe(good, [change]))
    for text in (GOOD.replace("seed: 0", f"seed: {value}"), own.replace("x: 1", f"x: {value}")):
        with suppress(RecipeError):
            json.dumps(load_recipe(write(tmp_path, text)).model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize("ends", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_say_nothing(tmp_path: Path, ends: str, mark: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes((mark + GOOD.replace("\n", ends)).encode())
    assert load_recipe(path) == load_recipe(write(tmp_path, GOOD))


def test_what_is_no_file_is_refused_unread(tmp_path: Path) -> None:
    """Whoever waits for a pipe that nobody writes to, or reads a device to its end, is never heard of again."""
    os.mkfifo(tmp_path / "recipe.yaml")
    (line,) = mistakes(tmp_path / "recipe.yaml")
    assert line == ("recipe.yaml: is a pipe; a recipe is read again by the commands that follow, so write it to a file")
    for path in ("/dev/zero", "/dev/tty"):
        with pytest.raises(RecipeError, match=f"{path}: is a device"):
            load_recipe(path)
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match="null byte"):
        load_recipe("recipe\0.yaml")


def test_a_recipe_from_a_pipe_of_the_shell_is_refused_with_the_way_out(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "compress.cli", "plan", "/dev/stdin", "model.pt"]
    done = subprocess.run(command, input=GOOD, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: /dev/stdin: is a pipe; ")


def test_an_alias_bomb_is_refused_without_being_written_out(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]  # 9**20 values
    (line,) = mistakes(write(tmp_path, "\n".join(levels)))
    assert line.endswith("more than 10000 values, aliases written out; write a smaller recipe")


def test_a_value_that_contains_itself_is_refused(tmp_path: Path) -> None:
    (line, *_) = mistakes(write(tmp_path, GOOD + "loop: &loop {again: *loop}\n"))
    assert line.startswith("recipe.yaml:20: ")


def test_anchors_aliases_and_merges_are_plain_values(tmp_path: Path) -> None:
    text = GOOD.replace("\ntrain: {", "\ntrain: &train {").replace(
        "removal: hard\n", "removal: hard\n    retrain: {<<: *train, epochs: 2}\n"
    )
    recipe = load_recipe(write(tmp_path, text.replace("{weights: ", "{bias: &yes true, weights: ")))
    retrain, target = recipe.stages[1].retrain, recipe.stages[1].target
    assert retrain is not None
    assert (retrain.epochs, retrain.optimizer, retrain.weight_decay) == (2, "adamw", 1e-4)
    assert target.model_dump() == {"weights": ("decoder.*",), "bias": True, "exclude": ()}


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert load_recipe(path).name == "good"


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = GOOD.replace("seed: 0", f"seed: !!python/object/apply:os.mkdir ['{marker}']")
    (line,) = mistakes(write(tmp_path, text))
    assert line.startswith("recipe.yaml:2: seed: found the YAML tag ")
    assert not marker.exists()


# --- where a recipe is ---------------------------------------------------------------------------------------------


def test_a_bare_name_finds_the_shipped_recipe_even_beside_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mnist_ae").mkdir()
    assert load_recipe("mnist_ae").name == "mnist_ae"


def test_a_file_comes_before_a_shipped_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mnist_ae").write_text(GOOD, encoding="utf-8")
    assert load_recipe("mnist_ae").name == "good"


def test_mistakes_in_a_shipped_recipe_have_a_place_too() -> None:
    with pytest.raises(
        RecipeError, match=r"^recipes/mnist_ae\.yaml:11: data: mnist has images of \[1, 28, 28\], and the"
    ):
        load_recipe("mnist_ae", ["model.image=[3, 32, 32]"])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("mnist_as", "mnist_as: no such file, and no shipped recipe of that name; did you mean mnist_ae?"),
        (
            "nowhere/mnist_ae.yaml",
            "nowhere/mnist_ae.yaml: no such file, and no shipped recipe of that name; did you mean",
        ),
        ("zzz", "zzz: no such file, and no shipped recipe of that name; `compress recipes` lists them"),
        (".", ".: is a folder; name a recipe file in it"),
        ("x" * 300, f"{'x' * 300}: cannot be read: its name is too long"),
    ],
)
def test_a_recipe_that_is_not_there(source: str, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(source)
    assert str(caught.value).startswith(expected)


# --- overrides -----------------------------------------------------------------------------------------------------


def test_overrides_are_yaml_and_reach_into_lists_and_absent_mappings(tmp_path: Path) -> None:
    text = GOOD.replace("benchmark: {batch_sizes: [1, 32]}\n", "")
    recipe = load_recipe(
        write(tmp_path, text),
        [
            "stages.0.sparsity=0.9",
            "stages.0.sparsity=0.95",
            "stages.0.removal={kind: soft, decay: linear, over: 1 epoch}",
            "stages.0.retrain.lr=1e-2",
            "stages.0.retrain.lr_schedule = cosine",
            "benchmark.threads=2",
            "train=null",
            "export=[]",
        ],
    )
    stage = recipe.stages[0]
    assert stage.sparsity == 0.95
    assert stage.removal.member is Soft
    assert (stage.removal.decay, str(stage.removal.over)) == ("linear", "1 epoch")
    assert stage.retrain is not None
    assert (stage.retrain.lr, stage.retrain.lr_schedule) == (0.01, "cosine")
    assert recipe.benchmark.threads == 2
    assert recipe.train is None
    assert recipe.export == ()


WRONG_OVERRIDES = [
    ("stages.0.sparsity=1.0", "stages.0.sparsity: found 1.0; needs a number below 1"),
    ("stages.0.sparsty=0.5", "stages.0.sparsty: unknown key; did you mean sparsity?"),
    ("trian.epochs=3", "trian: unknown key; did you mean train?"),
    ("bench.mark.x=3", "bench: unknown key; did you mean benchmark?"),
    ("model.latent=many", "model.latent: found 'many'; needs a whole number (number of latent nodes)"),
    ("model={name: classifer}", "model.name: found 'classifer'; did you mean classifier?"),
    ("stages.2.sparsity=0.5", "stages has no entry '2'; its 2 entries are numbered from 0"),
    ("stages.first.sparsity=0.5", "stages has no entry 'first'; its 2 entries are numbered from 0"),
    ("stages.-1.sparsity=0.5", "stages has no entry '-1'; its 2 entries are numbered from 0"),
    ("stages.1.removal.kind=soft", "stages.1.removal is 'hard', which has no keys; set the whole value, as in --set "),
    ("seed", "needs a key and a value, as in --set stages.0.sparsity=0.9"),
    ("=3", "needs a key and a value, as in --set stages.0.sparsity=0.9"),
    ("train..lr=3", "needs a key and a value, as in --set stages.0.sparsity=0.9"),
    ("seed=", "seed: found nothing; needs a whole number"),
    ("export=[onnx", "not YAML: "),
    ("train={lr: 1, lr: 2}", "lr: appears twice; keep one of the two"),
]


@pytest.mark.parametrize(("override", "expected"), WRONG_OVERRIDES)
def test_a_wrong_override_is_named_as_it_was_given(tmp_path: Path, override: str, expected: str) -> None:
    (line,) = mistakes(write(tmp_path, GOOD), override)
    assert line.startswith(f"--set {override}: {expected}")


# --- properties ----------------------------------------------------------------------------------------------------

texts = st.text(min_size=1, max_size=8)
names = st.text("abcXYZ019_-", min_size=1, max_size=12)
lists_of_names = st.lists(texts, min_size=1, max_size=3, unique=True)
positive = st.floats(1e-12, 1e6)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)
counts = st.integers(1, 10**9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def mapping(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    as_strategy = {
        key: value if isinstance(value, st.SearchStrategy) else st.just(value) for key, value in required.items()
    }
    return st.fixed_dictionaries(as_strategy, optional=optional)


def training(least_epochs: int = 1) -> st.SearchStrategy[dict[str, Any]]:
    common = {"epochs": st.integers(least_epochs, 1000), "lr": positive}
    more = {"weight_decay": st.floats(0, 1), "lr_schedule": st.sampled_from(["constant", "cosine"])}
    momentum = st.floats(0, 1, exclude_max=True)
    return mapping({**common, "optimizer": "sgd"}, momentum=momentum, **more) | mapping(
        {**common, "optimizer": st.sampled_from(["adam", "adamw"])}, **more
    )


soft = st.one_of(
    st.just("soft"),
    mapping({"kind": "soft"}, over=st.sampled_from(["1 epoch", "0.25 epochs", "7 steps"]), final=shares),
    mapping({"kind": "soft", "decay": "exponential", "factor": shares}, final=shares),
    mapping({"kind": "soft", "decay": st.sampled_from(["linear", "cosine", "polynomial", "sigmoid", "step"])}),
)
hard = st.sampled_from(["hard", {"kind": "hard"}])
skeletonization = mapping(
    {"kind": "skeletonization"},
    error=st.sampled_from(["loss", "linear"]),
    reduce=st.sampled_from(["sum", "abs", "square"]),
    samples=counts | st.just("all"),
)


def stages_for(
    target: dict[str, Any], criterion: Any, trainable: Any, **more: Any
) -> st.SearchStrategy[dict[str, Any]]:
    base = {
        "target": mapping(target, **({"bias": st.booleans()} if "weights" in target else {})),
        "criterion": criterion,
        "sparsity": st.floats(0, 1, exclude_max=True),
    }
    more["min_keep"] = counts | shares

    def retrain(least: int) -> st.SearchStrategy[dict[str, Any]]:
        return st.tuples(training(least), trainable).map(lambda pair: {**pair[0], "trainable": pair[1]})

    return mapping({**base, "removal": hard}, retrain=retrain(0), **more) | mapping(
        {**base, "removal": soft, "retrain": retrain(1)}, **more
    )


stages = stages_for(
    {"nodes": texts | lists_of_names},
    st.sampled_from(["magnitude", "random", "skeletonization", "norms", "variance"])
    | skeletonization
    | mapping({"kind": "ablation"}, samples=counts | st.just("all")),
    st.sampled_from(["all", "adjacent"]) | lists_of_names,
) | stages_for(
    {"weights": lists_of_names},
    st.sampled_from(["magnitude", "random", {"kind": "magnitude"}, "scaled_magnitude", "lamp"])
    | mapping({"kind": st.sampled_from(["taylor", "taylor_square", "snip", "obd"])}, samples=counts | st.just("all")),
    st.just("all") | lists_of_names,
    scope=st.sampled_from(["global", "layer", "erk"]),
)
limits = {"train": counts, "test": counts, "batch_size": counts}
sources = st.one_of(
    mapping({"npz": texts}, npz_test=texts, **limits),
    mapping({"folder": texts}, **limits),
    st.just({"factory": "my_module:loaders"}),
)
images = st.lists(st.integers(1, 64), min_size=3, max_size=3)
models_and_tasks = st.one_of(
    st.tuples(mapping({"name": "autoencoder"}, latent=counts, image=images), st.just("reconstruct")),
    st.tuples(mapping({"name": "conv_autoencoder"}, latent=counts), st.just("reconstruct")),
    st.tuples(mapping({"name": "classifier"}, image=images, classes=st.integers(2, 99)), st.just("classify")),
    st.tuples(mapping({"name": "conv_classifier"}, classes=st.integers(2, 99)), st.just("classify")),
    st.tuples(
        mapping({"factory": "my.module:build"}, args=st.dictionaries(texts, json_values, max_size=3)),
        st.sampled_from(["reconstruct", "classify"]),
    ),
)
recipes = st.tuples(
    mapping(
        {"name": names, "data": sources, "stages": st.lists(stages, min_size=1, max_size=3)},
        seed=st.integers(0, 2**32 - 1),
        train=training(),
        export=st.lists(st.sampled_from(["onnx", "safetensors", "pt2"]), unique=True),
        benchmark=mapping({}, batch_sizes=st.lists(counts, min_size=1, max_size=3, unique=True), threads=counts),
    ),
    models_and_tasks,
).map(lambda parts: {**parts[0], "model": parts[1][0], "task": parts[1][1]})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=recipes)
def test_a_resolved_recipe_loads_as_the_same_recipe(
    raw: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = Recipe.model_validate(raw)
    path = write(tmp_path_factory.getbasetemp(), resolved_yaml(recipe))
    assert load_recipe(path) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=80) | st.text("ab:-[]{}&*!<>|'\"#%@?,.~0123456789\n\t ", max_size=60).map(str.encode))
def test_whatever_the_file_holds_the_answer_is_a_recipe_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError):
        load_recipe(path)


LEAVES = [f"stages.0.{key}" for key in ("target", "criterion", "scope", "min_keep", "removal", "retrain")]
LEAVES += ["name", "seed", "model.name", "data.train", "task", "train.lr", "train.momentum", "export.0", "benchmark.x"]
settable = st.sampled_from(
    [*LEAVES, "stages.0.target.nodes", "stages.0.removal.over", "stages", "model", "data", "train"]
)


@settings(max_examples=200, deadline=None)
@given(overrides=st.lists(st.tuples(settable, json_values), min_size=1, max_size=3))
def test_whatever_is_set_every_mistake_is_a_line_with_its_place(overrides: list[tuple[str, Any]]) -> None:
    try:
        load_recipe("mnist_ae", [f"{key}={json.dumps(value)}" for key, value in overrides])
    except RecipeError as error:
        lines = str(error).splitlines()
    else:
        lines = []
    assert all(line.startswith(("recipes/mnist_ae.yaml:", "--set ")) for line in lines)


@pytest.mark.parametrize(
    "number",
    ["9" * 5000, "9" * 4000, "-" + "9" * 5000, "0x" + "f" * 5000, "0o" + "7" * 9000, "1_" * 5000 + "1", f"{2**63}"],
    ids=["decimal", "below Python's limit", "negative", "hexadecimal", "octal", "underscores", "2^63"],
)
@pytest.mark.parametrize("key", ["seed", "train.epochs", "stages.0.sparsity", "data.batch_size", "model.x.y"])
def test_a_whole_number_of_thousands_of_digits_is_a_mistake_of_one_short_line(
    tmp_path: Path, number: str, key: str
) -> None:
    (line,) = mistakes(write(tmp_path, GOOD), f"{key}={number}")
    assert line.startswith(f"--set {key}={number}"[:190])
    assert "found a whole number of" in line
    assert len(line) < 400
    (line,) = mistakes(write(tmp_path, GOOD.replace("seed: 0", f"seed: {number}")))
    assert re.match(r".*recipe\.yaml:\d+: (seed: )?found a whole number of", line)
    (line,) = mistakes(write(tmp_path, GOOD), f"stages.{number}.sparsity=0.5")
    assert "has no entry" in line


def test_loading_imports_no_torch() -> None:
    heavy = {"torch", "torchvision", "onnx", "onnxruntime", "matplotlib", "numpy"}
    code = f"import sys, compress.recipe.loading; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
