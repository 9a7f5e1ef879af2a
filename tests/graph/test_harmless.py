"""Every public function leaves the network as it was, whatever a forward pass keeps and wherever it keeps it."""

import copy
import functools
import types
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import compress
from compress.export.reading_back import read_back
from compress.graph import stats
from compress.graph.untouched import untouched

GLOBAL: Tensor | None = None
TABLES: dict[object, Tensor] = {}
RECENT: list[Tensor] = []


def mask(length: int, x: Tensor) -> Tensor:
    """One for each sample, so that it has other sizes in every batch, and a trace cannot compute it."""
    return torch.full((length, length), float("-inf"), device=x.device).triu(1).softmax(-1) + x.new_zeros(
        x.shape[0], 1, 1
    )


class Net(nn.Module):
    """`kept` gives the mask, and may keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 2)
        self.store: Any = None

    def kept(self, length: int, x: Tensor) -> Tensor:
        return mask(length, x)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.b(self.a(self.kept(x.shape[1], x) @ x).relu())
        return result


class InGlobal(Net):
    def kept(self, length: int, x: Tensor) -> Tensor:
        global GLOBAL
        if GLOBAL is None or GLOBAL.shape[:2] != x.shape[:2]:
            GLOBAL = mask(length, x)
        return GLOBAL


class InGlobalDict(Net):
    def kept(self, length: int, x: Tensor) -> Tensor:
        if x.shape not in TABLES:
            TABLES[x.shape] = mask(length, x)
        return TABLES[x.shape]


class InGlobalList(Net):
    def kept(self, length: int, x: Tensor) -> Tensor:
        RECENT[:] = [mask(length, x)]
        return RECENT[0]


class InDefault(Net):
    def kept(self, length: int, x: Tensor, known: dict[object, Tensor] = {}) -> Tensor:  # noqa: B006
        if x.shape not in known:
            known[x.shape] = mask(length, x)
        return known[x.shape]


@functools.lru_cache
def cached_mask(rows: int, length: int, device: torch.device) -> Tensor:
    return torch.full((rows, length, length), 1.0 / length, device=device)


class InLruCache(Net):
    def kept(self, length: int, x: Tensor) -> Tensor:
        return cached_mask(x.shape[0], length, x.device)


class InClass(Net):
    table: Tensor | None = None

    def kept(self, length: int, x: Tensor) -> Tensor:
        if type(self).table is None or len(type(self).table) != x.shape[0]:
            type(self).table = mask(length, x)
        return type(self).table


class InAttribute(Net):
    def kept(self, length: int, x: Tensor) -> Tensor:
        if self.store is None or len(self.store) != x.shape[0]:
            self.store = mask(length, x)
        return self.store


class InContainer(Net):
    """In any container that has items, at any depth."""

    def __init__(self, store: Any, put: Callable[[Any, Tensor], None], get: Callable[[Any], list[Tensor]]) -> None:
        super().__init__()
        self.store, self.put, self.get = store, put, get

    def kept(self, length: int, x: Tensor) -> Tensor:
        if not any(len(one) == x.shape[0] for one in self.get(self.store)):
            self.put(self.store, mask(length, x))
        return next(one for one in self.get(self.store) if len(one) == x.shape[0])


@dataclass
class Record:
    tables: list[Tensor] = field(default_factory=list)


CONTAINERS: dict[str, Callable[[], nn.Module]] = {
    "dict": lambda: InContainer({}, lambda d, t: d.__setitem__(len(t), t), lambda d: list(d.values())),
    "list": lambda: InContainer([], lambda d, t: d.append(t), list),
    "deque": lambda: InContainer(deque(maxlen=1), lambda d, t: d.append(t), list),
    "set": lambda: InContainer(set(), lambda d, t: d.add(t), list),
    "ordered": lambda: InContainer(OrderedDict(), lambda d, t: d.__setitem__(len(t), t), lambda d: list(d.values())),
    "nested": lambda: InContainer(
        {"x": [({},)]}, lambda d, t: d["x"][0][0].__setitem__(len(t), t), lambda d: list(d["x"][0][0].values())
    ),
    "dataclass": lambda: InContainer(Record(), lambda d, t: d.tables.append(t), lambda d: d.tables),
    "namespace": lambda: InContainer(types.SimpleNamespace(t=[]), lambda d, t: d.t.append(t), lambda d: d.t),
}


class MakesHook(Net):
    def kept(self, length: int, x: Tensor) -> Tensor:
        if self.store is None:
            self.store = self.a.register_forward_hook(lambda module, inputs, output: output * 1)
        return mask(length, x)


class MakesBuffer(Net):
    def kept(self, length: int, x: Tensor) -> Tensor:
        if "table" not in self._buffers or len(self.table) != x.shape[0]:
            self.register_buffer("table", mask(length, x))
        return self.table


class MakesModule(Net):
    def kept(self, length: int, x: Tensor) -> Tensor:
        if not hasattr(self, "extra"):
            self.extra = nn.Identity()
        return self.extra(mask(length, x))


class WritesWeights(Net):
    def kept(self, length: int, x: Tensor) -> Tensor:
        self.a.weight.data.div_(self.a.weight.data.norm())
        return mask(length, x)


class Counts(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.times = 0

    def kept(self, length: int, x: Tensor) -> Tensor:
        self.calls.add_(1)
        self.times += 1
        return mask(length, x)


class TwoNames(Net):
    def __init__(self) -> None:
        super().__init__()
        self.again, self.tied = nn.Sequential(self.a), nn.Linear(6, 16)
        self.tied.weight = self.a.weight

    def kept(self, length: int, x: Tensor) -> Tensor:
        return mask(length, x) + 0 * self.again(x).sum() + 0 * self.tied(x).sum()


def patched() -> nn.Module:
    """Its forward is a function that keeps a mask in a variable of the function around it."""
    model, known = Net(), {}

    def kept(length: int, x: Tensor) -> Tensor:
        return known.setdefault(x.shape, mask(length, x))

    model.kept = kept  # type: ignore[method-assign]
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{cls.__name__: cls for cls in Net.__subclasses__() if cls is not InContainer},
    **CONTAINERS,
    "patched": patched,
}


def onnx_and_with_weights(model: nn.Module, x: Tensor, folder: Path) -> None:
    compress.export.onnx(model, folder / "m.onnx", x)
    compress.export.with_weights(folder / "m.onnx", model, folder / "n.onnx", x)


def pt2_and_read_back(model: nn.Module, x: Tensor, folder: Path) -> None:
    compress.export.pt2(model, folder / "m.pt2", x)
    read_back({folder / "m.pt2": model}, x)


CALLS: dict[str, Callable[[nn.Module, Tensor, Path], object]] = {
    "couplings": lambda model, x, folder: compress.couplings(model, x),
    "slim": lambda model, x, folder: compress.slim(model, x),
    "safetensors": lambda model, x, folder: compress.export.safetensors(model, folder / "m.safetensors"),
    "onnx and with_weights": onnx_and_with_weights,
    "pt2 and read_back": pt2_and_read_back,
    "measure": lambda model, x, folder: stats.measure(model, x),
}


SLOW = pytest.param(onnx_and_with_weights, marks=pytest.mark.extended)


def found_in(model: nn.Module) -> Any:
    """Names, identities, versions and values of all that a network has, and its modes."""
    tensors = {name: (id(tensor), tensor.detach().clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]
    names = [(name, sorted(vars(module))) for name, module in model.named_modules(remove_duplicate=False)]
    return tensors, hooks, names, [module.training for module in model.modules()]


def reachable(value: Any, depth: int = 6) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if depth == 0 or isinstance(value, str):
        return []
    if isinstance(value, dict):
        items = list(value.values())
    elif isinstance(value, list | tuple | set | deque):
        items = list(value)
    else:
        items = list(getattr(value, "__dict__", {}).values())
    return [tensor for item in items for tensor in reachable(item, depth - 1)]


def require_untouched(model: nn.Module, call: Callable[[], object]) -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    before = found_in(model)
    call()
    after = found_in(model)
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    for name, (identity, values) in before[0].items():
        assert after[0][name][0] == identity
        assert torch.equal(after[0][name][1], values)
    held = [*reachable(vars(model)), *reachable(TABLES), *reachable(RECENT), *([] if GLOBAL is None else [GLOBAL])]
    assert all(type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta for tensor in held)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.fixture(autouse=True)
def cold() -> None:
    global GLOBAL
    GLOBAL = InClass.table = None
    TABLES.clear()
    RECENT.clear()
    cached_mask.cache_clear()
    InDefault.kept.__defaults__[0].clear()


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_analysis_leaves_the_network_as_it_was(network: Callable[[], nn.Module], warm: bool) -> None:
    torch.manual_seed(0)
    model, x = network().eval(), torch.randn(2, 5, 6)
    expected = copy.deepcopy(model.state_dict())
    if warm:
        with torch.no_grad():
            model(x[:1])
        model.load_state_dict(expected, strict=False)
    require_untouched(model, lambda: compress.couplings(model, x))
    assert [coupling.name for coupling in compress.couplings(model, x).found] == ["a"]
    with torch.no_grad():
        found = model(x)
        fresh = network().eval()
        fresh.load_state_dict(expected, strict=False)
        assert torch.equal(found, fresh(x))


@pytest.mark.parametrize("call", [SLOW if name.startswith("onnx") else call for name, call in CALLS.items()], ids=CALLS)
@pytest.mark.parametrize("network", [InGlobal, CONTAINERS["dict"], InLruCache, MakesHook, Counts, TwoNames])
def test_public_functions_leave_the_network_as_it_was(network: Any, call: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = network().eval(), torch.randn(2, 5, 6)
    model.b.train()
    require_untouched(model, lambda: call(model, x, tmp_path))


@pytest.mark.parametrize("network", [InGlobal, CONTAINERS["dict"], InLruCache, MakesHook, Counts])
def test_a_pruner_changes_what_it_prunes_and_nothing_else(network: Any) -> None:
    torch.manual_seed(0)
    model, x = network().eval(), torch.randn(2, 5, 6)
    model.b.train()
    before, held = found_in(model), dict(model.state_dict(keep_vars=True))
    state = torch.random.get_rng_state()
    compress.Pruner(model, compress.nodes("a"), sparsity=0.5, example=x, criterion="norms").finalize()
    after = found_in(model)
    assert after[1:] == before[1:]
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is held[name]
        kept = tensor != 0 if name in ("a.weight", "a.bias", "b.weight") else torch.ones_like(tensor, dtype=torch.bool)
        assert torch.equal(tensor[kept], before[0][name][1][kept])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(type(tensor) is Tensor and not tensor.is_meta for tensor in reachable([TABLES, RECENT, GLOBAL]))


def test_a_mask_in_a_dict_is_as_after_one_forward_pass() -> None:
    model, x = CONTAINERS["dict"]().eval(), torch.randn(2, 5, 6)
    compress.couplings(model, x)
    assert torch.equal(model.store[2], mask(5, x))
    compress.slim(model, x)


def test_a_count_of_passes_is_as_before() -> None:
    model, x = Net().eval(), torch.randn(2, 5, 6)
    model.store = Counter()
    model.a.register_forward_hook(lambda module, inputs, output: model.store.update(passes=1))
    compress.couplings(model, x)
    assert not model.store


@pytest.mark.parametrize("name", ["BertModel", "GPT2LMHeadModel", "T5Model", "ViTModel", "LlamaForCausalLM"])
def test_networks_of_transformers_are_left_as_they_were(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    cls = getattr(transformers, name)
    if name == "GPT2LMHeadModel":
        config = cls.config_class(vocab_size=99, n_embd=32, n_layer=2, n_head=4)
    elif name == "T5Model":
        config = cls.config_class(vocab_size=99, d_model=32, num_layers=2, num_heads=4, d_kv=8, d_ff=64)
    elif name == "ViTModel":
        config = cls.config_class(**small, intermediate_size=64, image_size=16, patch_size=8)
    else:
        config = cls.config_class(**small, intermediate_size=64)
    torch.manual_seed(0)
    model = cls(config).eval()
    ids = torch.randint(0, 99, (2, 7))
    given: dict[str, Any] = {"pixel_values": torch.randn(2, 3, 16, 16)} if name == "ViTModel" else {"input_ids": ids}
    if name == "T5Model":
        given["decoder_input_ids"] = ids
    expected = cls(config).eval()
    expected.load_state_dict(model.state_dict())
    require_untouched(model, lambda: compress.couplings(model, given))
    for more in ({}, {"output_hidden_states": True}):
        with torch.no_grad():
            one, other = model(**given, **more), expected(**given, **more)
        assert one.keys() == other.keys()
        assert len(one.get("hidden_states") or ()) == len(other.get("hidden_states") or ())
        assert torch.equal(one[0], other[0])


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_passes_of_any_size_through_an_untouched_network_leave_nothing(network: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = network().eval()

    def passes() -> None:
        with untouched(model) as same:
            for rows in (1, 3):
                same(torch.randn(rows, 5, 6, generator=torch.Generator()))

    require_untouched(model, passes)
    assert not TABLES
    assert GLOBAL is None
    assert not RECENT
    assert InClass.table is None
    assert not cached_mask.cache_info().currsize


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "swin_t"])
def test_networks_of_torchvision_are_left_as_they_were(name: str) -> None:
    torch.manual_seed(0)
    model, x = torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, 224, 224)
    require_untouched(model, lambda: compress.couplings(model, x))


@pytest.mark.extended
@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "levit_128s", "mixer_s32_224", "efficientformer_l1"])
def test_networks_of_timm_are_left_as_they_were(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model, x = timm.create_model(name).eval(), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = model(x)
    require_untouched(model, lambda: compress.couplings(model, x))
    with torch.no_grad():
        assert torch.equal(model(x), expected)
