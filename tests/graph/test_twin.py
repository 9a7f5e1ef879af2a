"""A twin computes what its network does, and a pass through it leaves the network as it was."""

import dataclasses
import functools
import gc
import random
import threading
import types
import weakref
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, fx, nn

from compress.graph.trace import tensors_of
from compress.graph.twin import twin


def with_its_own_tensors(model: nn.Module) -> nn.Module:
    return twin(model, {tensor: tensor for tensor in tensors_of(model).values()})


class Pair(NamedTuple):
    left: object
    right: object


@dataclasses.dataclass(frozen=True)
class Frozen:
    item: object


@dataclasses.dataclass(slots=True)
class Slotted:
    item: object


class AttributeDict(dict):
    def __init__(self, **items):
        super().__init__(items)
        self.__dict__ = self


class Guarded(OrderedDict):
    """Its own code must not run: it raises."""

    __deepcopy__ = __setitem__ = __setattr__ = None


class Uncopyable:
    def __init__(self, item):
        self.item = item

    def __deepcopy__(self, memo):
        raise AssertionError

    def __reduce_ex__(self, protocol):
        raise AssertionError


def guarded(item):
    made = Guarded()
    OrderedDict.__setitem__(made, "item", item)
    return made


CONTAINERS = {
    "dict": lambda item: {"item": item},
    "key": lambda item: {(item, 1): 2},
    "list": lambda item: [[item]],
    "tuple": lambda item: (1, (item,)),
    "set": lambda item: {(1, item)},
    "frozenset": lambda item: frozenset({item}),
    "deque": lambda item: deque([item], maxlen=3),
    "OrderedDict": lambda item: OrderedDict(item=item),
    "defaultdict": lambda item: defaultdict(list, item=[item]),
    "Counter": lambda item: Counter({item: 2}),
    "ChainMap": lambda item: ChainMap({}, {"item": item}),
    "UserDict": lambda item: UserDict(item=item),
    "named tuple": lambda item: Pair(item, [item]),
    "untyped named tuple": lambda item: namedtuple("Two", "a b")(item, 2),
    "torch's tuple": lambda item: torch.return_types.max((item, item)),
    "view of a dict": lambda item: types.MappingProxyType({"item": item}),
    "frozen dataclass": lambda item: Frozen(item),
    "slots": lambda item: Slotted([item]),
    "SimpleNamespace": lambda item: types.SimpleNamespace(item=item),
    "attribute dict": lambda item: AttributeDict(item=item),
    "guarded": guarded,
    "uncopyable": lambda item: Uncopyable(item),
    "partial": lambda item: functools.partial(torch.add, item, other=item),
    "method": lambda item: [item].append,
    "closure": lambda item: lambda: item,
    "default": lambda item: lambda given=item: given,
}


