"""Bad input of every kind: the error text, the exit code, and nothing left behind."""

import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import Result

from compress.files.checkpoint import load_weights, read_weights
from compress.files.marked import MARK
from compress.models import autoencoder
from compress.run import apply
from compress.run.output import added, begin
from compress.select import node_selection
from compress.select.budgets import choose_nodes

Run = Callable[..., Result]
Unchanged = Callable[[Path], AbstractContextManager[None]]
Pictures = Callable[..., dict[str, NDArray[Any]]]

WILD = """\
import torch

def build():
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(36, 8), torch.nn.Linear(8, 36), torch.nn.Unflatten(1, (1, 6, 6))
    )
"""


def untold(text: str) -> str:
    """Without warnings, and without what is said before a factory is called."""
    before = ("the recipe imports ", "warning: ")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(before))


@pytest.fixture
def refused(run: Run, unchanged: Unchanged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command that fails, in the test's folder; give its text. Nothing may be left behind, or on stdout."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object, code: int = 2) -> str:
        with unchanged(tmp_path):
            result = run(*arguments, code=code)
        assert result.stdout == ""
        assert untold(result.stderr).startswith("error: ")
        assert "Traceback" not in result.stderr
        return result.stderr

    return command


# --- the file of weights ---


class Hostile:
    """Unpickled, it runs a command that makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def test_a_missing_file(refused: Callable[..., str], recipe: Path) -> None:
    assert "nowhere.pt does not exist" in refused("apply", recipe, "nowhere.pt", "-o", "out")
    assert f"{recipe.parent} is a folder, not a file of weights" in refused("apply", recipe, recipe.parent, "-o", "out")
    assert "nowhere.pt does not exist" in refused("export", "nowhere.pt", "-o", "out")
    assert "nowhere.pt does not exist" in refused("inspect", "nowhere.pt")
    assert "nowhere.onnx does not exist; name a file to time" in refused("bench", "nowhere.onnx")
    # Before any data is loaded, which may mean to download it.
    assert "train the network first: compress train mnist_ae -o nowhere.pt" in refused("plan", "mnist_ae", "nowhere.pt")


def test_an_empty_file(refused: Callable[..., str], recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    for command in (["apply", recipe, "model.pt", "-o", "out"], ["inspect", "model.pt"]):
        text = refused(*command)
        assert "model.pt is empty (0 bytes)" in text
        assert "torch.save(model.state_dict()" in text


@pytest.mark.parametrize("kept", [1, 1000, -100])
def test_a_truncated_file(refused: Callable[..., str], recipe: Path, tmp_path: Path, trained: Path, kept: int) -> None:
    (tmp_path / "model.pt").write_bytes(trained.read_bytes()[:kept])
    text = refused("apply", recipe, "model.pt", "-o", "out")
    assert "model.pt is damaged or was not written by torch.save" in text


def test_a_pickled_module_is_refused_with_the_line_that_saves_it_again(
    refused: Callable[..., str], recipe: Path, tmp_path: Path
) -> None:
    torch.save(autoencoder(8, (1, 6, 6)), tmp_path / "model.pt")
    text = refused("apply", recipe, "model.pt", "-o", "out")
    assert "holds a pickled object of compress.models.paper.Network instead of weights by name" in text
    assert 'torch.save(model.state_dict(), "model.pt")' in text


@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "torch.save"])
def test_a_hostile_payload_is_never_executed(
    refused: Callable[..., str], recipe: Path, tmp_path: Path, plain: bool
) -> None:
    trace, model = tmp_path / "trace", tmp_path / "model.pt"
    if plain:
        model.write_bytes(pickle.dumps(Hostile(trace), protocol=2))
    else:
        torch.save({"weight": Hostile(trace)}, model)
    for command in (["apply", recipe, model, "-o", "out"], ["export", model, "-o", "out"], ["inspect", model]):
        text = refused(*command)
        assert ("not written by torch.save" if plain else "system") in text
        assert "torch.save(model.state_dict()" in text
        assert not trace.exists()
    # The payload is live: whoever unpickles it, runs it.
    if plain:
        pickle.loads(model.read_bytes())
        assert trace.exists()


def test_a_state_dict_of_another_network(
    refused: Callable[..., str], recipe: Path, tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    del weights["latent.bias"], weights["decoder.1.bias"]
    weights["latent.weight"] = torch.zeros(4, 128)
    weights["extra.weight"] = torch.zeros(1)
    torch.save(weights, tmp_path / "model.pt")
    for command in (
        ["apply", recipe, "model.pt", "-o", "out"],
        ["export", "model.pt", "--recipe", recipe, "-o", "out"],
    ):
        text = refused(*command)
        assert "model.pt does not fit the network Network" in text
        assert "missing: latent.bias, decoder.1.bias;" in text
        assert "unknown to the network: extra.weight;" in text
        assert "of another shape: latent.weight [4, 128] instead of [8, 128]" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(
    refused: Callable[..., str], recipe: Path, tmp_path: Path, weights: dict[str, Tensor], value: float
) -> None:
    weights["latent.weight"][0, 0] = value
    torch.save(weights, tmp_path / "model.pt")
    text = refused("apply", recipe, "model.pt", "-o", "out")
    assert "model.pt has NaN or infinite values in latent.weight" in text


# --- the recipe ---


@pytest.mark.parametrize(
    ("found", "written", "line", "text"),
    [
        ("seed: 0", "seed: [0", 3, "not YAML"),
        ("seed: 0", "sede: 0", 2, "sede: unknown key; did you mean seed?"),
        ("seed: 0", "seed: zero", 2, "seed: found 'zero'; needs a whole number"),
        ("seed: 0", "seed: 0\nseed: 1", 3, "seed: appears twice"),
        ("sparsity: 0.75", "sparsity: 1.0", 10, "stages.0.sparsity: found 1.0; needs a number below 1"),
        ("sparsity: 0.75", "sparsity: much", 10, "stages.0.sparsity: found 'much'; needs a number"),
        ("kind: soft", "kind: sfot", 11, "stages.0.removal.kind: found 'sfot'; did you mean soft?"),
    ],
)
def test_a_mistake_in_the_recipe(
    refused: Callable[..., str], recipe: Path, trained: Path, found: str, written: str, line: int, text: str
) -> None:
    content = recipe.read_text(encoding="utf-8")
    assert content.count(found) == 1
    recipe.write_text(content.replace(found, written), encoding="utf-8")
    for command in (["train", recipe, "-o", "model.pt"], ["apply", recipe, trained, "-o", "out"]):
        assert f"error: {recipe}:{line}: {text}" in refused(*command)


def test_several_mistakes_are_told_at_once(refused: Callable[..., str], recipe: Path, trained: Path) -> None:
    content = recipe.read_text(encoding="utf-8")
    recipe.write_text(content.replace("seed: 0", "sede: 0").replace("0.75", "1.5"), encoding="utf-8")
    lines = refused("apply", recipe, trained, "-o", "out", "--set", "task=guess").splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"error: {recipe}:2: sede: unknown key")
    assert lines[1].startswith(f"{recipe}:10: stages.0.sparsity: found 1.5")
    assert lines[2].startswith("--set task=guess: task: found 'guess'")


def test_no_recipe(refused: Callable[..., str], trained: Path) -> None:
    assert "mnist_a: no such file, and no shipped recipe of that name; did you mean mnist_ae?" in refused(
        "apply", "mnist_a", trained, "-o", "out"
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("stages.0.target={weights: [nothing.*]}", "the pattern 'nothing.*' matches no weight"),
        ("stages.0.target={nodes: middle}", "'middle'"),
        ("stages.0.target={nodes: encoder.2}", "'encoder.2'"),
        ("stages.0.retrain.trainable=[nothing.*]", "trainable: the pattern 'nothing.*' matches no parameter"),
    ],
)
@pytest.mark.parametrize("place", [0, 1], ids=["first stage", "second stage"])
def test_a_target_that_is_not_there(
    refused: Callable[..., str], recipe: Path, trained: Path, change: str, text: str, place: int
) -> None:
    """In a later stage as well it is told before any training."""
    lines = recipe.read_text(encoding="utf-8").splitlines(keepends=True)
    start = lines.index("stages:\n") + 1
    recipe.write_text("".join([*lines[: start + 5], *lines[start:]]), encoding="utf-8")
    change = change.replace("stages.0", f"stages.{place}")
    settings = [f"stages.{place}.criterion=magnitude", f"stages.{place}.retrain.trainable=all", change]
    found = refused("apply", recipe, trained, "-o", "out", *(part for text in settings for part in ("--set", text)))
    assert f"error: --set {change}: stages.{place}.{change.split('=')[0].split('.', 2)[2]}: " in found
    assert text in found


def test_a_target_that_is_not_there_is_told_with_its_line(
    refused: Callable[..., str], recipe: Path, trained: Path
) -> None:
    content = recipe.read_text(encoding="utf-8")
    recipe.write_text(content.replace("nodes: latent", "nodes: middle"), encoding="utf-8")
    text = refused("apply", recipe, trained, "-o", "out", "--set", "seed=1")
    assert f"error: {recipe}:8: stages.0.target: There is no layer 'middle' with nodes of its own; layers with" in text
    recipe.write_text(content.replace("trainable: adjacent", "trainable: [middle.*]"), encoding="utf-8")
    text = refused("apply", recipe, trained, "-o", "out")
    assert (
        f"error: {recipe}:12: stages.0.retrain.trainable: trainable: the pattern 'middle.*' matches no parameter"
        in text
    )


def test_a_decay_that_is_too_slow_is_told_before_training(
    refused: Callable[..., str], recipe: Path, trained: Path
) -> None:
    text = refused(
        "apply", recipe, trained, "-o", "out", "--set", "stages.0.removal={kind: soft, factor: 0.99}"
    )  # 0.99 ** 1375 < 1e-6
    assert "the soft removal takes 1,375 steps and the retraining has 10 (5 an epoch)" in text


# --- the data ---


def with_data(recipe: Path, data: str) -> Path:
    lines = recipe.read_text(encoding="utf-8").splitlines(keepends=True)
    recipe.write_text("".join(f"data: {data}\n" if line.startswith("data:") else line for line in lines))
    return recipe


def test_an_empty_folder_of_images(refused: Callable[..., str], recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    text = refused("train", with_data(recipe, "{folder: images}"), "-o", "model.pt")
    assert "images has " in text
    assert "class folder" in text


def test_no_data_where_the_recipe_says(refused: Callable[..., str], recipe: Path) -> None:
    text = refused("train", with_data(recipe, "{npz: nowhere.npz}"), "-o", "new/folder/model.pt")
    assert "nowhere.npz does not exist" in text


def test_an_npz_without_the_keys(refused: Callable[..., str], recipe: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros(3), labels=np.zeros(3, int))
    text = refused("train", with_data(recipe, "{npz: d.npz}"), "-o", "model.pt")
    assert "d.npz has no array images; it holds x, labels" in text


def test_images_of_another_size(
    refused: Callable[..., str], recipe: Path, trained: Path, tmp_path: Path, pictures: Pictures
) -> None:
    np.savez(tmp_path / "d.npz", **pictures(size=8))
    with_data(recipe, "{npz: d.npz}")
    for command in (["train", recipe, "-o", "model.pt"], ["apply", recipe, trained, "-o", "out"]):
        assert "autoencoder takes inputs of 1x6x6 and d.npz has 1x8x8" in refused(*command)


def test_images_that_a_network_of_ones_own_does_not_take(
    refused: Callable[..., str], recipe: Path, tmp_path: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    (tmp_path / "wild_size.py").write_text(WILD, encoding="utf-8")
    np.savez(tmp_path / "d.npz", **pictures(size=8))
    content = with_data(recipe, "{npz: d.npz}").read_text(encoding="utf-8")
    recipe.write_text(content.replace("{name: autoencoder, latent: 8, image: [1, 6, 6]}", "{factory: wild_size:build}"))
    text = refused("train", recipe, "-o", "model.pt")
    assert "1x8x8" in text
    assert "wild_size:build" in text


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([-1, 0, 1], "label -1 is negative"),
        ([0, 1, 200], "label 2 is missing and 200 is there"),
        ([0, 1, 2], "d.npz has labels up to 2 and classifier only 2 outputs"),
    ],
)
def test_labels_out_of_range(
    refused: Callable[..., str], recipe: Path, tmp_path: Path, pictures: Pictures, labels: list[int], text: str
) -> None:
    np.savez(tmp_path / "d.npz", images=pictures(60)["images"], labels=np.array(labels * 20))
    with_data(recipe, "{npz: d.npz}")
    changes = ("--set", "model={name: classifier, image: [1, 6, 6], classes: 2}", "--set", "task=classify")
    target = ("--set", "stages.0.target={nodes: dense.0}")
    assert text in refused("train", recipe, "-o", "model.pt", *changes, *target)


# --- where to write ---


def test_an_output_that_cannot_be_written(refused: Callable[..., str], recipe: Path, trained: Path) -> None:
    """Root may write anywhere, but nobody below a file."""
    for out in (Path("recipe.yaml") / "out", Path("recipe.yaml") / "deep" / "out"):
        assert f"{out} cannot be written: a part of its path" in refused("apply", recipe, trained, "-o", out)
        assert f"{out} cannot be written: a part of its path" in refused("train", recipe, "-o", out / "model.pt")
        assert "cannot be written" in refused("export", trained, "--recipe", recipe, "-o", out)
    assert "recipe.yaml is a file; name a folder" in refused("apply", recipe, trained, "-o", "recipe.yaml")


def test_an_output_that_is_not_empty(
    refused: Callable[..., str], run: Run, recipe: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    for command in (["apply", recipe, trained], ["export", trained, "--recipe", recipe]):
        for force in ((), ("--force",)):
            assert "out is not empty: softprune did not write mine.txt" in refused(*command, "-o", "out", *force)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    for force in ((), ("--force",)):
        run("export", trained, "--recipe", recipe, "-o", out, "--format", "safetensors", *force)
        assert {path.name for path in out.iterdir()} == {MARK, "model.safetensors"}
        assert "out is not empty; name another folder, or replace its content with --force" in refused(
            *command, "-o", "out"
        )
    shutil.copy(trained, "model.pt")
    assert "model.pt exists; name another file, or replace it with --force" in refused(
        "train", recipe, "-o", "model.pt"
    )
    assert "out is a folder; name a file" in refused("train", recipe, "-o", "out")


def test_a_failing_run_leaves_what_force_would_have_replaced(
    refused: Callable[..., str], recipe: Path, trained: Path, tmp_path: Path
) -> None:
    begin(tmp_path / "out", "apply")
    with added(tmp_path / "out", "results.json") as draft:
        draft.write_text("precious")
    refused("apply", recipe, trained, "-o", "out", "--force", "--set", "stages.0.sparsity=0", code=1)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {MARK, "results.json"}
    assert (tmp_path / "out" / "results.json").read_text() == "precious"


def test_a_file_of_weights_needs_a_suffix_that_says_how(refused: Callable[..., str], recipe: Path) -> None:
    """Told before training, not after it."""
    assert "model.txt ends in '.txt': weights are written as .pt, .pth, .safetensors" in refused(
        "train", recipe, "-o", "model.txt", "--set", "train.epochs=1000000"
    )


# --- runs that fail ---


@pytest.fixture
def wild(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose network is linear, so that a huge learning rate takes it to infinity."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    (tmp_path / "wild.py").write_text(WILD, encoding="utf-8")
    content = recipe.read_text(encoding="utf-8")
    content = content.replace("{name: autoencoder, latent: 8, image: [1, 6, 6]}", "{factory: wild:build}")
    recipe.write_text(content.replace("nodes: latent", "nodes: '1'").replace("adamw", "sgd"), encoding="utf-8")
    return recipe


def wild_network() -> nn.Module:
    namespace: dict[str, Any] = {}
    exec(WILD, namespace)
    torch.manual_seed(0)
    model: nn.Module = namespace["build"]()
    return model


def test_a_training_that_diverges_keeps_the_last_good_weights(run: Run, wild: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    result = run("train", wild, "-o", "deep/model.pt", "--set", "train.lr=1e20", "--quiet", code=1)
    assert untold(result.stderr).startswith("error: the loss became inf at step 2 of 20, where the output of ")
    assert "they are in deep/model.last_good.pt" in result.stderr
    assert {path.name for path in set(tmp_path.rglob("*")) - before} == {"deep", "model.last_good.pt"}
    kept, start = torch.load("deep/model.last_good.pt", weights_only=True), wild_network().state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in start.items())


def test_a_retraining_that_diverges_keeps_the_last_good_weights(run: Run, wild: Path, tmp_path: Path) -> None:
    model = wild_network()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    before = set(tmp_path.iterdir())
    result = run("apply", wild, "model.pt", "-o", "out", "--set", "stages.0.retrain.lr=1e20", "--quiet", code=1)
    assert untold(result.stderr).startswith("error: the loss became inf at step 2 of 10, where the output of ")
    kept = tmp_path / "out" / "checkpoint" / "last_good.safetensors"
    assert "they are in out/checkpoint/last_good.safetensors" in result.stderr
    assert set(tmp_path.rglob("*")) - before == {kept, kept.parent, kept.parent.parent, tmp_path / "out" / MARK}
    restored = wild_network()
    load_weights(restored, read_weights(kept), "the last good weights")
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in restored.state_dict().items())


def test_nothing_pruned(refused: Callable[..., str], recipe: Path, trained: Path) -> None:
    text = refused("apply", recipe, trained, "-o", "out", "--set", "stages.0.sparsity=0.01", code=1)
    assert "no entry would be pruned" in text


def test_a_share_that_is_not_what_was_asked_for(
    refused: Callable[..., str], recipe: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_few(known: Any, scores: Any, measure: Any, value: float, **how: Any) -> Any:
        return choose_nodes(known, scores, measure, 0.5, **how)

    monkeypatch.setattr(node_selection, "choose_nodes", too_few)
    text = refused("apply", recipe, trained, "-o", "out", "--quiet", code=1)
    assert "sparsity 0.75 was requested and 0.5 reached" in text


def test_no_folder_without_its_proof(
    run: Run, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was done until then is kept, for whoever mends what is wrong."""

    def other(*arguments: Any, **how: Any) -> nn.Module:
        small = running_slim(*arguments, **how)
        small.get_parameter("latent.bias").data += 0.1
        return small

    running_slim = apply.slim
    monkeypatch.setattr(apply, "slim", other)
    text = run("apply", recipe, trained, "-o", tmp_path / "out", code=1).stderr
    assert "the output differs by" in text
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "out.partial"}


