"""One layer, and all of them, pruned without retraining: against masks that are made by hand in plain torch."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.recipe import schema
from compress.recipe.loading import load_recipe
from compress.run.building import build_model
from compress.sweep.cells import Basis, load
from compress.sweep.explore.layers import SLOPE, AllLayers, OneLayer, _Pruning, share_at, whole
from compress.sweep.trained import Trained

Cell = Callable[..., OneLayer]


@pytest.fixture
def basis(recipe: Path, tmp_path: Path) -> Basis:
    return Basis(load_recipe(recipe), tmp_path, "cpu")


def stage(**changes: Any) -> schema.Stage:
    plain = {"target": {"weights": ["decoder.*"]}, "criterion": "magnitude", "sparsity": 0.5, "removal": "hard"}
    return schema.Stage.model_validate(plain | changes)


def dense(basis: Basis, trained: Path) -> nn.Module:
    model = build_model(basis.recipe.model, 0)
    model.load_state_dict(torch.load(trained, weights_only=True))
    return model.eval()


@torch.no_grad()
def loss_on_held_out(model: nn.Module, basis: Basis) -> float:
    """Of the last tenth of the training images, without the project's own evaluation."""
    whole = load(basis.recipe.data, basis.data_root, False)
    pixels = whole.train.images[-round(0.1 * len(whole.train.images)) :].float() / 255
    inputs = (pixels - whole.mean.view(-1, 1, 1)) / whole.std.view(-1, 1, 1)
    return float((model(inputs) - pixels).double().square().mean())


def lowest_to_zero(weight: Tensor, sparsity: float) -> None:
    gone = weight.abs().flatten().argsort(stable=True)[: round(sparsity * weight.numel())]
    weight.data.view(-1)[gone] = 0.0


def test_a_layer_of_weights(basis: Basis, trained: Path) -> None:
    shares = (0.0, 0.3, 0.9)
    name = "decoder.3.weight"
    found = OneLayer(Trained.of(trained), stage(target={"weights": [name]}), 0, 0, shares).run(basis)
    assert found["size"] == dense(basis, trained).get_parameter(name).numel()
    for point, share in zip(found["curve"], shares, strict=True):
        model = dense(basis, trained)
        lowest_to_zero(model.get_parameter(name), share)
        assert point["metric"]["loss"] == pytest.approx(loss_on_held_out(model, basis), rel=1e-6)
        assert point["left"] == found["size"] - round(share * found["size"])
        assert point["sparsity"] == pytest.approx(share, abs=1e-3)


def test_a_layer_of_nodes(basis: Basis, trained: Path) -> None:
    """Rows, biases and columns of the latent nodes, by the norms of the rows."""
    shares = tuple(count / 8 for count in range(8))
    cell = OneLayer(Trained.of(trained), stage(target={"nodes": "latent"}, compensate=False), 0, 0, shares)
    found = cell.run(basis)
    assert [point["left"] for point in found["curve"]] == [8, 7, 6, 5, 4, 3, 2, 1]
    for count, point in enumerate(found["curve"]):
        model = dense(basis, trained)
        latent, reader = model.get_submodule("latent"), model.get_submodule("decoder.1")
        order = latent.weight.detach().norm(dim=1).argsort()[:count]  # type: ignore[union-attr, operator]
        for tensor in (latent.weight, latent.bias, reader.weight.T):  # type: ignore[union-attr]
            tensor.data[order] = 0.0  # type: ignore[union-attr]
        assert point["metric"]["loss"] == pytest.approx(loss_on_held_out(model, basis), rel=1e-6)
    doubled = OneLayer(Trained.of(trained), cell.stage, 0, 0, (0.0, 0.5, 0.51, 0.52)).run(basis)
    assert [point["left"] for point in doubled["curve"]] == [8, 4], "a size once"


def test_principal_axes_lose_nothing_where_nothing_goes(basis: Basis, trained: Path) -> None:
    axes = stage(target={"nodes": "latent"}, criterion={"kind": "principal_axes", "samples": 50})
    found = OneLayer(Trained.of(trained), axes, 0, 0, (0.0, 0.5, 0.875)).run(basis)
    losses = [point["metric"]["loss"] for point in found["curve"]]
    assert losses[0] == pytest.approx(loss_on_held_out(dense(basis, trained), basis), rel=1e-4)
    assert losses == sorted(losses)


