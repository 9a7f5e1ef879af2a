import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compress.data.sources import from_npz
from compress.errors import InputError, RunError, TargetError, UnsupportedModelError
from compress.recipe.schema import Stage
from compress.remove.pruner import Pruner
from compress.remove.removals import Soft
from compress.run.clock import Clock
from compress.run.pruning import removal_of
from compress.run.setting import Setting, unwatched
from compress.run.stage import check_stage, run_stage
from compress.select import node_selection, weight_selection
from compress.select.budgets import choose_nodes
from compress.select.choose import choose
from compress.select.criteria import PrincipalAxes
from compress.select.pruned import Pruned
from compress.select.targets import Nodes
from compress.slimming.shrink import slim

RETRAIN = {"epochs": 2, "optimizer": "sgd", "lr": 0.01}


def stage(**changes: Any) -> Stage:
    plain = {"target": {"nodes": ["1"]}, "criterion": "magnitude", "sparsity": 0.5, "removal": "hard"}
    return Stage.model_validate(plain | changes)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 36), nn.Unflatten(1, (1, 6, 6)))


@pytest.fixture
def setting(npz: Path) -> Setting:
    return Setting(from_npz(npz), "reconstruct", 20, torch.device("cpu"), 0, unwatched, Clock())


# --- how long ---


@pytest.mark.parametrize(
    ("removal", "steps"),
    [
        ("hard", 0),
        ({"kind": "soft"}, 15),
        ({"kind": "soft", "over": "1 epoch"}, 10),
        ({"kind": "soft", "over": "0.25 epochs"}, 2),
        ({"kind": "soft", "over": "7 steps", "decay": "linear"}, 7),
        ({"kind": "soft", "factor": 0.5}, 20),  # 0.5 ** 20 < 1e-6
        ({"kind": "soft", "factor": 0.5, "final": 0.01}, 7),
        ("gradual", 15),
        ({"kind": "gradual", "over": "1 epoch", "every": "2 steps"}, 10),
        ("gradual_soft", 15),
        ({"kind": "gradual_soft", "over": "12 steps", "cohort": "5 steps"}, 12),
        ("sfp", 15),
        ({"kind": "srfp", "over": "4 steps"}, 4),
        ({"kind": "greg", "over": "2 epochs"}, 20),
    ],
)
def test_the_removal_within_the_retraining(removal: Any, steps: int) -> None:
    total, found = removal_of(stage(removal=removal, retrain=RETRAIN), steps_per_epoch=10)
    assert (total, found.length) == (20, steps)
    if isinstance(found, Soft):
        assert found.mask(steps) == 0.0
        assert found.mask(steps - 1) > 0


def test_a_decay_that_does_not_end_is_refused_with_what_it_would_need() -> None:
    slow = stage(removal={"kind": "soft", "factor": 0.9}, retrain=RETRAIN)
    with pytest.raises(InputError, match=r"the soft removal takes 132 steps .* retraining has 20 \(10 an epoch\)"):
        removal_of(slow, steps_per_epoch=10)
    assert removal_of(slow, steps_per_epoch=66)[1].length == 132
    with pytest.raises(InputError, match="takes 21 steps"):
        removal_of(stage(removal={"kind": "soft", "over": "21 steps"}, retrain=RETRAIN), steps_per_epoch=10)


# --- what cannot be run is told before, and where ---


