"""Stages that remove residual branches, by each removal, and beside nodes; judged by what is left after `slim`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compress.graph.branches import residual_branches
from compress.graph.trace import trace
from compress.recipe.schema import Stage
from compress.run.setting import Setting
from compress.run.stage import check_stage
from compress.select.pruned import Pruned
from tests.run.test_stages_of_nodes import REMOVALS, network, pruned_by, setting, stage

__all__ = ["setting"]

ENDS = ["blocks.0.norm_b", "blocks.1.norm_b"]


def of_branches(branches: Any = "*", **changes: Any) -> Stage:
    plain = {"target": {"branches": branches}, "criterion": "ablation", "removal": "hard"}
    level = {} if {"params", "macs", "layers"} & changes.keys() else {"sparsity": 0.5}
    return Stage.model_validate(plain | level | changes)


@pytest.mark.parametrize("how", REMOVALS)
def test_every_removal_takes_a_branch_out(how: dict[str, Any], setting: Setting) -> None:
    model, small, found, _ = pruned_by([of_branches(**how)], setting)
    assert found[0]["kind"] == "branches"
    assert (found[0]["pruned"], found[0]["of"], found[0]["achieved"]) == (1, 2, 0.5)
    (gone,) = found[0]["branches"]
    assert gone in ENDS
    assert not model.get_parameter(f"{gone}.weight").any()
    left = {name.rpartition(".")[0] for name, _ in small.named_parameters()}
    block = gone.rpartition(".")[0]
    assert not {name for name in left if name.startswith(f"{block}.")}
    example = torch.randn(2, 1, 6, 6)
    assert len(residual_branches(small, trace(small, example)).found) == 1


def test_nodes_after_branches_count_what_is_gone(setting: Setting) -> None:
    stages = [of_branches("blocks.1", sparsity=0.9), stage(params=0.6, scope="layer")]
    _, small, found, pruned = pruned_by(stages, setting)
    share = sum(map(torch.numel, small.parameters())) / sum(map(torch.numel, network().parameters()))
    assert 0.55 < share <= 0.6
    assert found[1]["achieved"] == pytest.approx(share, abs=0.02)
    assert all(not coupling.name.startswith("blocks.1.") for coupling in pruned.keep_nodes)


def test_a_rehearsal_counts_branches(setting: Setting) -> None:
    pruned = Pruned()
    assert check_stage(network(), of_branches(), 0, setting, pruned=pruned) == 1
    assert check_stage(network(), stage(), 1, setting, pruned=pruned) > 0


WRONG = [
    ({"criterion": "magnitude"}, "does not rank branches; use ablation"),
    ({"layers": {"*": 0.5}}, "a branch is removed as a whole"),
    ({"scope": "global"}, "branches are all ranked together"),
    ({"multiple_of": 8}, "multiple_of is for nodes, and the target is branches"),
    ({"min_keep": 1}, "min_keep is for weights and nodes"),
    ({"retrain": {"epochs": 1, "optimizer": "sgd", "lr": 0.1, "trainable": "adjacent"}}, "the target is branches"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        of_branches(**changes)


def test_stages_without_retraining_compensate(setting: Setting, npz: Path) -> None:
    assert of_branches().compensates
    losses = [
        pruned_by([of_branches(compensate=compensate, recalibrate=True)], setting)[2][0]["after_removal"]["loss"]
        for compensate in (True, False)
    ]
    assert losses[0] != losses[1]