@pytest.mark.parametrize("compensated", [False, True])
def test_the_network_is_put_back_to_the_last_bit(basis: Basis, trained: Path, compensated: bool) -> None:
    nodes = stage(target={"nodes": ["latent", "encoder.*"]}, compensate=compensated)
    pruning = _Pruning(OneLayer(Trained.of(trained), nodes, 0, 0, ()), basis)
    before = copy.deepcopy(pruning._model.state_dict())
    whole = pruning.metric(dict.fromkeys(pruning.names, 0.0))
    pruned = pruning.metric(dict.fromkeys(pruning.names, 0.5))
    after = pruning._model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert pruned != whole == pruning.metric(dict.fromkeys(pruning.names, 0.0))
    assert pruned == pruning.metric(dict.fromkeys(pruning.names, 0.5))


def test_all_layers_together_keep_to_the_bound_and_no_more_could_go(basis: Basis, trained: Path) -> None:
    names = [f"decoder.{number}.weight" for number in (1, 3, 5)]
    shares = (0.0, 0.25, 0.5, 0.75, 0.95)
    weights = stage(target={"weights": names})
    of_one = {
        name: OneLayer(Trained.of(trained), stage(target={"weights": [name]}), 0, 0, shares).run(basis)["curve"]
        for name in names
    }
    curves = tuple(
        (name, tuple((point["sparsity"], point["metric"]["loss"]) for point in curve)) for name, curve in of_one.items()
    )
    before = loss_on_held_out(dense(basis, trained), basis)
    limit = 1.5 * before
    found = AllLayers(Trained.of(trained), weights, 0, 0, curves, "loss", limit).run(basis)

    def together(given: dict[str, float]) -> float:
        model = dense(basis, trained)
        for name, share in given.items():
            lowest_to_zero(model.get_parameter(name), share)
        return loss_on_held_out(model, basis)

    assert found["shares"].keys() == set(names)
    assert 0 < max(found["shares"].values()) < 1
    assert found["metric"]["loss"] == pytest.approx(together(found["shares"]), rel=1e-6)
    assert before <= found["metric"]["loss"] <= limit
    for name, points in curves:
        assert found["shares"][name] == whole(share_at(points, found["alone"]), None)
    beyond = {name: whole(share_at(points, 1.01 * found["alone"]), None) for name, points in curves}
    assert together(beyond) > limit


def test_where_nothing_is_tolerated_nothing_goes(basis: Basis, trained: Path) -> None:
    name = "decoder.1.weight"
    before = loss_on_held_out(dense(basis, trained), basis)
    curves = ((name, ((0.0, before), (0.9, 2 * before))),)
    weights = stage(target={"weights": [name]})
    found = AllLayers(Trained.of(trained), weights, 0, 0, curves, "loss", 0.5 * before).run(basis)
    assert found == {"shares": {name: 0}, "metric": None, "alone": before}


def test_where_a_curve_reaches_a_level() -> None:
    points = ((0.0, 1.0), (0.5, 2.0), (0.8, 1.5), (0.9, 4.0))
    assert share_at(points, 1.0) == share_at(points, 0.5) == 0
    assert share_at(points, 1.5 + SLOPE / 4) == pytest.approx(0.25), "half of the way to 0.5; later lies beyond a hill"
    assert share_at(points, 2.0 + SLOPE / 2) == pytest.approx(0.5)
    assert share_at(points, 3.0 + SLOPE * 0.85) == pytest.approx(0.85), "it never falls"
    assert share_at(points, 4.0 + SLOPE) == share_at(points, 9.0) == 0.9
    assert share_at(((0.0, 1.0), (0.5, math.inf)), 3.0) == 0
    flat = ((0.0, 2.0), (0.5, 2.0), (1.0, 1.5))
    assert share_at(flat, 2 * (1 + 0.3 * SLOPE)) == pytest.approx(0.3), "more is more where it costs nothing"


def test_shares_are_of_whole_nodes() -> None:
    assert (whole(0.12349, None), whole(0.74, 8), whole(0.75, 8), whole(7 / 9, 9)) == (0.1234, 0.625, 0.75, 0.777778)
