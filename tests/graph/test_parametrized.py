"""What a layer computes from other parameters is found, with what computes it; nothing of it is pruned by accident."""

import copy
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, spectral_norm, weight_norm
from torch.nn.utils.parametrizations import orthogonal
from torch.nn.utils.parametrizations import spectral_norm as new_spectral_norm
from torch.nn.utils.parametrizations import weight_norm as new_weight_norm

import compress
from compress.errors import TargetError
from compress.graph.parametrized import parametrized
from compress.graph.twin import copied
from compress.remove.masks import SoftPruningMethod

INPUTS = torch.randn(2, 4, 20)


@pytest.fixture(autouse=True)
def _deprecated() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the older functions
        yield


class Positive(nn.Module):
    def forward(self, raw: Tensor) -> Tensor:
        return raw.abs() + 0.01


class FromAVector(nn.Module):
    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, raw: Tensor) -> Tensor:
        return raw.reshape(self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.flatten()


def own(layer: nn.Conv1d) -> nn.Conv1d:
    return parametrize.register_parametrization(layer, "weight", Positive())


def vector(layer: nn.Conv1d) -> nn.Conv1d:
    return parametrize.register_parametrization(layer, "weight", FromAVector(layer.weight.shape))


class Halving:
    """A hook of somebody's own, as torch's older functions are."""

    name = "weight"

    def __call__(self, layer: nn.Module, inputs: object) -> None:
        layer.weight = layer.weight_raw / 2


def hooked(layer: nn.Conv1d) -> nn.Conv1d:
    raw = layer._parameters.pop("weight")
    layer.weight_raw, hook = raw, Halving()
    layer.register_forward_pre_hook(hook)
    hook(layer, ())
    return layer


NORMS: dict[str, Callable[..., nn.Module]] = {
    "weight_norm": weight_norm,
    "new weight_norm": new_weight_norm,
    "spectral_norm": spectral_norm,
    "new spectral_norm": new_spectral_norm,
    "orthogonal": orthogonal,
    "Positive": own,
    "FromAVector": vector,
    "Halving": hooked,
}


def network(norm: Callable[..., nn.Module]) -> nn.Sequential:
    """A temporal convolution whose middle layer is parametrized; it has run, as a trained one has."""
    torch.manual_seed(0)
    layers = [nn.Conv1d(4, 8, 3), nn.ReLU(), norm(nn.Conv1d(8, 8, 3)), nn.ReLU(), nn.Conv1d(8, 6, 3)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3))
    model(INPUTS)
    return model.eval()