def tensors_in(value: object, seen: set[int] | None = None) -> dict[int, Tensor]:
    """All tensors that can be reached from a value, by Python's garbage collector."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, type | types.ModuleType):
        return {}
    seen.add(id(value))
    found = {id(value): value} if isinstance(value, Tensor) else {}
    function = isinstance(value, types.FunctionType)  # else its globals are found too
    for one in (value.__closure__, value.__defaults__) if function else gc.get_referents(value):
        found |= tensors_in(one, seen)
    return found


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_what_is_in_a_container_is_the_twins(container):
    model = nn.Module()
    cached = torch.arange(3.0)
    model.cache = container(cached)
    copy = twin(model, {})
    assert type(copy.cache) is type(model.cache)
    (own,) = tensors_in(copy.cache).values()
    assert own is not cached
    assert torch.equal(own, cached)
    own.zero_()
    assert torch.equal(cached, torch.arange(3.0))
    (replaced,) = tensors_in(twin(model, {cached: own}).cache).values()
    assert replaced is own


def test_modules_and_parameters_keep_their_several_names():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.BatchNorm1d(2)})
    model["again"], model["b"].weight = model["a"], model["a"].weight
    model.listed = [model["a"], {"c": model["c"]}]
    stand_ins = {tensor: tensor.detach().clone() for tensor in tensors_of(model).values()}
    copy = twin(model, stand_ins)
    assert copy["again"] is copy["a"] is copy.listed[0] is not model["a"]
    assert copy.listed[1]["c"] is copy["c"]
    assert copy["b"].weight is copy["a"].weight is stand_ins[model["a"].weight]
    assert {name: id(stand_ins[tensor]) for name, tensor in tensors_of(model).items()} == {
        name: id(tensor) for name, tensor in tensors_of(copy).items()
    }


def test_functions_and_references_lead_to_the_twin():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first, seen = model[0], []

    def hook(module, inputs, output):
        seen.append((module, first))

    model.register_forward_hook(hook)
    model.seen, model.first = seen, weakref.ref(first)
    model[1].parent, model.itself = [weakref.proxy(model)], [model]
    model.forward = types.MethodType(lambda self, x: self.itself[0][0](x) + self[1].parent[0][1](x), model)
    model.partly = functools.partial(model.forward)
    model.cached = functools.lru_cache(model.children)
    copy = with_its_own_tensors(model)
    x = torch.randn(3, 2)
    assert torch.equal(copy(x), model[0](x) + model[1](x))
    assert seen == []
    assert copy.seen == [(copy, copy[0])]
    assert copy.first() is copy[0]
    assert copy.partly.func.__self__ is copy.forward.__self__ is copy
    assert copy.cached.__wrapped__.__self__ is copy
    assert copy[1].parent[0].forward.__self__ is copy


def test_a_variable_of_two_functions_stays_one():
    model, count = nn.Identity(), 0

    def add(module, inputs):
        nonlocal count
        count += 1

    model.register_forward_pre_hook(add)
    model.count = lambda: count
    copy = twin(model, {})
    copy(1)
    copy(1)
    assert (copy.count(), model.count(), count) == (2, 0, 0)


def test_a_handle_removes_the_hook_of_the_twin():
    model = nn.Sequential(nn.Linear(2, 2))
    model.handle = model[0].register_forward_hook(lambda module, inputs, output: None)
    copy = twin(model, {})
    copy.handle.remove()
    assert len(copy[0]._forward_hooks) == 0
    assert len(model[0]._forward_hooks) == 1


class Closing:
    closed = 0

    def __del__(self):
        Closing.closed += 1


def test_what_cannot_be_copied_is_shared():
    model = nn.Module()
    model.kept = [threading.Lock(), iter([1]), torch, nn.Linear, Closing(), object(), weakref.WeakValueDictionary()]
    copy = twin(model, {})
    assert all(new is old for new, old in zip(copy.kept, model.kept, strict=True))
    del copy
    gc.collect()
    assert Closing.closed == 0


def test_random_numbers_are_the_same_and_leave_the_generator():
    model = nn.Module()
    model.generator, model.random = torch.Generator().manual_seed(3), random.Random(3)
    copy = twin(model, {})
    assert torch.equal(torch.rand(4, generator=copy.generator), torch.rand(4, generator=model.generator))
    assert copy.random.random() == model.random.random()


def test_tensors_with_a_history_and_views_are_copied():
    model = nn.Linear(2, 2)
    model.register_buffer("table", torch.zeros(4, 2))
    model.row = model.table[1]
    model.square, model.loose = model.weight**2, nn.Parameter(torch.ones(6))
    model._parameters.pop("loose")
    model.hidden = [nn.Parameter(torch.ones(6))]
    model.part = model.hidden[0].detach()[2:4]
    copy = with_its_own_tensors(model)
    assert torch.equal(copy.square, model.square)
    assert copy.row is not model.row
    assert copy.row.data_ptr() == model.row.data_ptr()
    assert isinstance(copy.hidden[0], nn.Parameter)
    copy.part.zero_()
    assert copy.hidden[0].tolist() == [1, 1, 0, 0, 1, 1]
    assert model.hidden[0].tolist() == [1] * 6


class Strict(nn.Module):
    """Refuses attributes, copies and pickles."""

    __slots__ = ("extra",)

    def __init__(self):
        nn.Module.__init__(self)
        object.__setattr__(self, "extra", [1])
        self._modules["layer"] = nn.Linear(3, 3)

    __deepcopy__ = __getstate__ = __setstate__ = None

    def __setattr__(self, name, value):
        if name != "training" and not name.startswith("_"):
            raise AttributeError(name)
        super().__setattr__(name, value)

    def forward(self, x):
        self.extra.append(2)
        return self.layer(x)


def test_classes_with_a_mind_of_their_own():
    model = Strict()
    copy = with_its_own_tensors(model)
    x = torch.randn(2, 3)
    assert torch.equal(copy(x), model.layer(x))
    assert (copy.extra, model.extra) == ([1, 2], [1])


def test_torchs_own_sorts_of_modules():
    x = torch.randn(5, 4, 3)
    for model in (
        nn.LSTM(3, 4, 2),
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(3, 1, 4, batch_first=True), 1, enable_nested_tensor=False
        ).eval(),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)).eval(),
        fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU())),
        torch.export.export(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), (x,)).module(),
    ):
        copy = with_its_own_tensors(model)
        given, expected = copy(x), model(x)
        assert all(map(torch.equal, torch.utils._pytree.tree_leaves(given), torch.utils._pytree.tree_leaves(expected)))


def test_compiled_forwards_are_run_as_they_were_written():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].forward = torch.compile(model[0].forward, backend="eager")
    model.compile(backend="eager")
    copy = with_its_own_tensors(model)
    assert copy[0].forward.__self__ is copy[0]
    assert copy._compiled_call_impl is None
    assert model._compiled_call_impl is not None


def test_a_deep_network_has_a_twin():
    model = nn.Linear(2, 2)
    for _ in range(150):
        model = nn.Sequential(model)
    assert sum(1 for _ in twin(model, {}).modules()) == 151


class Keeping(nn.Module):
    """A random network: its layers keep things in containers of every sort, add hooks and make layers as they run."""

    def __init__(self, draw: random.Random):
        super().__init__()
        layers = [nn.Linear(4, 4) for _ in range(3)]
        layers[1].weight = layers[draw.randrange(3)].weight
        self.layers = nn.ModuleList(draw.choices(layers, k=4))
        self.named = nn.ModuleDict({"again": draw.choice(layers), "norm": nn.BatchNorm1d(4)})
        self.stores = [CONTAINERS[draw.choice(["dict", "list", "deque", "SimpleNamespace"])](torch.ones(4))]
        self.seen, self.lazily, self.state = [], draw.random() < 0.5, types.SimpleNamespace(calls=0)
        self.slots, self.frozen = Slotted(None), Frozen({})
        seen = self.seen
        draw.choice(layers).register_forward_hook(lambda module, inputs, output: seen.append(output))
        if draw.random() < 0.5:
            self.forward = types.MethodType(type(self).forward, self)

    def forward(self, x: Tensor) -> Tensor:
        self.state.calls += 1
        self.last = x
        for layer in self.layers:
            x = layer(x).tanh()
            self.frozen.item[layer, len(x)] = x
            self.stores.append({(x,)})
        if not self.state.__dict__.get("hooked"):
            self.state.hooked = True
            self.layers[0].register_forward_hook(lambda module, inputs, output: output * 1.0)
        if self.lazily and not hasattr(self, "late"):
            self.late = nn.Linear(4, 4, bias=False)
            self.late.weight = self.layers[0].weight
        if self.slots.item is None or len(self.slots.item) != len(x):
            self.slots.item = torch.ones(len(x), 1)
        x = self.named["norm"](self.named["again"](x) * self.slots.item)
        return self.late(x) if self.lazily else x


def structure(value: object, seen: dict[int, int]) -> object:
    """All of an object by identity: the same before and after if nothing has changed at any depth."""
    if id(value) in seen or isinstance(value, type | types.ModuleType | types.FunctionType | str | int | float):
        return id(value)
    seen[id(value)] = len(seen)
    if isinstance(value, Tensor):
        return id(value), value._version, value.detach().sum().item(), value.grad if value.is_leaf else None
    vars(value) if hasattr(value, "__dict__") else None  # Python makes the dict when someone asks for it
    return id(value), [structure(one, seen) for one in gc.get_referents(value)]


@pytest.mark.parametrize("seed", range(25))
def test_random_networks_stay_as_they_are(seed):
    torch.manual_seed(seed)
    model = Keeping(random.Random(seed)).eval()
    if seed % 2:
        model(torch.randn(3, 4))
    before = structure(model, {})
    tensors = tensors_of(model)
    copy = with_its_own_tensors(model)
    x = torch.randn(5, 4)
    results = [copy(torch.randn(7, 4)), copy(x), copy(x)]
    assert structure(model, {}) == before
    assert {name: id(tensor) for name, tensor in tensors_of(model).items()} == {
        name: id(tensor) for name, tensor in tensors.items()
    }
    assert torch.equal(results[1], model(x))
    assert torch.equal(results[2], model(x))
