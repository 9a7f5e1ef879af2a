import copy
import dataclasses

import pytest
import torch
from torch import nn

import compress
from compress.errors import CheckpointError, TargetError
from compress.export import weights_file
from compress.slimming.bottleneck import take_apart
from compress.slimming.edits import apply_edits, edits_from_json, edits_to_json, insert_bottleneck


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))


def rotated(model):
    """The identity put between nodes and reader, turned by a random rotation."""
    turn, _ = torch.linalg.qr(torch.randn(6, 6))
    layer = model[2]
    axes = (turn, torch.zeros(6))
    reader = (layer.weight.detach() @ turn.T, layer.bias.detach())
    name = insert_bottleneck(model, "2", axes, reader)
    assert name == "2.axes"
    return model


def test_a_rotation_in_between_changes_nothing():
    model, inputs = network(), torch.randn(20, 7)
    expected = model(inputs)
    torch.testing.assert_close(rotated(model)(inputs), expected)


def test_axes_are_cut_like_nodes_and_the_file_loads_again(tmp_path):
    model = rotated(network())
    with torch.no_grad():
        model[2].axes.weight[4:] = 0.0
        model[2].axes.bias[4:] = 0.0
        model[2].reader.weight[:, 4:] = 0.0
    inputs = torch.randn(20, 7)
    small = compress.slim(model, inputs)
    assert (small[2].axes.out_features, small[2].reader.in_features) == (4, 4)
    assert small[0].out_features == 6
    torch.testing.assert_close(small(inputs), model(inputs))
    weights_file.safetensors(small, tmp_path / "small.safetensors")
    again = compress.load(tmp_path / "small.safetensors", model=network)
    assert torch.equal(again(inputs), small(inputs))


def test_edits_lead_from_the_dense_network_to_the_same_shapes():
    model = rotated(network())
    edits = edits_from_json(edits_to_json(model.shape_edits))
    fresh = apply_edits(network(), edits)
    assert {name: value.shape for name, value in fresh.state_dict().items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    assert fresh.shape_edits == model.shape_edits


@pytest.mark.parametrize("change", [{"name": "1"}, {"name": "9"}, {"before": 5}, {"name": "4"}])
def test_edits_that_do_not_fit_are_refused_and_change_nothing(change):
    (edit,) = rotated(network()).shape_edits
    model = network()
    before = copy.deepcopy(model)
    with pytest.raises(CheckpointError):
        apply_edits(model, [dataclasses.replace(edit, **change)])
    assert str(model) == str(before)


@pytest.mark.parametrize(("name", "found"), [("1", "is a Tanh"), ("nothing", "is missing"), ("", "is a Sequential")])
def test_only_a_linear_can_be_taken_apart(name, found):
    with pytest.raises(TargetError, match=found):
        take_apart(network(), name)


def test_no_random_number_is_drawn():
    model = network()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    take_apart(model, "2")
    assert torch.equal(torch.get_rng_state(), before)
