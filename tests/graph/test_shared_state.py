"""What a network shares with its twins is as before after a pass that leaves tensors without data in it."""

import functools
import random
import types
import weakref
from collections import OrderedDict, deque
from typing import ClassVar

import pytest
import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from compress.errors import UnsupportedModelError
from compress.graph.shared_state import SharedState, shared_state_kept
from compress.graph.trace import tensors_of
from compress.graph.twin import twin

LAST: Tensor | None = None
TABLE = {3: torch.ones(3)}
NESTED = {"masks": [{"all": (deque([torch.ones(2)]), set())}]}
REGISTRY = OrderedDict(a=1)
SPACE = types.SimpleNamespace(calls=0)
OWNED = weakref.WeakKeyDictionary()
HELPER = nn.Linear(1, 1)


class Plain:
    """A class that the network's code names, as its library's cache."""

    table: Tensor | None = None
    kept: ClassVar = {}


def replaced(net: nn.Module, x: Tensor) -> None:
    global LAST
    LAST = x + 1


def new_global(net: nn.Module, x: Tensor) -> None:
    global MADE  # not there before
    MADE = [x]


def in_a_dict(net: nn.Module, x: Tensor) -> None:
    TABLE[len(x)] = x
    TABLE[3] = x * 2


def deep_within(net: nn.Module, x: Tensor) -> None:
    masks, more = NESTED["masks"][0]["all"]
    masks.append(x)
    more.add((1, x))


def ordered(net: nn.Module, x: Tensor) -> None:
    REGISTRY["made"] = {"x": x}
    REGISTRY.move_to_end("a")


def namespace(net: nn.Module, x: Tensor) -> None:
    SPACE.calls, SPACE.x = 1, x


def class_attribute(net: nn.Module, x: Tensor) -> None:
    type(net).cache = x
    type(net).shared["x"] = x


def other_class(net: nn.Module, x: Tensor) -> None:
    Plain.table = x
    Plain.kept[0] = [x]


def default_argument(net: nn.Module, x: Tensor, cache: dict = {}, *, more: list = []) -> None:  # noqa: B006
    cache[len(x)] = x
    more.append(x)


def function_attribute(net: nn.Module, x: Tensor) -> None:
    function_attribute.x = x


def made_closure():
    last, seen = None, []

    def closure(net: nn.Module, x: Tensor) -> None:
        nonlocal last
        last = x
        seen.append(x)

    return closure


closure = made_closure()


@functools.lru_cache
def by_size(size: int, like: Tensor) -> Tensor:
    return like.new_ones(size)


def cached(net: nn.Module, x: Tensor) -> None:
    by_size(len(x), x)


@functools.cache
def identity(value: object) -> object:
    return value


def cached_twin(net: nn.Module, x: Tensor) -> None:
    net.by_self(1)
    identity((1, net))


def owned(net: nn.Module, x: Tensor) -> None:
    OWNED[Plain] = x
    OWNED[net] = x


def of_a_global_module(net: nn.Module, x: Tensor) -> None:
    HELPER.last = x
    HELPER.register_forward_hook(lambda module, inputs, output: x)


KINDS = {
    **{function.__name__: function for function in (replaced, new_global, in_a_dict, deep_within, ordered)},
    **{function.__name__: function for function in (namespace, class_attribute, other_class, default_argument)},
    **{function.__name__: function for function in (function_attribute, cached, cached_twin, owned)},
    "of_a_global_module": of_a_global_module,
    "closure": closure,
}


class Net(nn.Module):
    cache: Tensor | None = None
    shared: ClassVar = {}

    def __init__(self, *kinds):
        super().__init__()
        self.layer, self.kinds = nn.Linear(4, 4), kinds

    @functools.lru_cache  # noqa: B019
    def by_self(self, number: int) -> nn.Module:
        return self

    @property
    def kind(self):
        return self.kinds

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.layer(x)
        for kind in self.kind:
            kind(self, x)
        return x