# --- how it is told ---


def test_debug_shows_the_traceback_and_keeps_the_exit_code(run: Run, recipe: Path) -> None:
    result = run("apply", recipe, "nowhere.pt", "--debug", code=2)
    assert "Traceback" in result.stderr
    assert "CheckpointError: nowhere.pt does not exist" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["aply", "mnist_ae"],
        ["apply"],
        ["apply", "mnist_ae", "model.pt", "--sparsity", "0.9"],
        ["train", "mnist_ae"],
        ["apply", "mnist_ae", "model.pt", "--seed", "zero"],
        ["bench"],
        [],
    ],
)
def test_a_command_that_is_not_understood(run: Run, arguments: list[str]) -> None:
    result = run(*arguments, code=2)
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--device", "tpu"], "--device: found 'tpu'; there is auto, cpu, cuda"),
        (["--set", "stages.0.sparsity"], "--set stages.0.sparsity: needs a key and a value"),
        (["--set", "stages.7.sparsity=0.5"], "stages has no entry '7'"),
        (["--seed", "-1"], "seed: found -1; needs at least 0"),
    ],
)
def test_an_option_with_a_wrong_value(
    refused: Callable[..., str], recipe: Path, trained: Path, arguments: list[str], text: str
) -> None:
    assert text in refused("apply", recipe, trained, "-o", "out", *arguments)


def test_wrong_values_of_the_other_commands(refused: Callable[..., str], recipe: Path, trained: Path) -> None:
    assert "--format: found 'tflite'; there is onnx, safetensors, pt2" in refused(
        "export", trained, "--recipe", recipe, "-o", "out", "--format", "tflite"
    )
    assert "does not name its network: name a recipe for it with --recipe" in refused("export", trained, "-o", "out")
    assert "--batch-sizes 1,x: give numbers separated by commas" in refused("bench", "a.onnx", "--batch-sizes", "1,x")
    assert "recipe.yaml ends in '.yaml': known are .pt" in refused("inspect", recipe)
    assert "the recipe tiny has no `train` section" in refused("train", recipe, "-o", "new.pt", "--set", "train=null")
