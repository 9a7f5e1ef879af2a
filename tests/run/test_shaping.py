"""Stages that shape a latent space, from the recipe to the report."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import Result

from compress import models
from compress.batches import Attributed
from compress.data import sources
from compress.files.checkpoint import load
from compress.train.latents import codes
from compress.train.probes import probe

Run = Callable[..., Result]

RECIPE = """\
name: shaped
model: {name: autoencoder, latent: 8, image: [1, 6, 6]}
data: {npz: NPZ, attributes: [maker, same], batch_size: 20}
task: reconstruct
train: {epochs: 4, optimizer: adamw, lr: 1e-3}
stages:
  - target: {nodes: latent}
    criterion: principal_axes
    sparsity: 0.5
    removal: {kind: soft, over: 1 epoch}
    retrain: {epochs: 6, optimizer: adamw, lr: 2e-3}
    shape: {keep: {label: 0.1}, drop: {maker: 0.2}}
export: [safetensors]
benchmark: {batch_sizes: [1]}
"""

pytestmark = pytest.mark.filterwarnings("ignore::compress.run_warnings.RunWarning")


@pytest.fixture(scope="module")
def data(made_once: Callable[..., Path], pictures: Callable[..., dict[str, Any]]) -> Path:
    """Pictures of two makers, independent of their class: those of the second one are darker."""

    def fill(folder: Path) -> None:
        found, maker = pictures(240), np.arange(240) // 3 % 2
        found["images"] = (found["images"] * np.where(maker, 0.4, 1.0)[:, None, None]).astype(np.uint8)
        np.savez(folder / "makers.npz", **found, maker=maker, same=0 * maker)

    return made_once("makers", fill) / "makers.npz"


@pytest.fixture(scope="module")
def recipe(made_once: Callable[..., Path], data: Path, run: Run) -> Path:
    """The recipe, beside its trained network model.pt and its results in out."""

    def fill(folder: Path) -> None:
        (folder / "recipe.yaml").write_text(RECIPE.replace("NPZ", json.dumps(str(data))), encoding="utf-8")
        run("train", folder / "recipe.yaml", "-o", folder / "model.pt")
        run("apply", folder / "recipe.yaml", folder / "model.pt", "-o", folder / "out")

    return made_once("shaped", fill) / "recipe.yaml"


def test_the_probes_are_those_of_the_slim_file(recipe: Path, data: Path) -> None:
    results = json.loads((recipe.parent / "out" / "results.json").read_text(encoding="utf-8"))
    (latent,) = results["latents"]
    assert latent["stage"] == 1
    assert latent["dense"] == {"layer": "latent", "nodes": 8}
    assert latent["slim"] == {"layer": "decoder.1.axes", "nodes": 4}
    shown = [(one["name"], one["aim"], one["weight"], one["classes"]) for one in latent["attributes"]]
    assert shown == [("label", "keep", 0.1, 3), ("maker", "drop", 0.2, 2)]
    assert results["stages"][0]["latent"] == "decoder.1.axes"
    assert results["data"]["attributes"] == {"maker": 2, "same": 1}
    # The same again, from the files alone.
    small = load(recipe.parent / "out" / "slim.safetensors", model=lambda: models.autoencoder(8, (1, 6, 6)))
    found = sources.from_npz(data, attributes=("maker",))
    parts = [
        codes(small, "decoder.1.axes", found.batches(part, 250, "reconstruct", attributes=("maker", "label"))())
        for part in ("train", "test")
    ]
    assert parts[0].codes.shape == (200, 4)
    for one in latent["attributes"]:
        assert one["slim"]["linear"] == pytest.approx(probe(*parts, one["name"]), abs=0.03)
        truth = parts[1].attributes[one["name"]].numpy()
        assert one["chance"] == pytest.approx(np.bincount(truth).max() / 40)


def test_files_hold_no_head_and_no_adversary(recipe: Path) -> None:
    tensors = load_file(recipe.parent / "out" / "slim.safetensors")
    names = {name.rpartition(".")[0] for name in tensors}
    plain = {f"encoder.{number}" for number in (1, 3, 5, 7)} | {f"decoder.{number}" for number in (3, 5, 7, 9)}
    assert names == {*plain, "latent", "decoder.1.axes", "decoder.1.reader"}


def test_the_report_and_the_terminal_show_the_probes(recipe: Path, run: Run) -> None:
    page = (recipe.parent / "out" / "report.html").read_text(encoding="utf-8")
    assert "What the latent space holds" in page
    assert "slim: 4 nodes of decoder.1.axes" in page
    again = run("report", recipe.parent / "out", "-o", recipe.parent / "again.html")
    assert again.exit_code == 0
    assert (recipe.parent / "again.html").read_text(encoding="utf-8") == page


def test_a_plan_shows_what_is_shaped(recipe: Path, run: Run) -> None:
    text = " ".join(run("plan", recipe, recipe.parent / "model.pt").output.split())
    assert (
        "stage 1: the remaining nodes of decoder.1.axes learn label (3 classes, weight 0.1) and become independent of "
        "maker (2 classes, weight 0.2)"
    ) in text
    (stage,) = json.loads(run("plan", recipe, recipe.parent / "model.pt", "--json").stdout)["stages"]
    assert stage["shape"] == {
        "layer": "decoder.1.axes",
        "keep": {"label": 0.1},
        "drop": {"maker": 0.2},
        "classes": {"label": 3, "maker": 2},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "shape={drop: {makre: 1}}",
            "no attribute makre; it has label, maker, same; did you mean maker?",
        ),
        ("shape={drop: {same: 1}}", "the attribute same of makers.npz has 1 class in the training samples"),
        ("shape={drop: {maker: 0}}", "stages.0.shape.drop.maker"),
        ("shape={keep: {maker: 1}, drop: {maker: 1}}", "maker is in keep, too; remove it from one of them"),
        ("shape={}", "neither keep nor drop names an attribute; name one, or remove `shape`"),
        ("retrain=null", "shape is learned during retraining; add `retrain` with at least 1 epoch"),
        ("target={nodes: [latent, encoder.1]}", "several layers (latent, encoder.1)"),
        ("target={weights: latent.*}", "shape is for latent nodes, and the target is weights"),
    ],
)
def test_what_cannot_be_shaped_is_refused(recipe: Path, run: Run, tmp_path: Path, change: str, message: str) -> None:
    key, _, value = change.partition("=")
    other = ["--set", "stages.0.criterion=magnitude"] if key in ("target", "retrain") else []
    other += ["--set", "stages.0.removal=hard"] if key == "retrain" else []
    words = ["--set", f"stages.0.{key}={value}", *other]
    result = run("apply", recipe, recipe.parent / "model.pt", "-o", tmp_path / "out", *words, code=2)
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_data_without_labels_are_refused(recipe: Path, run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).random((60, 1, 6, 6), np.float32))
    words = ["--set", f"data={{npz: {tmp_path / 'a.npz'}, inputs: x, batch_size: 20}}"]
    result = run("apply", recipe, recipe.parent / "model.pt", "-o", tmp_path / "out", *words, code=2)
    found = " ".join(result.output.split())
    assert "stages.0.shape: a.npz has no labels that are classes; it has no attribute at all" in found


def test_the_loop_of_the_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "latent-features.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "latent-features.md", "exec"), names)
    assert names["codes"].codes.shape == (300, 8)


def test_dense_and_slim_are_probed_as_they_are_computed(recipe: Path) -> None:
    """The codes of the dense network are those of its layer, in evaluation mode."""
    model = models.autoencoder(8, (1, 6, 6))
    model.load_state_dict(torch.load(recipe.parent / "model.pt", weights_only=True))
    images = torch.rand(5, 1, 6, 6)
    found = codes(model, "latent", [(images, Attributed(images, {"y": torch.arange(5)}))])
    assert torch.equal(found.codes, model.latent(model.encoder(images)).detach())
    assert found.attributes["y"].tolist() == [0, 1, 2, 3, 4]
