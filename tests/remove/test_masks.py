"""Soft pruning beside torch's own prune API: names, copies, checkpoints, and every kind of module."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from compress.errors import TargetError
from compress.remove.learning import LearningMethod
from compress.remove.masks import SoftPruningMethod, fold, tensors
from compress.select.gradients import effective


class Own(nn.Module):
    """A user's module with a bare parameter."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        return x @ self.table


def image(channels, *size):
    return torch.randn(2, channels, *size)


MODULES = {
    "linear": (lambda: nn.Linear(4, 3), "weight", lambda: torch.randn(2, 4)),
    "linear-bias": (lambda: nn.Linear(4, 3), "bias", lambda: torch.randn(2, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3), "weight", lambda: image(2, 8)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3), "weight", lambda: image(2, 6, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), "weight", lambda: image(2, 3, 3, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3), "weight", lambda: image(2, 4, 4)),
    "embedding": (lambda: nn.Embedding(5, 4), "weight", lambda: torch.tensor([[0, 1], [4, 2]])),
    "batchnorm": (lambda: nn.BatchNorm2d(2), "weight", lambda: image(2, 4, 4)),
    "lstm": (lambda: nn.LSTM(4, 3, num_layers=2), "weight_hh_l1", lambda: torch.randn(5, 2, 4)),
    "gru": (lambda: nn.GRU(4, 3), "weight_ih_l0", lambda: torch.randn(5, 2, 4)),
    "attention": (lambda: nn.MultiheadAttention(4, 2), "in_proj_weight", lambda: torch.randn(5, 2, 4)),
    "own": (Own, "table", lambda: torch.randn(2, 3)),
}


def run(module, x):
    output = module(x, x, x) if isinstance(module, nn.MultiheadAttention) else module(x)
    return output[0] if isinstance(output, tuple) else output


def method_of(module, name):
    (method,) = [
        hook
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, SoftPruningMethod) and hook._tensor_name == name
    ]
    return method


def set_factor(module, name, factor):
    """As a pruner does it: what is pruned stands at `factor` of where it was, and 0 is for good."""
    method = method_of(module, name)
    method.place([(module, method)], factor)
    if factor == 0:
        method.vanish(module, tensors(module, name)[2])


def pruned(make, name, factor=0.5, method=SoftPruningMethod):
    """A module mid-decay, the mask, and the value that the parameter must have."""
    module = make()
    before = getattr(module, name).detach().clone()
    keep = torch.rand(before.shape) > 0.4
    method.apply(module, name, keep)
    set_factor(module, name, factor)
    return module, keep, torch.where(keep, before, before * factor)


@pytest.fixture(params=MODULES)
def case(request):
    torch.manual_seed(0)
    return MODULES[request.param]


@pytest.fixture(params=[SoftPruningMethod, LearningMethod])
def method(request):
    return request.param


def test_names_and_forward_equal_a_plain_module_with_the_product(case, method):
    make, name, x = case
    module, _, value = pruned(make, name, method=method)
    assert prune.is_pruned(module)
    assert f"{name}_orig" in dict(module.named_parameters())
    assert {f"{name}_mask", f"{name}_pruned"} <= set(dict(module.named_buffers()))
    plain = make()
    state = {key: tensor for key, tensor in module.state_dict().items() if not key.startswith(f"{name}_")}
    plain.load_state_dict({**state, name: value})
    inputs = x()
    torch.testing.assert_close(run(module, inputs), run(plain, inputs), rtol=0, atol=0)
    learns = method is LearningMethod
    entries = module._parameters[f"{name}_orig"] if learns else module._buffers[f"{name}_start"]
    acts = torch.where(module._buffers[f"{name}_pruned"], entries * module._buffers[f"{name}_mask"], value)
    assert torch.equal(acts, value)


def test_only_kept_entries_get_a_gradient(case):
    make, name, x = case
    module, keep, value = pruned(make, name)
    plain = make()
    state = {key: tensor for key, tensor in module.state_dict().items() if not key.startswith(f"{name}_")}
    plain.load_state_dict({**state, name: value})
    inputs = x()
    for model in (module, plain):
        run(model, inputs).square().sum().backward()
    expected = getattr(plain, name).grad * keep
    torch.testing.assert_close(getattr(module, f"{name}_orig").grad, expected, rtol=0, atol=0)


