"""Looking at a network changes nothing of it: not its modes, gradients or hooks, and not torch's own state."""

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compress
from compress.evaluation_mode import evaluation_mode
from compress.graph import stats
from compress.graph.coupling import couplings
from compress.inputs import Inputs
from compress.proof import prove_file, prove_same
from compress.select import activations, gradients
from compress.select.compensate import compensate
from compress.select.compensation.calls import calls_of
from compress.select.criteria import BY_WORD, criterion_of
from compress.select.first_order import change_of_loss
from compress.select.moments import moments
from compress.select.saliency import skeletonization
from compress.select.scoring import Scoring
from compress.select.targets import resolve, weights
from compress.slimming.shrink import dead_in
from compress.tasks import cross_entropy
from compress.tasks.linear import linear
from compress.train.distill import Teacher
from compress.train.metrics import evaluate

EXAMPLE = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
BATCHES = [(EXAMPLE, torch.tensor([0, 2])), (EXAMPLE + 1, torch.tensor([1, 1]))]


class Mixed(nn.Module):
    """A frozen stem in evaluation mode inside a network in training mode, and a head with its own mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 6), nn.Tanh())
        self.head = nn.Linear(6, 3)
        self.stem.requires_grad_(False).eval()
        self.head.eval()
        self.body[2].weight.grad = torch.ones_like(self.body[2].weight)
        self.body.register_forward_hook(lambda module, inputs, output: None)
        self.head.register_full_backward_hook(lambda module, before, after: None)
        with torch.no_grad():
            self.body[2].weight[4], self.body[2].bias[4], self.head.weight[:, 4] = 0.0, 0.0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)))


def _state(model: nn.Module) -> dict[str, Any]:
    """Everything beside the weights that looking at a network could change."""
    hooks = {
        f"{name}.{key}": [(number, hook) for number, hook in value.items()]
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key.endswith("_hooks")
    }
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {
        "modes": {name: module.training for name, module in model.named_modules()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "parameters": {name: (id(found), found.requires_grad) for name, found in model.named_parameters()},
        "gradients": {name: (id(grad), None if grad is None else grad.tolist()) for name, grad in grads.items()},
        "hooks": hooks,
        "chance": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
        "torch": (torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()),
    }


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _leaves(model: nn.Module) -> list[Tensor]:
    return [model.body[2].weight, model.head.weight]


def _owned(model: nn.Module) -> list[list[tuple[Tensor, Callable[[Tensor], Tensor]]]]:
    return [[(leaf, lambda values: values)] for leaf in _leaves(model)]


def _fails(output: Tensor, target: Tensor) -> Tensor:
    raise ZeroDivisionError


TAPS = {"body": activations.Tap("head", "input", torch.arange(6))}
PLACES = ("body.2", "head")

LOOKS: dict[str, Callable[[nn.Module, Path], object]] = {
    "couplings": lambda model, _: couplings(model, EXAMPLE),
    "dead_in": lambda model, _: dead_in(model, couplings(model, EXAMPLE)),
    "slim": lambda model, _: compress.slim(model, EXAMPLE),
    "prove_same": lambda model, _: prove_same(model, copy.deepcopy(model), [Inputs((EXAMPLE,))], 0.0),
    "prove_file": lambda model, _: prove_file(
        model, lambda inputs: inputs.call(copy.deepcopy(model).eval()), EXAMPLE, 1e-5, "a copy"
    ),
    "measure": lambda model, _: stats.measure(model, EXAMPLE),
    "evaluate": lambda model, _: evaluate(model, lambda: BATCHES, "classify"),
    "teacher": lambda model, _: list(Teacher(model, 0.5).batches(lambda *_: iter(BATCHES))(None)),
    "moments": lambda model, _: moments(model, {"head": 6}, BATCHES),
    "skeletonization": lambda model, _: skeletonization(model, ["stem.0", "head"], BATCHES, cross_entropy),
    "skeletonization, linear": lambda model, _: skeletonization(
        model, ["body.2"], BATCHES, linear(cross_entropy), reduce="sum"
    ),
    "variance": lambda model, _: activations.variance(model, TAPS, BATCHES),
    "ablation": lambda model, _: activations.ablation(model, {"body": list(TAPS.values())}, BATCHES, cross_entropy),
    "taylor": lambda model, _: change_of_loss(model, _owned(model), BATCHES, cross_entropy, "taylor"),
    "mean": lambda model, _: gradients.mean(model, _leaves(model), BATCHES, cross_entropy),
    "mean_abs": lambda model, _: gradients.mean_abs(model, _leaves(model), BATCHES, cross_entropy),
    "mean_square": lambda model, _: gradients.mean_square(model, _leaves(model), BATCHES, cross_entropy),
    "fisher": lambda model, _: gradients.fisher(
        model, [(model.get_submodule(name), "weight") for name in PLACES], _leaves(model), BATCHES, cross_entropy
    ),
    "trace": lambda model, _: compress.export.trace(model, EXAMPLE),
    "onnx": lambda model, folder: (
        compress.export.onnx(model, folder / "x.onnx", EXAMPLE),
        compress.export.with_weights(folder / "x.onnx", model, folder / "y.onnx", EXAMPLE),
    ),
    "pt2": lambda model, folder: compress.export.pt2(model, folder / "x.pt2", EXAMPLE),
    "safetensors": lambda model, folder: compress.export.safetensors(model, folder / "x.safetensors"),
}


@pytest.fixture
def model() -> Iterator[nn.Module]:
    torch.manual_seed(0)
    yield Mixed()
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("look", LOOKS)
def test_looking_at_a_network_leaves_it_as_it_was(model: nn.Module, tmp_path: Path, look: str) -> None:
    weights, before = _weights(model), _state(model)
    LOOKS[look](model, tmp_path)
    assert _state(model) == before
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("word", BY_WORD)
def test_scoring_leaves_it_as_it_was(model: nn.Module, word: str) -> None:
    values, before, criterion = _weights(model), _state(model), criterion_of(word)
    scoring = Scoring(model, torch.Generator().manual_seed(0), BATCHES, cross_entropy)
    if criterion.ranks_nodes():
        criterion.score_nodes(couplings(model, EXAMPLE).found, scoring)
    if criterion.ranks_weights():
        for scores in criterion.score_weights(resolve(model, weights("*")), scoring):
            list(scores.pieces())
    assert _state(model) == before
    assert all(torch.equal(values[name], tensor) for name, tensor in model.state_dict().items())


def test_compensation_changes_its_readers_alone(model: nn.Module) -> None:
    weights, before = _weights(model), _state(model)
    mask = torch.ones_like(model.get_parameter("head.weight"), dtype=torch.bool)
    mask[:, 3:5] = False
    traces: dict[Any, Any] = {}
    compensate(model, {"head.weight": mask}, calls_of(model, BATCHES, traces), traces)
    assert _state(model) == before
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(weights[name], tensor)}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    "targets", [compress.weights("body.*", "head.*"), compress.nodes("body.*")], ids=["weights", "nodes"]
)
def test_a_finished_pruner_changes_weights_alone(model: nn.Module, targets: object) -> None:
    before = _state(model)
    pruner = compress.Pruner(
        model, targets, sparsity=0.5, example=EXAMPLE, criterion="taylor", batches=BATCHES, loss=cross_entropy
    )
    pruner.finalize()
    after = _state(model)
    for key in ("modes", "hooks", "chance", "torch"):
        assert after[key] == before[key], key
    assert {name: found[1] for name, found in after["parameters"].items()} == {
        name: found[1] for name, found in before["parameters"].items()
    }


@pytest.mark.parametrize(
    "look",
    [
        lambda model: skeletonization(model, ["head"], BATCHES, _fails),
        lambda model: activations.ablation(model, {"body": list(TAPS.values())}, BATCHES, _fails),
        lambda model: gradients.mean(model, _leaves(model), BATCHES, _fails),
        lambda model: gradients.fisher(model, [(model.head, "weight")], _leaves(model)[1:], BATCHES, _fails),
        lambda model: change_of_loss(model, _owned(model), BATCHES, _fails, "snip"),
        lambda model: next(gradients.each(model, _leaves(model), [(EXAMPLE[:, :, :1], EXAMPLE)], _fails)),
        lambda model: moments(model, {"head": 6}, [*BATCHES, (EXAMPLE[:, :, :1], EXAMPLE)]),
        lambda model: evaluate(model, lambda: [(EXAMPLE[:, :, :1], EXAMPLE)], "classify"),
    ],
)
def test_a_failure_leaves_it_as_it_was_too(model: nn.Module, look: Callable[[nn.Module], object]) -> None:
    before = _state(model)
    with pytest.raises((ZeroDivisionError, RuntimeError)):
        look(model)
    assert _state(model) == before


def test_scores_between_two_batches_leave_the_network_to_its_user(model: nn.Module) -> None:
    before = _state(model)
    for _ in gradients.each(model, _leaves(model), BATCHES, cross_entropy):
        assert _state(model) == before


def test_each_module_gets_its_own_mode_back(model: nn.Module) -> None:
    before = _state(model)
    statistics = model.stem[1].running_mean.clone()

    def fails() -> None:
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
            assert not model(EXAMPLE).requires_grad
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert _state(model) == before
    assert torch.equal(model.stem[1].running_mean, statistics)


def test_gradients_where_they_are_wanted(model: nn.Module) -> None:
    with torch.no_grad():
        with evaluation_mode(model, gradients=True):
            assert model(EXAMPLE).requires_grad
        assert not torch.is_grad_enabled()


def test_a_program_refuses_eval_and_can_be_looked_at() -> None:
    program = torch.export.export(nn.Sequential(nn.Linear(3, 2), nn.Dropout()), (torch.zeros(2, 3),)).module()
    with pytest.raises(NotImplementedError):
        program.eval()
    with evaluation_mode(program):
        assert not program.training
    assert program.training
