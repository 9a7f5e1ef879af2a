import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import Result

import compress
from compress.errors import InputError
from compress.files.checkpoint import read_weights, write_weights
from compress.models import autoencoder
from compress.run.exporting import export

Run = Callable[..., Result]
Unchanged = Callable[[Path], AbstractContextManager[None]]
INPUTS = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(5))


def outputs(folder: Path) -> dict[str, Tensor]:
    """What the files of the folder compute."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    with torch.no_grad():
        return {
            "onnx": torch.from_numpy(session.run(None, {"input": INPUTS.numpy()})[0]),
            "pt2": torch.export.load(folder / "model.pt2").module()(INPUTS),
            "safetensors": compress.load(folder / "model.safetensors", lambda: autoencoder(8, (1, 6, 6)))(INPUTS),
        }


def close(found: dict[str, Tensor], expected: Tensor) -> bool:
    assert len(found) == 3
    return all(torch.allclose(output, expected, rtol=0, atol=1e-5) for output in found.values())


def test_a_plain_state_dict(run: Run, recipe: Path, trained: Path, tmp_path: Path) -> None:
    result = run("export", trained, "--recipe", recipe, "-o", tmp_path / "out", "--json")
    files = json.loads(result.stdout)["files"]
    assert files.keys() == {"model.onnx", "model.pt2", "model.safetensors"}
    for name, found in files.items():
        assert found["bytes"] == (tmp_path / "out" / name).stat().st_size
        assert 0 <= found["difference"] <= 1e-5
    dense = autoencoder(8, (1, 6, 6))
    dense.load_state_dict(torch.load(trained, weights_only=True))
    assert close(outputs(tmp_path / "out"), dense(INPUTS).detach())


@pytest.mark.extended
def test_a_network_in_the_middle_of_its_decay_is_folded_first(
    run: Run, recipe: Path, trained: Path, tmp_path: Path
) -> None:
    model = autoencoder(8, (1, 6, 6))
    model.load_state_dict(torch.load(trained, weights_only=True))
    pruner = compress.Pruner(model, ["latent.*", "decoder.*"], sparsity=0.5, removal=compress.Soft(steps=10))
    for _ in range(4):
        pruner.step()
    torch.save(model.state_dict(), tmp_path / "middle.pt")
    assert {"latent.weight_orig", "latent.weight_mask", "latent.weight_pruned"} <= model.state_dict().keys()
    expected = model(INPUTS).detach()
    run("export", tmp_path / "middle.pt", "--recipe", recipe, "-o", tmp_path / "out")
    assert close(outputs(tmp_path / "out"), expected)
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == autoencoder(8, (1, 6, 6)).state_dict().keys()


def test_a_slim_file_knows_its_recipe(run: Run, applied: Path, tmp_path: Path) -> None:
    run("export", applied / "slim.safetensors", "-o", tmp_path / "out")
    slim = compress.load(applied / "slim.safetensors", lambda: autoencoder(8, (1, 6, 6)))
    assert close(outputs(tmp_path / "out"), slim(INPUTS).detach())
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata().keys() == {"recipe", "shape_edits", "contract"}
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (applied / "slim.safetensors").read_bytes()


def test_only_the_formats_that_are_asked_for(run: Run, applied: Path, recipe: Path, tmp_path: Path) -> None:
    result = run("export", applied / "slim.safetensors", "-o", tmp_path / "out", "--format", "safetensors")
    assert [path.name for path in (tmp_path / "out").glob("model*")] == ["model.safetensors"]
    assert result.stdout.startswith(f"{tmp_path / 'out' / 'model.safetensors'}: ")
    # With the network's recipe named, its shape edits still count.
    run("export", applied / "slim.safetensors", "--recipe", recipe, "-o", tmp_path / "two", "--format", "safetensors")
    assert load_file(tmp_path / "two" / "model.safetensors")["latent.weight"].shape == (2, 128)


def test_without_zeros(run: Run, applied: Path, tmp_path: Path) -> None:
    run("export", applied / "slim.safetensors", "-o", tmp_path / "out", "--format", "sparse")
    file = tmp_path / "out" / "model.sparse.safetensors"
    assert [path.name for path in (tmp_path / "out").glob("model*")] == [file.name]
    one, other = (read_weights(path) for path in (file, applied / "slim.safetensors"))
    contracts = [json.loads(found.metadata.pop("contract")) for found in (one, other)]
    assert contracts[0] == {**contracts[1], "opset": None}  # there is no ONNX file here
    assert one.metadata == other.metadata
    assert all(torch.equal(one.sets[""][name], tensor) for name, tensor in other.sets[""].items())


def test_without_zeros_and_rounded(run: Run, applied: Path, tmp_path: Path) -> None:
    """A fresh process computes with the file as the rounded network does."""
    result = run("export", applied / "slim.safetensors", "-o", tmp_path / "out", "--format", "sparse_int8")
    file = tmp_path / "out" / "model.sparse.int8.safetensors"
    assert f"{file}: {file.stat().st_size:,} bytes, rounded to 8 bits: not equal" in result.stdout
    assert "differs from torch" not in result.stdout
    assert 3 * file.stat().st_size < (applied / "slim.safetensors").stat().st_size
    one, other = (read_weights(path).sets[""] for path in (file, applied / "slim.safetensors"))
    changed = {name for name, tensor in other.items() if not torch.equal(one[name], tensor)}
    assert changed
    assert all(torch.allclose(one[name], other[name], atol=0.02) for name in other)


def test_changes_are_of_a_recipe_that_is_named(run: Run, applied: Path, recipe: Path, tmp_path: Path) -> None:
    small = autoencoder(4, (1, 6, 6))
    torch.save(small.state_dict(), tmp_path / "small.pt")
    changes = ("--set", "model.latent=4", "--format", "safetensors")
    run("export", tmp_path / "small.pt", "--recipe", recipe, *changes, "-o", tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["latent.weight"].shape == (4, 128)
    result = run("export", applied / "slim.safetensors", *changes, "-o", tmp_path / "none", code=2)
    assert "--set changes a recipe: name it with --recipe" in result.stderr


def test_a_damaged_recipe_inside_the_file(applied: Path, tmp_path: Path) -> None:
    weights = load_file(applied / "slim.safetensors")
    for text in ("{", '{"name": "x"}', "[]"):
        save_file(weights, tmp_path / "odd.safetensors", metadata={"recipe": text})
        with pytest.raises(
            InputError, match=r"^the recipe inside .*odd.safetensors is damaged \(.*\): name one with --recipe$"
        ):
            export(tmp_path / "odd.safetensors", None, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_factory_that_a_file_names_is_not_run(
    run: Run, applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchanged: Unchanged
) -> None:
    weights, note = load_file(applied / "slim.safetensors"), recipe_inside(applied)
    (tmp_path / "evil_net.py").write_text("raise SystemExit('it was imported')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for factory in ("evil_net:build", "os:system"):
        note["model"] = {"factory": factory, "args": {"command": "touch executed"}}
        save_file(weights, "w.safetensors", metadata={"recipe": json.dumps(note)})
        with unchanged(tmp_path):
            text = run("export", "w.safetensors", "-o", "out", code=2).stderr
            assert f"would run {factory}, and files may not choose the code that runs: name a recipe that you" in text
            assert "the recipe imports" not in text
            run("inspect", "w.safetensors")


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ({"name": "autoencoder", "latent": 10**9}, r"the network autoencoder would take [\d,]+ bytes"),
        (
            {"name": "classifier", "image": [10**6, 10**6, 1000]},
            r"w\.safetensors names a network that takes [\d,]+ bytes to run",
        ),
        ({"name": "autoencoder", "latent": 10**18}, r"w\.safetensors is damaged .*at most 2147483647"),
        ({"name": "row_lstm", "layers": 10**9}, r"w\.safetensors is damaged"),
        ({"name": "vision_transformer", "depth": 10**9}, r"w\.safetensors is damaged"),
    ],
)
def test_a_network_of_absurd_size(applied: Path, tmp_path: Path, model: dict[str, Any], text: str) -> None:
    note = recipe_inside(applied) | {"model": model} | ({"task": "classify"} if model["name"] != "autoencoder" else {})
    save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors", metadata={"recipe": json.dumps(note)})
    with pytest.raises(InputError, match=text):
        export(tmp_path / "w.safetensors", None, tmp_path / "out")


def recipe_inside(applied: Path) -> dict[str, Any]:
    with safe_open(applied / "slim.safetensors", "pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["recipe"])
        return found


def test_the_shape_of_an_input_must_be_known(
    run: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = torch.nn.Linear(3, 2)
    torch.save(linear.state_dict(), tmp_path / "model.pt")
    model = "model={factory: 'torch.nn:Linear', args: {in_features: 3, out_features: 2}}"
    arguments = ("--recipe", recipe, "--set", model, "-o", tmp_path / "out")
    result = run("export", tmp_path / "model.pt", *arguments, code=2)
    assert "give the module an attribute `input_shape`, such as (1, 28, 28)" in result.stderr
    monkeypatch.setattr(torch.nn.Linear, "input_shape", (3,), raising=False)
    run("export", tmp_path / "model.pt", *arguments, "--format", "onnx")
    assert [path.name for path in (tmp_path / "out").glob("model*")] == ["model.onnx"]


def test_the_same_weights_and_notes_give_the_same_bytes(tmp_path: Path) -> None:
    """safetensors itself writes its metadata in an order that changes from call to call."""
    notes = {key: key.upper() for key in "fbdaceé"}
    found = set()
    for number in range(10):
        write_weights({"x": torch.arange(3.0)}, tmp_path / f"{number}.safetensors", notes)
        found.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(found) == 1
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert file.metadata() == notes
        assert torch.equal(file.get_tensor("x"), torch.arange(3.0))