def test_remove_leaves_a_plain_parameter(case, method):
    make, name, x = case
    module, keep, _ = pruned(make, name, factor=0.0, method=method)
    inputs = x()
    with torch.no_grad():
        before = run(module, inputs)
        names = list(make().state_dict())
        prune.remove(module, name)
        torch.testing.assert_close(run(module, inputs), before, rtol=0, atol=0)
    assert sorted(module.state_dict()) == sorted(names)
    assert not prune.is_pruned(module)
    assert not module._forward_hooks
    weight = getattr(module, name)
    assert isinstance(weight, nn.Parameter)
    assert (weight[~keep] == 0).all()
    assert not weight[~keep].signbit().any()


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("moment", ["fresh", "after forward", "after backward", "no_grad"])
def test_copies_compute_the_same_and_go_on_alone(case, method, copier, moment):
    make, name, x = case
    module, keep, value = pruned(make, name, method=method)
    inputs = x()
    if moment == "no_grad":
        with torch.no_grad():
            run(module, inputs)
    elif moment != "fresh":
        loss = run(module, inputs).square().sum()
        if moment == "after backward":
            loss.backward()
    other = copier(module)
    torch.testing.assert_close(run(other, inputs), run(module, inputs), rtol=0, atol=0)
    set_factor(other, name, 0.25)
    run(module, inputs)
    assert torch.equal(getattr(module, name).detach(), value)
    for one in (module, other):
        one.zero_grad()
        run(one, inputs).square().sum().backward()
    run(other, inputs)
    gradient = getattr(other, f"{name}_orig").grad
    assert torch.equal(getattr(other, name)[~keep], value[~keep] / 2)
    assert gradient is not None
    assert method is LearningMethod or (gradient[~keep] == 0).all()