def within(value: object) -> object:
    """A value to its depth: containers by what is in them, all else by identity."""
    if isinstance(value, dict | types.SimpleNamespace):
        items = (value if isinstance(value, dict) else vars(value)).items()
        return [(key if isinstance(key, int | str) else id(key), within(item)) for key, item in items]
    if isinstance(value, set):
        return sorted(map(str, map(within, value)))
    if isinstance(value, list | tuple | deque):
        return [within(item) for item in value]
    return value if isinstance(value, int) else id(value)


def state() -> object:
    """All that the functions above change, caches aside."""
    own = [LAST, TABLE, NESTED, REGISTRY, SPACE, Plain.table, Plain.kept, Net.cache, Net.shared, "MADE" in globals()]
    functions = [default_argument.__defaults__, default_argument.__kwdefaults__, vars(function_attribute)]
    return within([own, functions, [cell.cell_contents for cell in closure.__closure__], vars(HELPER), dict(OWNED)])


class Watching(TorchFunctionMode):
    """Shows all tensors that are made to `shared`."""

    def __init__(self, shared: SharedState):
        self.shared, self.made = shared, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.shared.watch(result)
            self.made.append(weakref.ref(result))
        return result


def pass_without_data(model: nn.Module) -> None:
    """As a trace does it: a twin on tensors without data, all of which are watched and none of which remains."""
    with shared_state_kept(model) as shared, Watching(shared) as watching:
        stand_ins = {tensor: torch.empty_like(tensor, device="meta") for tensor in tensors_of(model).values()}
        twin(model, stand_ins)(torch.empty(7, 4, device="meta"))
        del stand_ins
    assert watching.made
    assert not [reference for reference in watching.made if reference() is not None]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_state_is_as_before(kind):
    model, x = Net(kind), torch.randn(3, 4)
    before = state()
    pass_without_data(model)
    assert state() == before
    model(x)


@pytest.mark.parametrize("seed", range(12))
def test_state_that_a_real_pass_has_left_is_as_before(seed):
    draw = random.Random(seed)
    model, x = Net(*draw.sample(list(KINDS.values()), 4)), torch.randn(3, 4)
    with torch.no_grad():
        expected = model(x)
    before = state()
    pass_without_data(model)
    assert state() == before
    assert torch.equal(model(x), expected)


def test_an_error_puts_it_right_too():
    model = Net(in_a_dict, lambda net, x: 1 / 0)
    before = state()
    with pytest.raises(ZeroDivisionError):
        pass_without_data(model)
    assert state() == before


def test_what_a_pass_without_a_leak_has_changed_stays():
    model = Net(lambda net, x: setattr(Net, "cache", 3))
    pass_without_data(model)
    assert Net.cache == 3
    Net.cache = None


def test_a_dict_that_makes_what_it_is_asked_for_is_not_asked():
    class Classes(OrderedDict):
        def __getitem__(self, key):
            raise AssertionError("as the table of activations of transformers builds one")

    SPACE.classes = Classes(gelu=nn.GELU)
    try:
        pass_without_data(Net(lambda net, x: SPACE.classes.keys(), in_a_dict))
        assert list(SPACE.classes) == ["gelu"]
    finally:
        del SPACE.classes


def test_flags_go_back_with_the_tensors_that_they_stand_for():
    def once(net, x):
        if not SPACE.calls:
            SPACE.calls, Net.cache = 1, x + 1

    SPACE.calls = 0
    model = Net(once)
    pass_without_data(model)
    assert (SPACE.calls, Net.cache) == (0, None)


def test_functions_of_an_fx_graph_are_searched():
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.call_function(replaced, (x, x))
    graph.output(x)
    pass_without_data(fx.GraphModule(nn.Module(), graph))


class Opaque:
    """Shared by twins, since it has something to close; what is in it lies too deep to be noted."""

    def __init__(self):
        self.deep = [[[[[]]]]]

    def put(self, tensor):
        self.deep[0][0][0][0].append(tensor)

    def __del__(self):
        pass


def test_what_cannot_be_put_right_is_named():
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].store = Opaque()
    model[0].register_forward_hook(lambda module, inputs, output: module.store.put(output))
    with pytest.raises(UnsupportedModelError, match=r"^0.store: a pass without data leaves .*Opaque > .* > Tensor"):
        pass_without_data(model)
    model[0].store.deep.clear()
