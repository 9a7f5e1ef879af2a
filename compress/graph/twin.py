"""`twin`: a network of the same structure with separate containers, so a pass through it does not change the original.

`copy.deepcopy` does not work here: it copies the weights, refuses tensors with gradients and locks, leaves closures and
hooks bound to the original network, and calls the classes' own `__deepcopy__`. A twin costs some microseconds per
module. `shared_state` handles what it shares with the network: classes and the globals of their Python modules.
"""

import copy
import functools
import random
import re
import sys
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

Network = TypeVar("Network", bound=nn.Module)
Copy = Callable[["_Twin", Any], Any]

_UNCHANGING = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented), object),
        *(type, types.ModuleType, types.CodeType, re.Pattern, property, classmethod, staticmethod),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size),
    }
)
# Instances of these libraries' classes are not the network's: loggers, threads, compilers, trainers and their data.
_SHARED = sys.stdlib_module_names | {"torch", "lightning", "pytorch_lightning", "lightning_fabric"}
_COPIED = ("torch.nn", "torch.utils.hooks", "torch.distributions", "collections", "argparse", "types")


def twin(model: Network, replaced: Mapping[Tensor, Tensor]) -> Network:
    """A network like `model` in which every module, container and hook is new.

    Modules with several names and tied tensors remain so. Bound methods, partials, closures and weak references lead to
    the twin's modules, tensors and containers. Objects that cannot be copied are shared: classes, locks, files,
    generators, instances of classes with `__del__`, and those of the standard library, torch's compilers and trainers.

    Args:
        replaced: for tensors of the network, the tensor that the twin uses instead; it may be the same tensor. All
            others, such as those in caches, are cloned, and share memory in the twin if they did before.
    """
    return cast(Network, _Twin(model, replaced).of(model))


def copied(model: Network) -> Network:
    """A twin with separate tensors, including gradients: training one does not change the other."""
    tensors = {*model.parameters(), *model.buffers()}
    return twin(model, {old: copy.deepcopy(old) if old.is_leaf else old.detach().clone() for old in tensors})


class _Twin:
    """The copies made so far, by the identity of the originals."""

    def __init__(self, model: nn.Module, replaced: Mapping[Tensor, Tensor]) -> None:
        self.model = model
        self.replaced = replaced
        self.known: dict[int, Any] = {id(tensor): stand_in for tensor, stand_in in replaced.items()}
        self.copies = dict(_COPIES)

    def of(self, value: Any) -> Any:
        """The twin's `value`: the same object if nothing in it belongs to the network."""
        kind = type(value)
        if kind in _UNCHANGING:
            return value
        known = self.known.get(id(value))
        if known is not None:
            return known
        if kind not in self.copies:
            self.copies[kind] = _copy_of(kind)
        return self.copies[kind](self, value)

    def items(self, old: Mapping[Any, Any], new: dict[Any, Any]) -> None:
        """Put copies of the items of a dict into another. Most of a twin's time is spent here."""
        known = self.known
        for key, item in old.items():
            kind = type(item)
            if type(key) is not str:
                key = self.of(key)
            if kind in _UNCHANGING:
                new[key] = item
            elif kind is OrderedDict and not item and id(item) not in known:  # a module has eleven of them
                new[key] = known[id(item)] = OrderedDict()
            else:
                new[key] = self.of(item)

    @functools.cached_property
    def modules(self) -> set[int]:
        return {id(module) for module in self.model.modules()}

    @functools.cached_property
    def storages(self) -> dict[int, torch.UntypedStorage]:
        """The twin's memory, by the address of the network's; tensors that are replaced by themselves bring theirs."""
        kept = [old.untyped_storage() for old, new in self.replaced.items() if old is new and _plain(old)]
        return {storage._cdata: storage for storage in kept}


def _same(twin: _Twin, old: Any) -> Any:
    return old


def _module(twin: _Twin, old: nn.Module) -> nn.Module:
    new = twin.known[id(old)] = object.__new__(type(old))
    twin.known[id(old.__dict__)] = new.__dict__
    twin.items(old.__dict__, new.__dict__)
    new.__dict__.pop("_compiled_call_impl", None)  # it calls the network's own code
    return new


def _dict(twin: _Twin, old: dict[Any, Any]) -> dict[Any, Any]:
    new: dict[Any, Any] = {}
    twin.known[id(old)] = new
    twin.items(old, new)
    return new


def _ordered_dict(twin: _Twin, old: OrderedDict[Any, Any]) -> OrderedDict[Any, Any]:
    new: OrderedDict[Any, Any] = OrderedDict()
    twin.known[id(old)] = new
    twin.items(old, new)
    return new


def _list(twin: _Twin, old: list[Any]) -> list[Any]:
    new: list[Any] = []
    twin.known[id(old)] = new
    new.extend(map(twin.of, old))
    return new


