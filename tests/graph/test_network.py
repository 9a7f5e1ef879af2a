"""What is not a network of plain modules is refused by its name, with the way out, wherever a network is taken."""

import warnings

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import compress
from compress.errors import InputError, UnsupportedModelError

INPUTS = torch.randn(2, 6)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).eval()


def around(kind: type[nn.Module], attribute: str = "module") -> nn.Module:
    """A wrapper without the processes or devices that its own constructor asks for."""
    bare = type(kind.__name__, (kind,), {"__init__": nn.Module.__init__})()
    setattr(bare, attribute, network())
    return bare


def spread() -> nn.Module:
    model = network()
    model[0] = nn.DataParallel(model[0])
    model[0].device_ids = [0, 1]
    return model


def sharded_in_place() -> nn.Module:
    model = network()
    model[0].__class__ = type("FSDPLinear", (FSDPModule, nn.Linear), {})  # as fully_shard does
    return model


def scripted() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated
        return torch.jit.script(network())


def traced() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.trace(network(), INPUTS)


def quantized() -> nn.Module:
    model = network()
    quantized_linear = type("Linear", (nn.Module,), {"__module__": "torch.ao.nn.quantized.modules.linear"})
    model[0] = quantized_linear()
    return model


WRAPPED = [
    (lambda: nn.DataParallel(network()), "a DataParallel around a Sequential; .* model.module,"),
    (lambda: around(DistributedDataParallel), "a DistributedDataParallel around a Sequential; .* model.module,"),
    (lambda: AveragedModel(network()), "an AveragedModel around a Sequential; .* model.module,"),
    (spread, "'0' is spread over several devices .*: model.0 = model.0.module"),
]
OTHERS = [
    (scripted, "a scripted network .* the one that it was made from"),
    (traced, "a scripted network .* the one that it was made from"),
    (lambda: around(FullyShardedDataParallel), r"the network is sharded over several processes \(FSDP\)"),
    (sharded_in_place, r"the layer '0' is sharded over several processes \(FSDP\)"),
    (quantized, "'0' is quantized .* from before it was quantized"),
    (lambda: nn.Sequential(nn.LazyLinear(3)), r"a lazy layer has no size yet \('0.weight'\); run the network once"),
]
TAKERS = [
    lambda model: compress.couplings(model, INPUTS),
    lambda model: compress.slim(model, INPUTS),
    lambda model: compress.Pruner(model, compress.nodes("*"), sparsity=0.5, example=INPUTS),
    lambda model: compress.export.onnx(model, "never.onnx", INPUTS),
    lambda model: compress.export.pt2(model, "never.pt2", INPUTS),
    lambda model: compress.export.trace(model, INPUTS),
    lambda model: compress.export.safetensors(model, "never.safetensors"),
]


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize(("made", "message"), WRAPPED + OTHERS)
def test_refused_by_name_wherever_a_network_is_taken(made, message, take):
    with pytest.raises(UnsupportedModelError, match=message):
        take(made())


@pytest.mark.parametrize("take", [TAKERS[0], TAKERS[2]])
def test_names_of_layers_are_those_of_the_network_that_was_compiled(take):
    with pytest.raises(UnsupportedModelError, match=r"torch.compile \(OptimizedModule\) .* model._orig_mod,"):
        take(torch.compile(network(), backend="eager"))


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_exports_write_the_network_that_was_compiled(kind, tmp_path):
    compiled = torch.compile(network(), backend="eager")
    assert getattr(compress.export, kind)(compiled, tmp_path / f"m.{kind}", INPUTS) < 1e-5
    compress.export.safetensors(compiled, tmp_path / "m.safetensors")
    assert compress.load(tmp_path / "m.safetensors", model=network).state_dict().keys() == network().state_dict().keys()


def test_slim_gives_the_network_that_was_compiled():
    model = network()
    small = compress.slim(torch.compile(model, backend="eager"), INPUTS)
    assert type(small) is type(model)
    assert torch.equal(small(INPUTS), model(INPUTS))


@pytest.mark.parametrize(("made", "message"), [one for one in OTHERS if one[0] is not sharded_in_place])
def test_refused_where_single_weights_are_pruned(made, message):
    with pytest.raises(UnsupportedModelError, match=message):
        compress.Pruner(made(), "*", sparsity=0.5)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager"), AveragedModel])
def test_single_weights_are_pruned_through_a_wrapper(wrap):
    model = wrap(network())
    compress.Pruner(model, "*", sparsity=0.5).finalize()
    zeros = sum(int((parameter == 0).sum()) for parameter in model.parameters())
    assert zeros == (6 * 16 + 16 * 2) // 2


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (torch.relu, "the forward of a Module calls it"),
        (nn.Linear, r"call the class, Linear\(...\)"),
        (network().state_dict(), "load_state_dict with this dict"),
        ("model.pt", r"compress.load\(path, model=...\)"),
        (torch.export.export(network(), (INPUTS,)), r"program.module\(\) is one"),
        (None, "expected a network, an object of torch.nn.Module$"),
    ],
)
def test_what_is_no_module_gets_its_own_hint(given, hint):
    with pytest.raises(InputError, match=f"^model: found .*{hint}"):
        compress.slim(given, INPUTS)


@pytest.mark.parametrize("take", [TAKERS[1], lambda model: compress.Pruner(model, "*", sparsity=0.5)])
def test_a_network_without_parameters_has_nothing_to_prune(take):
    with pytest.raises(InputError, match="Sequential has no parameters"):
        take(nn.Sequential(nn.ReLU()))


def test_the_network_in_a_wrapper_is_pruned_for_both():
    model = network()
    compiled = torch.compile(model, backend="eager")
    before = compiled(INPUTS)
    pruner = compress.Pruner(compiled._orig_mod, compress.nodes("0"), sparsity=0.5, example=INPUTS)
    pruner.finalize()
    assert not torch.equal(compiled(INPUTS), before)
    small = compress.slim(model, INPUTS)
    assert small[0].out_features == 8
    torch.testing.assert_close(small(INPUTS), compiled(INPUTS))
