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
from compress.export.weights_file import rounded
from compress.sparsify.layer import SparseLinear


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


def test_without_zeros_and_rounded(tmp_path: Path) -> None:
    """The file is not the network; what it is, `rounded` says. Buffers and vectors remain as they are."""
    model = nn.Sequential(nn.Linear(40, 60), nn.BatchNorm1d(60), nn.Linear(60, 30))
    model[0].register_buffer("table", torch.randn(40, 40))
    compress.Pruner(model, "*", sparsity=0.9, scope="layer").finalize()
    compress.export.sparse(model, tmp_path / "int8.safetensors", int8=True)
    found = compress.load(tmp_path / "int8.safetensors", model=lambda: make(model))
    assert all(map(torch.equal, found.state_dict().values(), rounded(model).state_dict().values()))
    for name, tensor in model.state_dict().items():
        after, is_matrix = found.state_dict()[name], name in ("0.weight", "2.weight")
        step = tensor.abs().amax(1, keepdim=True) / 127 if is_matrix else torch.zeros(())
        assert bool(((after - tensor).abs() <= 0.501 * step).all())
        assert bool((after != tensor).any()) == is_matrix
        assert torch.equal(after == 0, tensor == 0) or is_matrix
    compress.export.sparse(slim_network(), tmp_path / "slim.safetensors", int8=True)
    assert compress.load(tmp_path / "slim.safetensors", model=network)[0].weight.shape == (27, 6)
    with pytest.raises(InputError, match="int8: found 'yes'"):
        compress.export.sparse(model, tmp_path / "w.safetensors", int8="yes")


def test_a_network_with_sparse_layers_gives_the_same_rounded_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(60, 90), nn.BatchNorm1d(90), nn.Linear(90, 60)).eval()
    compress.Pruner(model, "*", sparsity=0.95, scope="layer").finalize()
    compress.export.sparse(model, tmp_path / "dense.safetensors", int8=True)
    for place in (0, 2):
        model[place] = SparseLinear(model[place])
    compress.export.sparse(model, tmp_path / "sparse.safetensors", int8=True)
    assert (tmp_path / "dense.safetensors").read_bytes() == (tmp_path / "sparse.safetensors").read_bytes()


def make(model: nn.Sequential) -> nn.Module:
    return nn.Sequential(*(copy.deepcopy(layer) for layer in model))