@pytest.mark.parametrize(
    ("changes", "key", "error", "text"),
    [
        ({"target": {"nodes": ["nine"]}}, "target", TargetError, "There is no layer 'nine'"),
        ({"target": {"nodes": ["3"]}}, "target", UnsupportedModelError, "'3' must keep its width"),
        ({"target": {"weights": ["nine.*"]}}, "target", TargetError, "'nine.*' matches no weight"),
        ({"retrain": RETRAIN | {"trainable": ["1.*", "x"]}}, "retrain.trainable", TargetError, "'x' matches no param"),
        ({"removal": {"kind": "soft", "factor": 0.9}, "retrain": RETRAIN}, "removal", InputError, "takes 132 steps"),
    ],
)
def test_a_stage_that_cannot_be_run(
    setting: Setting, changes: dict[str, Any], key: str, error: type[InputError], text: str
) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error) as caught:
        check_stage(model, stage(**changes), 4, setting, lambda place: f"file:7: {place}")
    assert str(caught.value).startswith(f"file:7: stages.4.{key}: ")
    assert text in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_stage_that_can_says_how_much_will_go(setting: Setting) -> None:
    wanted = stage(retrain=RETRAIN | {"trainable": ["1.*"]})
    expected = round(wanted.sparsity * network().get_submodule("1").out_features)
    assert check_stage(network(), wanted, 0, setting) == expected > 0


# --- which ---


def dead_nodes(model: nn.Module) -> Tensor:
    layer, behind = model.get_submodule("1"), model.get_submodule("3")
    gone = (layer.weight == 0).all(1) & (layer.bias == 0)
    assert torch.equal(gone, (behind.weight == 0).all(0))
    return gone


def test_the_nodes_of_the_smallest_norm_go(setting: Setting) -> None:
    model = network()
    norms = model[1].weight.detach().norm(dim=1)
    entry = run_stage(model, stage(), 0, Pruned(), setting)
    assert torch.equal(dead_nodes(model), norms <= norms.sort().values[3])
    assert (entry["kind"], entry["target"], entry["pruned"], entry["of"]) == ("nodes", "1", 4, 8)
    assert not prune.is_pruned(model)


@pytest.mark.parametrize("error", ["loss", "linear"])
def test_the_nodes_of_the_smallest_saliency_go(setting: Setting, error: str) -> None:
    """Against one backward pass per image, by hand."""
    model = network()
    criterion = {"kind": "skeletonization", "error": error, "reduce": "square", "samples": 25}
    saliency = torch.zeros(8, dtype=torch.float64)
    samples = [
        (inputs[None], target[None])
        for batch in setting.data.batches("train", 20, "reconstruct")()
        for inputs, target in zip(*batch, strict=True)
    ][:25]
    for inputs, target in samples:
        factors = torch.ones(8, requires_grad=True)
        output = model[4](model[3](model[2](factors * model[1](model[0](inputs)))))
        measure = (output - target).square().mean() if error == "loss" else (output - target).abs().mean()
        (slope,) = torch.autograd.grad(measure, factors)
        saliency += slope.double() ** 2
    run_stage(model, stage(criterion=criterion), 0, Pruned(), setting)
    assert torch.equal(dead_nodes(model), saliency <= saliency.sort().values[3])


def test_chance_hangs_on_the_seed_and_the_place_of_the_stage(setting: Setting) -> None:
    picks = []
    for number in (0, 0, 1, 2):
        model = network()
        run_stage(model, stage(criterion="random"), number, Pruned(), setting)
        picks.append(tuple(dead_nodes(model).tolist()))
    assert picks[0] == picks[1]
    assert len(set(picks)) > 1


def test_some_are_kept_where_the_recipe_wants_it(setting: Setting) -> None:
    model = network()
    with torch.no_grad():
        model[1].weight.mul_(1e-3)  # the whole layer would go first
    weights = {"target": {"weights": ["*"]}, "sparsity": 0.5}
    entry = run_stage(model, stage(**weights, min_keep=10), 0, Pruned(), setting)
    assert int((model[1].weight != 0).sum()) == 10
    assert entry["pruned"] == 288
    with pytest.raises(InputError, match="min_keep holds"):
        run_stage(network(), stage(**weights, min_keep=0.9), 0, Pruned(), setting)


# --- how ---


@pytest.mark.parametrize("decay", ["exponential", "linear", "cosine", "polynomial", "sigmoid", "step"])
def test_every_curve_ends_in_exact_zeros(setting: Setting, decay: str) -> None:
    model = network()
    removal = {"kind": "soft", "decay": decay, "over": "6 steps"}
    entry = run_stage(model, stage(removal=removal, retrain=RETRAIN), 0, Pruned(), setting)
    assert int(dead_nodes(model).sum()) == 4
    assert (entry["steps"], entry["removal_steps"]) == (10, 6)
    assert entry["before_removal"]["loss"] > 0
    assert not prune.is_pruned(model)
    assert {name for name, _ in model.named_parameters()} == {"1.weight", "1.bias", "3.weight", "3.bias"}