def test_state_dict_travels(case, method):
    make, name, x = case
    module, _, value = pruned(make, name, method=method)
    other, _, _ = pruned(make, name, factor=0.9, method=method)
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    inputs = x()
    torch.testing.assert_close(run(other, inputs), run(module, inputs), rtol=0, atol=0)
    torch.testing.assert_close(getattr(fold(other), name).detach(), value, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_to_dtype_keeps_set_and_factor(case, dtype):
    make, name, x = case
    module, keep, _ = pruned(make, name)
    module.to(dtype)
    inputs = x()
    output = run(module, inputs if inputs.dtype == torch.int64 else inputs.to(dtype))
    assert output.dtype == dtype
    assert torch.equal(getattr(module, f"{name}_pruned"), ~keep)
    set_factor(module, name, 0.999)  # bfloat16 rounds it to 1: the set must not be lost with it
    set_factor(module, name, 0.0)
    assert torch.equal(getattr(module, f"{name}_mask"), keep.to(dtype))
    assert (getattr(module, name)[~keep] == 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_to_device(case):
    make, name, x = case
    module, _, _ = pruned(make, name)
    module.cuda()
    set_factor(module, name, 0.1)
    assert run(module, x().cuda()).is_cuda


def test_evaluation_without_gradient_sees_the_current_factor(case, method):
    make, name, x = case
    module, keep, value = pruned(make, name, method=method)
    set_factor(module, name, 0.125)
    with torch.no_grad():
        run(module, x())
    assert torch.equal(getattr(module, name), torch.where(keep, value, value / 4))


@pytest.mark.parametrize("key", ["linear", "conv2d", "own"])
def test_compiles_and_follows_the_factor(key):
    torch.manual_seed(0)
    torch.compiler.reset()
    make, name, x = MODULES[key]
    module, _, _ = pruned(make, name)
    model = nn.Sequential(module)
    compiled = torch.compile(model, backend="eager")
    inputs = x()
    for factor in (0.5, 0.25, 0.0):
        set_factor(module, name, factor)
        output = compiled(inputs)
        torch.testing.assert_close(output, model(inputs), rtol=0, atol=0)
        module.zero_grad()
        output.square().sum().backward()
        assert (getattr(module, f"{name}_orig").grad[getattr(module, f"{name}_pruned")] == 0).all()
    copy.deepcopy(model)


def test_a_module_called_twice_gets_both_gradients():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    keep = torch.tensor([[True, False, True]] * 3)
    plain = copy.deepcopy(layer)
    SoftPruningMethod.apply(layer, "weight", keep)
    x = torch.randn(2, 3)
    layer(layer(x)).sum().backward()
    plain(plain(x)).sum().backward()
    torch.testing.assert_close(layer.weight_orig.grad, plain.weight.grad * keep)


def test_fold_takes_torchs_own_masks_too():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    prune.l1_unstructured(model[0], "weight", 0.5)
    SoftPruningMethod.apply(model[1], "weight", torch.zeros(4, 4, dtype=torch.bool))
    set_factor(model[1], "weight", 0.0)
    fold(model)
    assert not prune.is_pruned(model)
    assert (model[0].weight == 0).sum() == 8
    assert (model[1].weight == 0).all()


def test_mistakes_leave_the_module_as_it_was():
    layer = nn.Linear(4, 3)
    with pytest.raises(TargetError, match=r"no parameter 'wieght'; it has weight, bias"):
        SoftPruningMethod.apply(layer, "wieght", torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(TargetError, match=r"torch.float32 \(3, 4\); it must be bool \(3, 4\)"):
        SoftPruningMethod.apply(layer, "weight", torch.ones(3, 4))
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    prune.random_unstructured(layer, "weight", 0.5)
    with pytest.raises(TargetError, match="not being soft-pruned"), effective([(layer, "weight")]):
        pass
    with pytest.raises(TargetError, match="pruned already"):
        SoftPruningMethod.apply(layer, "weight", torch.ones(3, 4, dtype=torch.bool))


@pytest.mark.parametrize("learns", [False, True])
def test_the_out_proj_of_attention_is_pruned_though_it_is_never_called(learns):
    """Outputs and gradients are those of the product, until it is plain again."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(4, 2)
    hooks = len(attention._forward_pre_hooks), len(attention._forward_hooks)
    before = attention.out_proj.weight.detach().clone()
    keep = torch.rand(4, 4) > 0.4
    if learns:
        LearningMethod.apply(attention.out_proj, "weight", keep, caller=attention)
    else:
        SoftPruningMethod.apply(attention.out_proj, "weight", keep)
    set_factor(attention.out_proj, "weight", 0.5)
    x = torch.randn(5, 2, 4)
    if learns:
        attention = copy.deepcopy(attention)
    output = attention(x, x, x)[0]
    output.square().sum().backward()

    plain = nn.MultiheadAttention(4, 2)
    state = {name: value for name, value in attention.state_dict().items() if "out_proj.weight" not in name}
    plain.load_state_dict(state | {"out_proj.weight": torch.where(keep, before, before * 0.5)})
    wanted = plain(x, x, x)[0]
    wanted.square().sum().backward()
    torch.testing.assert_close(output, wanted)
    gradient = plain.out_proj.weight.grad * torch.where(keep, 1.0, 0.5 if learns else 0.0)
    torch.testing.assert_close(attention.out_proj.weight_orig.grad, gradient)
    assert attention.out_proj.weight.grad_fn is None

    prune.remove(attention.out_proj, "weight")
    assert (len(attention._forward_pre_hooks), len(attention._forward_hooks)) == hooks
    torch.testing.assert_close(attention.out_proj.weight.detach(), plain.out_proj.weight.detach())


@pytest.mark.parametrize("pruned", [("weight",), ("bias",), ("weight", "bias"), ("bias", "weight")])
def test_parameters_keep_their_order(pruned: tuple[str, ...]) -> None:
    layer = nn.Linear(3, 2)
    for name in pruned:
        SoftPruningMethod.apply(layer, name, torch.ones_like(getattr(layer, name), dtype=torch.bool))
    assert [name.removesuffix("_orig") for name, _ in layer.named_parameters()] == ["weight", "bias"]
    for name in pruned:
        prune.remove(layer, name)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
