"""A branch that adds zero is not in the slim network, nor in its files, and the outputs are the same bits."""

import copy
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

import compress
from compress.errors import CheckpointError
from compress.graph.branches import residual_branches
from compress.graph.trace import trace
from compress.models.resnet import resnet20
from compress.slimming.edits import ShapeEdit, apply_edits, edits_from_json, edits_to_json
from tests.graph.test_branches import Block


def convnext() -> nn.Module:
    return ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 2)], stochastic_depth_prob=0.5, layer_scale=1.0)


NETWORKS = {
    "resnet20": (resnet20, (3, 32, 32)),
    "vit": (lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 8, 16), (3, 32, 32)),
    "convnext": (convnext, (3, 32, 32)),
    "block": (Block, (5, 8)),
}


def made(kind: str) -> tuple[nn.Module, Tensor]:
    """A network whose norms have statistics, and an example."""
    build, shape = NETWORKS[kind]
    torch.manual_seed(0)
    model: nn.Module = build().eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
    if kind == "vit":  # torchvision begins with zeros, which give the same for every input
        nn.init.normal_(model.get_parameter("heads.head.weight"))
    return model, torch.randn(4, *shape)


def zeroed(model: nn.Module, example: Tensor, first: int = 1) -> list[str]:
    """Make every second branch zero, from the `first` one on; the names of all their parameters."""
    names = []
    for branch in residual_branches(model, trace(model, example)).found[first::2]:
        for name in branch.ends:
            nn.init.zeros_(model.get_parameter(name))
        names += branch.ends
    assert names
    return names


@pytest.mark.parametrize("name", NETWORKS)
def test_zero_branches_are_gone_and_the_outputs_are_the_same_bits(name: str) -> None:
    model, example = made(name)
    names = zeroed(model, example)
    small = compress.slim(model, example)
    assert torch.equal(small(example), model(example))
    assert not set(names) & set(dict(small.named_parameters()))
    assert sum(map(torch.numel, small.parameters())) < sum(map(torch.numel, model.parameters()))


def test_the_onnx_file_has_no_operator_of_a_removed_branch(tmp_path: Path) -> None:
    model, example = made("block")
    zeroed(model, example, 0)
    compress.export.onnx(compress.slim(model, example), tmp_path / "small.onnx", example)
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node)
    assert counts == {"LayerNormalization": 1, "MatMul": 2, "Add": 3, "Gelu": 1}  # of the other branch, with the stream


@pytest.mark.parametrize("name", ["resnet20", "block"])
def test_a_saved_network_is_rebuilt_without_its_branches(name: str, tmp_path: Path) -> None:
    model, example = made(name)
    dense = copy.deepcopy(model)
    zeroed(model, example)
    small = compress.slim(model, example)
    rebuilt = apply_edits(dense, edits_from_json(edits_to_json(small.shape_edits)))
    rebuilt.load_state_dict(small.state_dict())
    assert torch.equal(rebuilt(example), small(example))
    compress.export.safetensors(small, tmp_path / "small.safetensors")
    loaded = compress.load(tmp_path / "small.safetensors", model=lambda: made(name)[0])
    assert torch.equal(loaded(example), small(example))


def test_nodes_are_cut_beside_branches_and_a_slim_network_again() -> None:
    model, example = made("resnet20")
    zeroed(model, example)
    small = compress.slim(model, example)
    compress.Pruner(small, compress.nodes("*"), sparsity=0.5, example=example, criterion="norms").finalize()
    smaller = compress.slim(small, example)
    torch.testing.assert_close(smaller(example), small(example))
    compress.Pruner(model, compress.nodes("*"), sparsity=0.5, example=example, criterion="norms").finalize()
    both = compress.slim(model, example)
    torch.testing.assert_close(both(example), model(example))
    assert sum(map(torch.numel, both.parameters())) < sum(map(torch.numel, small.parameters()))


def test_damaged_edits_name_the_branch() -> None:
    model, example = made("resnet20")
    inputs = [ShapeEdit("input", "float32", place, size, size) for place, size in enumerate((2, *example.shape[1:]))]
    with pytest.raises(CheckpointError, match="branch 'conv2d'"):
        apply_edits(model, [*inputs, ShapeEdit("branch", "conv2d", 0, 1, 1)])