def test_before_removal_is_the_last_moment_before_all_is_gone(setting: Setting) -> None:
    """With a single step the weights of before it are those of the start, and one update of the rest."""
    model, retrain = network(), RETRAIN | {"lr": 1e-12}
    start = setting.evaluate(model)
    entry = run_stage(model, stage(removal={"kind": "soft", "over": "1 step"}, retrain=retrain), 0, Pruned(), setting)
    assert entry["before_removal"]["loss"] == pytest.approx(start["loss"], rel=1e-6)
    assert entry["after_removal"] == setting.evaluate(model)
    assert entry["after_removal"] != entry["before_removal"]


def test_layers_in_the_order_of_the_recipe_or_not(setting: Setting) -> None:
    """Masks go to the tensors that they were made for, whatever the order of names."""

    def deep() -> nn.Sequential:
        torch.manual_seed(0)
        widths = (nn.Linear(36, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 36))
        return nn.Sequential(nn.Flatten(), *widths, nn.Unflatten(1, (1, 6, 6)))

    weights = []
    for nodes in (["1", "3"], ["3", "1"]):
        model = deep()
        entry = run_stage(model, stage(target={"nodes": nodes}), 0, Pruned(), setting)
        assert (entry["pruned"], entry["of"]) == (10, 20)
        assert int((model[1].weight == 0).all(1).sum()) == 6
        assert int((model[3].weight == 0).all(1).sum()) == 4
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_compensation_is_that_of_the_chosen_nodes(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: the nodes that the stage took, least squares on the training images, and nothing else changed."""
    monkeypatch.setattr("compress.select.compensation.fit.RIDGE", 1e-5)
    wanted = {"compensate": True, "criterion": "skeletonization", "sparsity": 0.5}
    pruned, model, plain = Pruned(), network(), network()
    entry = run_stage(model, stage(**wanted), 0, pruned, setting)
    without = run_stage(plain, stage(**wanted | {"compensate": False}), 0, Pruned(), setting)
    (keep,) = pruned.keep_nodes.values()
    inputs = torch.cat([batch for batch, _ in setting.data.batches("train", 50, "reconstruct")()])
    start = network()
    nodes = start[:3](inputs).detach()
    columns = torch.cat([nodes[:, keep], torch.ones(len(nodes), 1)], 1).double()
    wanted_outputs = start[3](nodes).detach().double()
    best = columns @ torch.linalg.lstsq(columns, wanted_outputs).solution
    found = model(inputs).flatten(1).detach().double()
    torch.testing.assert_close(found, best, rtol=1e-3, atol=1e-3)
    assert torch.equal(model[1].weight[keep], start[1].weight[keep])
    assert (entry["pruned"], entry["of"]) == (4, 8)
    assert entry["after_removal"]["loss"] != without["after_removal"]["loss"]


def test_compensation_is_for_what_is_removed_at_once() -> None:
    with pytest.raises(ValueError, match="soft removal takes several steps"):
        stage(compensate=True, removal="soft", retrain=RETRAIN)


@pytest.mark.parametrize(
    ("changes", "compensates"),
    [
        ({}, True),
        ({"retrain": {**RETRAIN, "epochs": 0}}, True),
        ({"retrain": RETRAIN}, True),
        ({"removal": "soft", "retrain": RETRAIN}, False),
        ({"target": {"weights": ["1.*"]}, "criterion": "magnitude"}, False),
        ({"target": {"weights": ["1.*"]}, "criterion": "obs"}, True),
        ({"target": {"weights": ["1.*"]}, "criterion": "obs", "retrain": RETRAIN}, False),
        ({"target": {"branches": ["1"]}, "criterion": "ablation", "retrain": RETRAIN}, False),
        ({"compensate": False}, False),
        ({"compensate": False, "retrain": RETRAIN}, False),
    ],
)
def test_compensation_is_on_for_nodes_that_are_removed_at_once(changes: dict[str, Any], compensates: bool) -> None:
    assert stage(**changes).compensates is compensates


# --- criteria that depend on data ---

DATA_DRIVEN = ["taylor", "taylor_square", "snip", "obd"]


@pytest.mark.parametrize("criterion", ["scaled_magnitude", "lamp", *DATA_DRIVEN])
@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
def test_every_criterion_for_weights_takes_as_many_as_asked(setting: Setting, criterion: str, scope: str) -> None:
    model = network()
    wanted = stage(target={"weights": ["*"]}, criterion=criterion, scope=scope, sparsity=0.75)
    entry = run_stage(model, wanted, 0, Pruned(), setting)
    zeros = [int((model.get_parameter(name) == 0).sum()) for name in ("1.weight", "3.weight")]
    assert (entry["pruned"], sum(zeros)) == (432, 432)
    if scope != "global":
        assert zeros == [216, 216]  # of the same size, and for erk of the same sum of sides


@pytest.mark.parametrize("criterion", DATA_DRIVEN)
@pytest.mark.parametrize("removal", ["gradual", "gradual_soft", "sfp"])
def test_gradients_are_computed_again_while_masks_are_on(setting: Setting, criterion: str, removal: str) -> None:
    model = network()
    how = {"kind": removal, "every": "2 steps"}
    wanted = stage(
        target={"weights": ["*"]},
        criterion={"kind": criterion, "samples": 30},
        sparsity=0.75,
        removal=how,
        retrain=RETRAIN,
    )
    entry = run_stage(model, wanted, 0, Pruned(), setting)
    assert sum(int((weight == 0).sum()) for weight in (model[1].weight, model[3].weight)) == entry["pruned"] == 432
    assert not prune.is_pruned(model)
    assert model.training


def test_scores_of_a_stage_against_single_gradients(setting: Setting) -> None:
    """OBD by one backward pass per image, by hand."""
    model = network()
    weights = [model[1].weight, model[3].weight]
    fisher = [torch.zeros_like(weight) for weight in weights]
    for inputs, target in itertools.islice(setting.data.batches("train", 1, "reconstruct")(), 15):
        slopes = torch.autograd.grad((model(inputs) - target).square().mean(), weights)
        fisher = [total + slope**2 for total, slope in zip(fisher, slopes, strict=True)]
    scores = torch.cat([(weight**2 * total).detach().flatten() for weight, total in zip(weights, fisher, strict=True)])
    wanted = stage(target={"weights": ["*"]}, criterion={"kind": "obd", "samples": 15}, sparsity=0.25)
    run_stage(model, wanted, 0, Pruned(), setting)
    gone = torch.cat([(weight == 0).flatten() for weight in (model[1].weight, model[3].weight)])
    assert int(gone.sum()) == 144
    assert scores[gone].max() <= scores[~gone].min()


def node_scores(model: nn.Module, setting: Setting, criterion: str) -> Tensor:
    """By hand, on all training images."""
    inputs, target = (torch.cat(part) for part in zip(*setting.data.batches("train", 20, "reconstruct")(), strict=True))
    weight, bias, behind = model[1].weight, model[1].bias, model[3].weight
    if criterion == "norms":
        return (weight.square().sum(1) + bias.square()).sqrt() * behind.norm(dim=0)
    if criterion == "variance":
        return model[:3](inputs).var(0)
    rises = []
    for node in range(8):
        without = copy.deepcopy(model)
        without[3].weight[:, node] = 0
        rises.append((without(inputs).double() - target).square().mean())
    return torch.stack(rises)


@pytest.mark.parametrize("criterion", ["norms", "variance", "ablation"])
@pytest.mark.parametrize("removal", ["hard", "gradual_soft"])
def test_every_criterion_for_nodes(setting: Setting, criterion: str, removal: str) -> None:
    model = network()
    with torch.no_grad():
        scores = node_scores(model, setting, criterion)
    how = {"removal": removal} | ({} if removal == "hard" else {"retrain": RETRAIN})
    entry = run_stage(model, stage(criterion=criterion, **how), 0, Pruned(), setting)
    gone = dead_nodes(model)
    assert int(gone.sum()) == entry["pruned"] == 4
    if removal == "hard":
        assert torch.equal(gone, scores <= scores.sort().values[3])


def test_nodes_before_an_unflatten_are_seen_by_the_convolution(setting: Setting) -> None:
    """Rows of the Linear are 4 channels of 3 x 3 pixels, and the readers' features are channels."""

    def decoder() -> nn.Sequential:
        torch.manual_seed(0)
        layers = (nn.Linear(36, 36), nn.Unflatten(1, (4, 3, 3)), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, stride=2))
        return nn.Sequential(nn.Flatten(), *layers)

    for criterion in ("norms", "variance", "ablation"):
        model = decoder()
        entry = run_stage(model, stage(criterion=criterion), 0, Pruned(), setting)
        assert (entry["pruned"], entry["of"]) == (2, 4)
        assert int((model[4].weight == 0).flatten(1).all(1).sum()) == 2
        assert int((model[1].weight == 0).all(1).sum()) == 18