def _set(twin: _Twin, old: set[Any]) -> set[Any]:
    new: set[Any] = set()
    twin.known[id(old)] = new
    new.update(map(twin.of, old))
    return new


def _tuple(twin: _Twin, old: Any) -> Any:
    """Of a tuple or frozenset, or a subclass; the same object where its items are."""
    items = [twin.of(item) for item in old]
    if id(old) in twin.known:  # met again inside itself
        return twin.known[id(old)]
    if all(new is item for new, item in zip(items, old, strict=True)):
        return old
    kind = type(old)
    try:
        new = (tuple if isinstance(old, tuple) else frozenset).__new__(kind, items)
    except TypeError:  # such as torch.return_types.max
        new = kind(items)
    twin.known[id(old)] = new
    return new


def _instance(base: Any, slots: list[Any], twin: _Twin, old: Any) -> Any:
    """Of an object of a class written in Python, which may be a subclass of a container; none of its code runs."""
    try:
        new = base.__new__(type(old))
    except TypeError:  # of a class in C
        return old
    twin.known[id(old)] = new
    if issubclass(base, dict):
        if base is defaultdict:
            new.default_factory = twin.of(old.default_factory)
        for key, item in base.items(old):
            base.__setitem__(new, twin.of(key), twin.of(item))
    elif base is deque:
        deque.__init__(new, map(twin.of, old), old.maxlen)
    elif base in (list, set):
        (list.extend if base is list else set.update)(new, map(twin.of, base.__iter__(old)))
    _attributes(twin, old, new, slots)
    return new


def _attributes(twin: _Twin, old: Any, new: Any, slots: list[Any]) -> None:
    """Put copies of what `old` has in `__dict__` and `__slots__` into `new`, past any `__setattr__`."""
    attributes = getattr(old, "__dict__", None)
    if type(attributes) is dict or attributes is old:
        known = twin.known.get(id(attributes))
        if known is None:
            twin.known[id(attributes)] = new.__dict__
            twin.items(attributes, new.__dict__)
        else:  # several objects share one, or the object is its own
            object.__setattr__(new, "__dict__", known)
    for slot in slots:
        try:
            item = slot.__get__(old)
        except AttributeError:  # not set
            continue
        slot.__set__(new, twin.of(item))


def _slots(kind: type) -> list[Any]:
    members = [member for base in kind.__mro__ if "__slots__" in vars(base) for member in vars(base).values()]
    return [member for member in members if type(member) is types.MemberDescriptorType]


def _tensor(twin: _Twin, old: Tensor) -> Tensor:
    """A clone without a history, which shares memory with others as the original does."""
    if type(old) in (Tensor, nn.Parameter, nn.Buffer) and _plain(old):
        new = _with_memory(twin, old)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, old.requires_grad)
        elif old.is_leaf:
            new.requires_grad_(old.requires_grad)
    else:
        new = old.detach().clone()
    twin.known[id(old)] = new
    return new


def _with_memory(twin: _Twin, old: Tensor) -> Tensor:
    storage = old.untyped_storage()
    if storage._cdata not in twin.storages:
        twin.storages[storage._cdata] = storage.clone()  # type: ignore[no-untyped-call]
    empty = torch.empty(0, dtype=old.dtype, device=old.device)
    return empty.set_(twin.storages[storage._cdata], old.storage_offset(), old.size(), old.stride())


def _plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())


def _function(twin: _Twin, old: types.FunctionType) -> Any:
    """A function with its own cells, defaults and attributes; the same one if it has no state."""
    if "_torchdynamo_orig_callable" in old.__dict__:
        return twin.of(_eager(old))
    defaults = *(old.__defaults__ or ()), *(old.__kwdefaults__ or {}).values()
    if not old.__closure__ and all(type(default) in _UNCHANGING for default in defaults):
        return old
    if _is_shared(old.__globals__.get("__name__")):
        return old
    cells = tuple(twin.known.setdefault(id(cell), types.CellType()) for cell in old.__closure__ or ())
    new = types.FunctionType(old.__code__, old.__globals__, old.__name__, closure=cells or None)
    twin.known[id(old)] = new
    for cell, own in zip(old.__closure__ or (), cells, strict=True):
        with suppress(ValueError):  # a cell, or the name that it is for, may be empty
            if not _is_filled(own):
                own.cell_contents = twin.of(cell.cell_contents)
    new.__defaults__, new.__kwdefaults__ = twin.of(old.__defaults__), twin.of(old.__kwdefaults__)
    new.__qualname__, new.__module__, new.__doc__ = old.__qualname__, old.__module__, old.__doc__
    new.__annotations__ = old.__annotations__
    twin.items(old.__dict__, new.__dict__)
    return new


