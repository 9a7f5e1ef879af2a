"""A sparsity for each layer: which pattern counts, and exactly what is pruned, at once and along a ramp."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.data.sources import from_npz
from compress.errors import TargetError
from compress.recipe.schema import Stage
from compress.run.clock import Clock
from compress.run.pruning import stage_selection
from compress.run.setting import Setting, unwatched
from compress.run.stage import check_stage, run_stage
from compress.select.pruned import Pruned

WEIGHTS = {"3.weight": 0.75, "*": 0.25}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(36, 8),
        nn.Tanh(),
        nn.Linear(8, 12),
        nn.Tanh(),
        nn.Linear(12, 36),
        nn.Unflatten(1, (1, 6, 6)),
    )


@pytest.fixture
def setting(npz: Path) -> Setting:
    return Setting(from_npz(npz), "reconstruct", 20, torch.device("cpu"), 0, unwatched, Clock())


def stage(**changes: Any) -> Stage:
    plain = {"target": {"weights": ["*"]}, "criterion": "magnitude", "layers": WEIGHTS, "removal": "hard"}
    return Stage.model_validate(plain | changes)


RETRAIN = {"epochs": 4, "optimizer": "adam", "lr": 0.01}


@pytest.mark.parametrize(
    "removal", ["hard", "soft", {"kind": "gradual", "every": "2 steps"}, {"kind": "gradual_soft", "every": "2 steps"}]
)
def test_every_layer_loses_its_share_exactly(setting: Setting, removal: Any) -> None:
    model = network()
    wanted = stage(removal=removal, retrain=RETRAIN)
    sizes = {1: 36 * 8, 3: 8 * 12, 5: 12 * 36}
    gone = {1: round(0.25 * sizes[1]), 3: round(0.75 * sizes[3]), 5: round(0.25 * sizes[5])}
    assert check_stage(model, wanted, 0, setting) == sum(gone.values())
    found = run_stage(model, wanted, 0, Pruned(), setting)
    assert {layer: int((model[layer].weight == 0).sum()) for layer in gone} == gone
    assert found["pruned"] == sum(gone.values())
    assert found["asked"] == pytest.approx(found["achieved"]) == pytest.approx(sum(gone.values()) / sum(sizes.values()))


def test_the_lowest_of_each_layer_go(setting: Setting) -> None:
    before, model = network(), network()
    run_stage(model, stage(), 0, Pruned(), setting)
    for layer, share in ((1, 0.25), (3, 0.75), (5, 0.25)):
        size = before[layer].weight.abs().flatten()
        assert torch.equal(model[layer].weight.flatten() == 0, size < size.sort().values[round(share * len(size))])


def test_every_layer_of_nodes_loses_its_share(setting: Setting) -> None:
    model = network()
    wanted = stage(target={"nodes": ["*"]}, criterion="norms", layers={"1": 0.5, "*": 0.25})
    assert check_stage(model, wanted, 0, setting) == 4 + 3
    found = run_stage(model, wanted, 0, Pruned(), setting)
    assert [int((model[layer].weight == 0).all(1).sum()) for layer in (1, 3)] == [4, 3]
    assert (found["pruned"], found["of"]) == (7, 20)
    assert found["asked"] == found["achieved"] == 7 / 20


def test_a_later_stage_gives_nothing_back(setting: Setting) -> None:
    model, pruned = network(), Pruned()
    run_stage(model, stage(layers={"*": 0.5}), 0, pruned, setting)
    first = model[5].weight == 0
    run_stage(model, stage(layers={"5.weight": 0.75, "*": 0.1}, criterion="random"), 1, pruned, setting)
    assert (model[5].weight == 0)[first].all()
    assert [int((model[layer].weight == 0).sum()) for layer in (1, 5)] == [36 * 4, 36 * 9]


def test_a_pattern_that_matches_nothing_is_told_with_its_key(setting: Setting) -> None:
    with pytest.raises(TargetError, match=r"recipe.yaml:9: stages.0.layers: the pattern 'nothing'"):
        check_stage(network(), stage(layers={"nothing": 0.5}), 0, setting, lambda key: f"recipe.yaml:9: {key}")


def test_masks_for_any_shares_by_scores_of_now(setting: Setting) -> None:
    model = network()
    for target in ({"weights": ["*"]}, {"nodes": ["*"]}):
        chosen = stage_selection(model, stage(target=target, layers=None, sparsity=0.5), 0, Pruned(), setting)
        masks = chosen.ranked()
        for share in (0.0, 0.5, 0.25):
            found = masks(dict.fromkeys(chosen.names, share))
            gone, total = chosen.count
            assert gone == sum(round(share * size) for size in chosen.layers.values())
            assert total == sum(chosen.layers.values())
            assert all(mask.dtype == torch.bool for mask in found.values())