def test_principal_axes_cut_directions_that_vary_least(setting: Setting) -> None:
    """Without retraining: the reader gets the best approximation of its inputs that has two directions."""
    model, start = network(), network()
    entry = run_stage(model, stage(criterion="principal_axes", sparsity=0.75), 0, Pruned(), setting)
    assert (entry["pruned"], entry["of"]) == (6, 8)
    inputs = torch.cat([batch for batch, _ in setting.data.batches("train", 50, "reconstruct")()])
    nodes = start[:3](inputs).detach().double()
    left, sizes, right = torch.linalg.svd(nodes - nodes.mean(0), full_matrices=False)
    best = (left[:, :2] * sizes[:2]) @ right[:2] + nodes.mean(0)
    expected = best @ start[3].weight.double().T + start[3].bias.double()
    torch.testing.assert_close(model(inputs).flatten(1).double(), expected, rtol=1e-4, atol=1e-4)
    small = slim(model, setting.example)
    assert small.get_submodule("3.axes").weight.shape == (2, 8)


class Stream(nn.Module):
    """Pictures through a residual stream with root-mean-square norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(36, 12), nn.RMSNorm(12)
        self.expand, self.reduce = nn.Linear(12, 6), nn.Linear(6, 12)
        self.head = nn.Linear(12, 36)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.first(x.flatten(1))
        stream = stream + self.reduce(self.expand(self.norm(stream)).relu())
        return self.head(self.norm(stream)).view(x.shape)


def test_principal_axes_of_a_stream(setting: Setting) -> None:
    torch.manual_seed(0)
    model = Stream()
    by_hand = copy.deepcopy(model)
    wanted = stage(
        target={"nodes": "first"},
        criterion={"kind": "principal_axes", "samples": 50},
        sparsity=0.75,
        compensate=False,
    )
    assert check_stage(model, wanted, 0, setting) == 9
    entry = run_stage(model, wanted, 0, Pruned(), setting)
    assert (entry["pruned"], entry["of"]) == (9, 12)
    batches = list(setting.data.batches("train", 250, "reconstruct")())
    Pruner(
        by_hand,
        Nodes(("first",)),
        sparsity=0.75,
        example=setting.example,
        criterion=PrincipalAxes(samples=50),
        batches=batches,
    ).finalize()
    assert all(torch.equal(value, by_hand.state_dict()[name]) for name, value in model.state_dict().items())
    assert slim(model, setting.example).get_submodule("expand").weight.shape == (6, 3)


def test_a_retraining_may_have_batches_of_its_own(setting: Setting) -> None:
    assert setting.steps_per_epoch == 5
    retrain = RETRAIN | {"batch_size": 10}
    wanted = stage(removal={"kind": "gradual", "over": "15 steps", "every": "2 steps"}, retrain=retrain)
    assert check_stage(network(), wanted, 0, setting) == 4  # 15 steps fit into two epochs of ten, not of five
    assert run_stage(network(), wanted, 0, Pruned(), setting)["steps"] == 20
    with pytest.raises(InputError, match=r"takes 15 steps .* has 10 \(5 an epoch\)"):
        check_stage(network(), stage(removal=wanted.removal.model_dump(mode="json"), retrain=RETRAIN), 0, setting)


# --- what the results say is so ---


@pytest.mark.parametrize(
    ("changes", "estimated"),
    [
        ({}, True),
        ({"retrain": {**RETRAIN, "epochs": 0}}, True),
        ({"recalibrate": False}, False),
        ({"retrain": RETRAIN}, False),
        ({"retrain": RETRAIN, "recalibrate": True}, True),
    ],
)
def test_norms_get_the_statistics_of_the_pruned_network(
    setting: Setting, changes: dict[str, Any], estimated: bool
) -> None:
    model = nn.Sequential(*network(), nn.Flatten(), nn.BatchNorm1d(36), nn.Unflatten(1, (1, 6, 6)))
    run_stage(model, stage(**changes), 0, Pruned(), setting)
    (images, _) = next(setting.data.batches("train", 200, "reconstruct")())
    model.eval()
    apart = (model[:6](images).mean(0) - model[6].running_mean).abs().max()
    assert (apart < 1e-3) == estimated


def test_norms_that_are_not_there_cannot_be_recalibrated(setting: Setting) -> None:
    with pytest.raises(InputError, match=r"at stages\.0\.recalibrate: the network has no norm with running statistics"):
        check_stage(network(), stage(recalibrate=True), 0, setting, "at {}".format)


def test_what_is_not_gone_is_told_as_such(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    finalize = Pruner.finalize

    def forgetful(pruner: Pruner) -> None:
        finalize(pruner)
        model[1].weight.data += 1e-30

    monkeypatch.setattr(Pruner, "finalize", forgetful)
    model = network()
    with pytest.raises(RunError, match=r"1: [\d,]+ pruned entries are not zero after the removal"):
        run_stage(model, stage(), 0, Pruned(), setting)


@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
def test_more_or_less_than_was_asked_for_is_an_error(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    wanted = stage(target={"weights": ["*.weight"]}, scope=scope, sparsity=0.3)
    assert run_stage(network(), wanted, 0, Pruned(), setting)["pruned"] == {"layer": 2 * 86}.get(scope, 173)
    for other in (0.29, 0.31):
        monkeypatch.setattr(
            weight_selection, "choose", lambda scores, _, other=other, **how: choose(scores, other, **how)
        )
        with pytest.raises(RunError, match=r"\*\.weight: sparsity 0\.3 was requested and 0\.\d+ reached"):
            run_stage(network(), wanted, 0, Pruned(), setting)


def test_too_few_nodes_are_an_error(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, text in (({"sparsity": 0.5}, "0.125"), ({"sparsity": None, "params": 0.5}, "0.")):
        wanted = stage(**changes)
        monkeypatch.undo()
        assert run_stage(network(), wanted, 0, Pruned(), setting)["pruned"] >= 4
        monkeypatch.setattr(
            node_selection,
            "choose_nodes",
            lambda known, scores, measure, value, **how: choose_nodes(known, scores, "sparsity", 0.125, **how),
        )
        with pytest.raises(RunError, match=rf"was requested and {text}\d* reached"):
            run_stage(network(), wanted, 0, Pruned(), setting)


def test_what_an_earlier_stage_took_may_be_more(setting: Setting) -> None:
    model, pruned = network(), Pruned()
    for number, sparsity in enumerate((0.75, 0.5)):
        for target in ({"nodes": ["1"]}, {"weights": ["1.weight"]}):
            found = run_stage(model, stage(target=target, sparsity=sparsity), number, pruned, setting)
    assert found["achieved"] == 0.75
