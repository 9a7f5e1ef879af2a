import copy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn.utils import prune

import compress
import compress.export
from compress.errors import InputError, OutputError


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 36), nn.Unflatten(1, (4, 3, 3)), nn.ConvTranspose2d(4, 1, 3, stride=2))


def slim_network() -> nn.Module:
    model = network()
    with torch.no_grad():
        model[0].weight[9:18].zero_()
        model[0].bias[9:18].zero_()
        model[2].weight[1].zero_()
    return compress.slim(model, torch.randn(2, 6))


def test_a_slim_network_reloads_through_compress_load(tmp_path: Path) -> None:
    small, inputs = slim_network(), torch.randn(3, 6)
    assert small[0].weight.shape == (27, 6)
    compress.export.safetensors(small, tmp_path / "slim.safetensors", metadata={"recipe": "{}"})
    found = compress.load(tmp_path / "slim.safetensors", model=network)
    assert torch.equal(found(inputs), small(inputs))
    with safe_open(tmp_path / "slim.safetensors", framework="pt") as file:
        assert file.metadata().keys() == {"recipe", "shape_edits"}


def test_a_reloaded_network_can_be_exported_again(tmp_path: Path) -> None:
    small = slim_network()
    compress.export.safetensors(small, tmp_path / "a.safetensors")
    compress.export.safetensors(compress.load(tmp_path / "a.safetensors", model=network), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_dense_network_has_no_edits(tmp_path: Path) -> None:
    compress.export.safetensors(network(), tmp_path / "dense.safetensors")
    with safe_open(tmp_path / "dense.safetensors", framework="pt") as file:
        assert not file.metadata()


def test_pruning_hooks_are_refused(tmp_path: Path) -> None:
    model = network()
    prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.raises(InputError, match="finalize"):
        compress.export.safetensors(model, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="must end in"):
        compress.export.safetensors(network(), tmp_path / "w.pt")


def test_without_zeros(tmp_path: Path) -> None:
    """The slim network's edits go with it; masks of torch leave zeros with a sign, which are zeros here."""
    model = nn.Sequential(nn.Linear(40, 60), nn.Conv1d(1, 8, 9), nn.Flatten(), nn.Linear(8 * 52, 30))
    for layer in (model[0], model[1], model[3]):
        prune.l1_unstructured(layer, "weight", 0.95)
        prune.remove(layer, "weight")
    compress.export.safetensors(model, tmp_path / "dense.safetensors")
    compress.export.sparse(model, tmp_path / "slim.sparse.safetensors", metadata={"note": "mine"})
    dense, sparse = ((tmp_path / name).stat().st_size for name in ("dense.safetensors", "slim.sparse.safetensors"))
    assert dense > 8 * sparse
    assert (model[0].weight == 0).logical_and(model[0].weight.signbit()).any()
    found = compress.load(tmp_path / "slim.sparse.safetensors", model=lambda: make(model))
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    with pytest.raises(OutputError, match="must end in"):
        compress.export.sparse(model, tmp_path / "w.pt")
    compress.export.sparse(slim_network(), tmp_path / "slim.safetensors")
    assert compress.load(tmp_path / "slim.safetensors", model=network)[0].weight.shape == (27, 6)


def make(model: nn.Sequential) -> nn.Module:
    return nn.Sequential(*(copy.deepcopy(layer) for layer in model))