WANTED = {
    "everything": lambda model: "*",
    "the acting weight": lambda model: "2.weight",
    "the layer by name": lambda model: "2",
    "the layer": lambda model: model[2],
    "all weights": lambda model: "*weight*",
    "layer and name": lambda model: (model[2], "weight"),
    "a parameter behind it": lambda model: next(iter(parametrized(model))).behind[-1],
    "that parameter itself": lambda model: model.get_parameter(next(iter(parametrized(model))).behind[-1]),
    "nodes of everything": lambda model: compress.nodes("*"),
    "nodes of the layer": lambda model: compress.nodes("2"),
    "nodes of that layer": lambda model: compress.nodes(model[2]),
}


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("norm", NORMS)
def test_refused_by_name_however_it_is_wanted(norm: str, wanted: str) -> None:
    model = network(NORMS[norm])
    before = copied(model).state_dict()
    with pytest.raises(
        TargetError, match=f"^2.weight is parametrized by {norm.removeprefix('new ')}: .*; make it a plain"
    ):
        compress.Pruner(model, WANTED[wanted](model), sparsity=0.5, example=INPUTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_excluded_the_others_are_pruned_exactly(norm: str, share: float) -> None:
    for excluded in ("2", "2.*", "2.weight"):
        model = network(NORMS[norm])
        acts = model[2].weight.detach().clone()
        pruner = compress.Pruner(model, compress.weights("*", exclude=excluded), sparsity=share)
        pruner.finalize()
        weights = [model[index].weight for index in (0, 4, 7)]
        zeros, count = sum(int((weight == 0).sum()) for weight in weights), sum(map(Tensor.numel, weights))
        assert zeros == round(share * count)
        assert torch.equal(model[2].weight, acts)
        assert model(INPUTS).isfinite().all()


@pytest.mark.parametrize("norm", [norm for norm in NORMS if norm != "Halving"])
def test_the_line_of_the_error_folds_it(norm: str) -> None:
    model = network(NORMS[norm])
    output = model(INPUTS)
    with pytest.raises(TargetError) as error:
        compress.Pruner(model, "*", sparsity=0.5)
    line = str(error.value).partition(" first with ")[2].rpartition(", or exclude")[0]
    eval(line, {"model": model, "torch": torch})
    torch.testing.assert_close(model(INPUTS), output)
    compress.Pruner(model, "*", sparsity=0.5).finalize()
    assert sum(int((model[index].weight == 0).sum()) for index in (0, 2, 4, 7)) == (96 + 192 + 144 + 18) // 2


@pytest.mark.parametrize("norm", NORMS)
def test_slim_copies_and_proves_it(norm: str) -> None:
    model = network(NORMS[norm])
    pruner = compress.Pruner(model, compress.nodes("4"), sparsity=0.5, example=INPUTS)
    pruner.finalize()
    small = compress.slim(model, INPUTS)
    assert small[4].out_channels == 3
    torch.testing.assert_close(small(INPUTS), model(INPUTS))
    untouched = network(NORMS[norm])
    torch.testing.assert_close(compress.slim(untouched, INPUTS)(INPUTS), untouched(INPUTS))


@pytest.mark.parametrize("norm", ["spectral_norm", "new spectral_norm", "orthogonal", "Positive"])
def test_what_such_a_layer_reads_keeps_its_width(norm: str) -> None:
    """Columns of what is behind it are not the columns that act."""
    model = network(NORMS[norm])
    known = compress.couplings(model, INPUTS)
    if any(coupling.name == "0" for coupling in known.found):
        with pytest.raises(TargetError, match=r"2\.weight is parametrized .* or exclude '0'"):
            compress.Pruner(model, compress.nodes("0"), sparsity=0.5, example=INPUTS)


@pytest.mark.parametrize("norm", NORMS)
def test_a_mask_by_hand_is_refused_too(norm: str) -> None:
    layer = network(NORMS[norm])[2]
    for name in ("weight", *next(iter(parametrized(layer))).behind):
        with pytest.raises(TargetError, match=r"parametrized by|has no parameter"):
            SoftPruningMethod.apply(layer, name, torch.ones(1, dtype=torch.bool))


def test_masks_of_pruning_are_none() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    prune.l1_unstructured(model[0], "weight", 0.5)
    pruner = compress.Pruner(model, "1.weight", sparsity=0.5)
    assert list(parametrized(model)) == []
    pruner.finalize()


def test_a_parametrized_bias_or_gain_leaves_the_weights_alone() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    parametrize.register_parametrization(model[0], "bias", Positive())
    parametrize.register_parametrization(model[1], "weight", Positive())
    assert [target.path for target in compress.Pruner(model, "*", sparsity=0.5).targets] == ["0.weight", "2.weight"]
    with pytest.raises(TargetError, match=r"0\.bias is parametrized by Positive"):
        compress.Pruner(model, compress.weights("2", "0.bias"), sparsity=0.5)


def test_looking_takes_no_step_of_spectral_norm() -> None:
    model = network(new_spectral_norm).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TargetError, match="spectral_norm"):
        compress.Pruner(model, "*", sparsity=0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_weights_of_recurrent_layers() -> None:
    layer = weight_norm(nn.LSTM(4, 6, bidirectional=True), "weight_hh_l0")
    (found,) = parametrized(layer)
    assert (found.path, found.behind) == ("weight_hh_l0", ("weight_hh_l0_g", "weight_hh_l0_v"))