def _eager(compiled: types.FunctionType) -> Any:
    """The argument of `torch.compile`, which may wrap a method in a function first."""
    function = compiled.__dict__["_torchdynamo_orig_callable"]
    own = _is_shared(getattr(function, "__globals__", {}).get("__name__"))
    return function.__dict__.get("__wrapped__", function) if own else function


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _method(twin: _Twin, old: types.MethodType) -> Any:
    function, owner = twin.of(old.__func__), twin.of(old.__self__)
    if function is old.__func__ and owner is old.__self__:
        return old
    return types.MethodType(function, owner)


def _builtin_method(twin: _Twin, old: Any) -> Any:
    """Of a method in C, such as the `append` of a list."""
    owner = twin.of(old.__self__)
    return old if owner is old.__self__ else getattr(owner, old.__name__)


def _partial(twin: _Twin, old: Any) -> Any:
    keywords = {name: twin.of(value) for name, value in old.keywords.items()}
    new = functools.partial.__new__(type(old), twin.of(old.func), *map(twin.of, old.args), **keywords)
    twin.known[id(old)] = new
    twin.items(old.__dict__, new.__dict__)
    return new


def _cached_function(twin: _Twin, old: Any) -> Any:
    """A separate, empty `lru_cache`, if the function belongs to the network."""
    function = twin.of(old.__wrapped__)
    if function is old.__wrapped__:
        return old
    new = twin.known[id(old)] = functools.lru_cache(**old.cache_parameters())(function)
    return new


def _weak_reference(twin: _Twin, old: Any) -> Any:
    """A weak reference to the twin's object, if the network owns the original."""
    if type(old) is weakref.ref:
        target = old()
    else:
        try:
            target = old.__reduce_ex__.__self__  # what the proxy represents
        except ReferenceError:
            return old
    if id(target) in twin.known or isinstance(target, dict) or id(target) in twin.modules:
        return (weakref.ref if type(old) is weakref.ref else weakref.proxy)(twin.of(target))
    return old


def _generator(twin: _Twin, old: torch.Generator) -> torch.Generator:
    new = twin.known[id(old)] = old.clone_state()
    return new


def _view_of_a_dict(twin: _Twin, old: types.MappingProxyType[Any, Any]) -> types.MappingProxyType[Any, Any]:
    new: dict[Any, Any] = {}
    view = twin.known[id(old)] = types.MappingProxyType(new)
    twin.items(old, new)
    return view


def _deep_copy(twin: _Twin, old: Any) -> Any:
    new = twin.known[id(old)] = copy.deepcopy(old)
    return new


_COPIES: dict[type, Copy] = {
    dict: _dict,
    OrderedDict: _ordered_dict,
    list: _list,
    set: _set,
    tuple: _tuple,
    frozenset: _tuple,
    types.FunctionType: _function,
    types.MethodType: _method,
    types.BuiltinFunctionType: _builtin_method,
    types.MethodWrapperType: _builtin_method,
    functools.partial: _partial,
    type(functools.lru_cache(_same)): _cached_function,
    weakref.ref: _weak_reference,
    weakref.ProxyType: _weak_reference,
    weakref.CallableProxyType: _weak_reference,
    torch.Generator: _generator,
    UninitializedParameter: _deep_copy,
    UninitializedBuffer: _deep_copy,
    random.Random: _deep_copy,
    bytearray: _deep_copy,
    types.MappingProxyType: _view_of_a_dict,
}
_BASES: tuple[type, ...] = (OrderedDict, defaultdict, dict, list, set, deque, types.SimpleNamespace, object)


def _copy_of(kind: type) -> Copy:
    """How objects of a class that is not in `_COPIES` are copied."""
    base, slots = next(base for base in _BASES if issubclass(kind, base)), _slots(kind)
    written_in_python = functools.partial(_instance, base, slots)
    if issubclass(kind, nn.Module):
        return written_in_python if slots or base is not object else _module
    for sort, its_copy in ((Tensor, _tensor), (tuple | frozenset, _tuple), (functools.partial, _partial)):
        if issubclass(kind, sort):
            return its_copy
    if kind.__module__.partition(".")[0] == "numpy":  # arrays, and generators of random numbers
        return _deep_copy
    if issubclass(kind, type | Enum | BaseException) or hasattr(kind, "__del__"):
        return _same
    if any(map(_is_shared, _modules(kind))):
        return _same
    return written_in_python


def _modules(kind: type) -> list[str]:
    """The Python modules of a class and its bases, of those that are written in Python."""
    return [base.__module__ for base in kind.__mro__ if base.__module__ not in ("builtins", "abc", "typing")]


def _is_shared(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in _SHARED and not module.startswith(_COPIED)
