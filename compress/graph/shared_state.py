"""`shared_state_kept`: remove tensors without data from the state that a network shares with its twins.

A pass through a twin (`compress.graph.twin`) can leave tensors in what both share: attributes of classes, globals of
Python modules, default arguments, variables of enclosing functions, `functools.lru_cache`. State that the network's
code names is recorded before the pass. The search starts from its classes and hooks, looks up the names in each
function in the function's globals and in the classes found so far, and continues with the functions found. It is
compared afterwards, only if a tensor of the pass is still alive.
"""

import functools
import gc
import operator
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from compress.errors import UnsupportedModelError

# Functions of these libraries keep nothing of a network's.
_LIBRARIES = sys.stdlib_module_names | {
    *("torch", "compress", "numpy", "functorch", "torchgen", "typing_extensions"),
    *("huggingface_hub", "httpx", "httpx2", "safetensors", "filelock", "packaging", "psutil", "tqdm", "PIL"),
}
_STATEFUL = {"builtins", "collections", "functools", "types", "weakref", "argparse", "_thread"}  # in spite of being one
_STATELESS = frozenset({type(None), bool, int, float, complex, str, bytes, object, types.BuiltinFunctionType})
_COPIED = (dict, OrderedDict, list, set)  # a twin has its own, wherever it finds them
_CACHED = type(functools.lru_cache(str))
_ABSENT = object()
# Larger containers, such as vocabularies, are recorded without the contents of their items.
_MOST_ITEMS = 10_000
_DEPTH = 4
_CONSTRUCTORS = {"__init__", "__new__", "__post_init__"}
_NOT_IN_A_PASS = {"__repr__", "__str__", "__dir__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__"}


@contextmanager
def shared_state_kept(model: nn.Module) -> Iterator["SharedState"]:
    """Undo the changes that passes through twins of `model` make to the state that the twins share with it.

    Inside, `watch` each tensor without data. If one of them is in shared state afterwards, everything in that state
    that has changed is reset, and function caches that contain one are emptied. Other changes remain.

    Raises:
        UnsupportedModelError: the network still leads to a watched tensor; the message says by what.
    """
    shared = SharedState(model)
    try:
        yield shared
    except BaseException:
        shared.put_right()
        raise
    shared.put_right()
    shared.require_none()


class SharedState:
    """The state that the network's code can change beside the network's attributes, as it was before."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._watched: list[weakref.ref[Tensor]] = []
        self._found = _Search(model)

    def watch(self, tensor: Tensor) -> None:
        """Record a tensor that must not remain anywhere."""
        self._watched.append(weakref.ref(tensor))

    def put_right(self) -> None:
        """Reset everything that has changed, if a watched tensor is in any of it."""
        alive = self._alive()
        if not alive:
            return
        changed = [place for place in self._found.places if not place.is_as_before()]
        paths = _Paths(alive)
        if paths.find(value for place in changed for value in place.new_values()):
            for place in changed:
                place.set_back()
        for cache, _ in self._found.caches:
            if cache.cache_info().currsize and paths.find(gc.get_referents(cache)):
                cache.cache_clear()

    def set_back(self) -> None:
        """Reset everything that has changed."""
        for place in self._found.places:
            if not place.is_as_before():
                place.set_back()
        for cache, before in self._found.caches:
            if _has_changed(cache, before):
                cache.cache_clear()

    def is_as_before(self) -> bool:
        """Whether no shared state has changed, and no values could have, since it contains no tensor."""
        shared = (place for place in self._found.places if id(place.owner) not in self._found.copied)
        if any(place.holds_tensors() for place in shared) or not all(one.is_as_before() for one in self._found.places):
            return False
        return not any(_has_changed(cache, before) or _may_hold_tensors(cache) for cache, before in self._found.caches)

    def require_none(self) -> None:
        """Raise UnsupportedModelError if the network, or what it shares, leads to a watched tensor."""
        alive = self._alive()
        if not alive:
            return
        paths = _Paths(alive)
        for name, values in self._holders():
            path = paths.find(values)
            if path:
                steps = " > ".join(type(one).__name__ for one in path)
                raise UnsupportedModelError(
                    f"{name}: a pass without data leaves a tensor there that cannot be removed ({steps}); "
                    "keep it in an attribute of a module, or in a dict or list there"
                )

    def _holders(self) -> Iterator[tuple[str, Iterable[Any]]]:
        """Places that can contain a tensor, with names: the network's attributes, and its shared state."""
        for path, module in self._model.named_modules():
            for name, value in list(vars(module).items()):
                if name != "_modules":
                    yield f"{path}.{name}".removeprefix("."), [value]
        for place in self._found.places:
            yield place.name, _values(place.owner)

    def _alive(self) -> dict[int, Tensor]:
        """By identity; while they are stored here, no other object gets their identity."""
        return {id(tensor): tensor for reference in self._watched if (tensor := reference()) is not None}


class _Place(NamedTuple):
    """A container, class or variable, and its earlier contents."""

    owner: Any
    before: Mapping[Any, Any] | list[Any]
    name: str

    def is_as_before(self) -> bool:
        if type(self.owner) is dict and len(self.owner) == len(
            self.before
        ):  # most are, and their order does not change
            before = cast(dict[Any, Any], self.before)
            if all(map(operator.is_, self.owner, before)):
                return all(map(operator.is_, self.owner.values(), before.values()))
        now = _content(self.owner)
        if isinstance(self.before, list):
            return len(now) == len(self.before) and all(map(operator.is_, now, self.before))
        return len(now) == len(self.before) and all(self.before.get(key, _ABSENT) is now[key] for key in now)

    def holds_tensors(self) -> bool:
        values = self.before if isinstance(self.before, list) else self.before.values()
        return any(issubclass(kind, Tensor) for kind in {*map(type, values)})

    def new_values(self) -> list[Any]:
        """The new contents, with their keys."""
        now = _content(self.owner)
        if isinstance(self.before, list):
            old = set(map(id, self.before))
            return [value for value in now if id(value) not in old]
        new = [(key, value) for key, value in now.items() if self.before.get(key, _ABSENT) is not value]
        return [one for pair in new for one in pair]

    def set_back(self) -> None:
        owner, before = self.owner, cast(Any, self.before)
        if isinstance(owner, list):
            list.__setitem__(owner, slice(None), before)
        elif isinstance(owner, deque):
            owner.clear()
            owner.extend(before)
        elif isinstance(owner, set):
            set.clear(owner)
            set.update(owner, before.values())
        elif isinstance(owner, types.CellType):
            if before:
                owner.cell_contents = before["contents"]
            else:
                del owner.cell_contents
        else:
            _set_items_back(owner, before)


def _has_changed(cache: Any, before: Any) -> bool:
    now = cache.cache_info()
    return (now.misses, now.currsize) != (before.misses, before.currsize)


def _may_hold_tensors(cache: Any) -> bool:
    """Whether a result of a cached function is or contains a tensor, or is too large to search."""
    pending, seen = gc.get_referents(cache) if cache.cache_info().currsize else [], set[int]()
    while pending:
        value = pending.pop()
        if isinstance(value, Tensor) or len(seen) > _MOST_ITEMS:
            return True
        if type(value) not in _STATELESS and id(value) not in seen and not _is_of_a_library(type(value)):
            seen.add(id(value))
            pending += _inside(value)
    return False


def _is_of_a_library(kind: type) -> bool:
    """Whether an object of this class, such as a logger, keeps nothing of a network's."""
    module = kind.__module__.partition(".")[0]
    return module in _LIBRARIES and module not in _STATEFUL


def _set_items_back(owner: Any, before: Mapping[Any, Any]) -> None:
    """Of a dict, or the attributes of a class."""
    if isinstance(owner, type):
        put, remove = functools.partial(type.__setattr__, owner), functools.partial(type.__delattr__, owner)
    else:
        base = OrderedDict if isinstance(owner, OrderedDict) else dict
        put, remove = functools.partial(base.__setitem__, owner), functools.partial(base.__delitem__, owner)
    now = _content(owner)
    for key, value in now.items():
        if key not in before and not isinstance(value, types.ModuleType):  # imports are kept
            remove(key)
    for key, value in before.items():
        if now.get(key, _ABSENT) is not value:
            put(key, value)


def _content(owner: Any) -> Any:
    """A copy of the contents of a place, as a dict or list."""
    if isinstance(owner, dict):
        return dict(dict.items(owner))  # dict.copy would call the owner's own `__getitem__` where it has one
    if isinstance(owner, type):
        return dict(vars(owner))
    if isinstance(owner, set):
        return {id(item): item for item in owner}
    if isinstance(owner, types.CellType):
        try:
            return {"contents": owner.cell_contents}
        except ValueError:
            return {}
    return list(owner)


def _values(owner: Any) -> Iterable[Any]:
    content = _content(owner)
    return content if isinstance(content, list) else content.values()


class _Search:
    """The places and caches that the code of a network names.

    copied: the identities of containers that only the network's attributes reach, so a twin has copies of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.places: list[_Place] = []
        self.caches: list[tuple[Any, Any]] = []  # and what each says of itself
        self.copied: set[int] = set()
        self._seen: set[int] = set()
        self._in_attributes = False
        self._names: set[str] = {"forward"}
        self._waiting: dict[str, list[tuple[Any, str]]] = {}  # attributes of classes, until code has their name
        self._functions: list[types.FunctionType] = []
        for module in model.modules():
            self._network(module)
        while self._functions:
            self._function(self._functions.pop())

    def _network(self, module: nn.Module) -> None:
        kind = type(module)
        if id(kind) not in self._seen:
            self._class(kind)
            self._value(kind.forward, f"{kind.__qualname__}.forward")  # of an fx.GraphModule, it is not from a library
        for name, value in vars(module).items():
            if (type(value) in _COPIED and not value) or name in ("_parameters", "_buffers", "_modules"):
                continue
            if type(value) not in _STATELESS:
                self._in_attributes = type(value) in _COPIED
                self._value(value, f"{kind.__qualname__}.{name}")
                self._in_attributes = False

    def _value(self, value: Any, name: str, depth: int = 0) -> None:
        kind = type(value)
        if kind in _STATELESS:
            return
        if id(value) in self._seen:
            if not self._in_attributes:
                self.copied.discard(id(value))
            return
        if kind is types.FunctionType:
            self._functions.append(value)
        elif isinstance(value, type):
            self._class(value)
        elif kind is types.MethodType or isinstance(value, staticmethod | classmethod):
            self._value(value.__func__, name, depth)
            self._value(getattr(value, "__self__", None), name, depth)
        elif kind is property:
            for function in (value.fget, value.fset):
                self._value(function, name, depth)
        elif kind is _CACHED:
            self.caches.append((value, value.cache_info()))
            self._value(value.__wrapped__, name)
        elif isinstance(value, functools.partial | functools.cached_property):
            for one in (value.func, *getattr(value, "args", ()), *getattr(value, "keywords", {}).values()):
                self._value(one, name, depth)
        elif isinstance(value, dict | list | set | deque | tuple | frozenset):
            self._container(value, name, depth)
        elif not isinstance(value, Tensor | types.ModuleType):
            self._object(value, name, depth)
        self._seen.add(id(value))

    def _container(self, value: Any, name: str, depth: int) -> None:
        self._seen.add(id(value))
        if not isinstance(value, tuple | frozenset):
            self._note(value, name)
            if self._in_attributes and type(value) in _COPIED:
                self.copied.add(id(value))
        if len(value) <= _MOST_ITEMS and depth < _DEPTH:
            for item in list(dict.values(value) if isinstance(value, dict) else value):
                if type(item) not in _STATELESS:
                    self._value(item, name, depth + 1)

    def _object(self, value: Any, name: str, depth: int) -> None:
        self._seen.add(id(value))
        self._in_attributes = False  # twins share some objects
        kind = type(value)
        if isinstance(value, nn.Module):
            depth = 0
        elif _is_of_a_library(kind):
            return
        self._class(kind)
        attributes = getattr(value, "__dict__", None)
        if type(attributes) is dict:
            self._container(attributes, name, depth)

    def _class(self, kind: type) -> None:
        for base in kind.__mro__:
            if id(base) in self._seen:
                continue
            self._seen.add(id(base))
            if _is_library(base.__module__):
                continue
            self._note(base, f"{base.__module__}.{base.__qualname__}")
            for name, value in list(vars(base).items()):
                if type(value) not in _STATELESS and name not in _NOT_IN_A_PASS:
                    self._attribute(base, name, value)

    def _attribute(self, kind: type, name: str, value: Any) -> None:
        where = f"{kind.__module__}.{kind.__qualname__}.{name}"
        called = kind.__name__ if name in _CONSTRUCTORS else name
        function = isinstance(value, types.FunctionType | staticmethod | classmethod | property | _CACHED)
        if not function or called in self._names or (name.startswith("__") and name not in _CONSTRUCTORS):
            self._value(value, where, 1)
        else:
            self._waiting.setdefault(called, []).append((value, where))

    def _function(self, function: types.FunctionType) -> None:
        """Follow the attributes of a function, and the names in its code."""
        where = f"{function.__module__}.{function.__qualname__}"
        library = _is_library(function.__globals__.get("__name__"))
        for cell in function.__closure__ or ():
            if not library and id(cell) not in self._seen:
                self._seen.add(id(cell))
                self._note(cell, f"a variable of {where}")
            for value in _values(cell):  # a library's decorator has the function here
                if not library or isinstance(value, types.FunctionType):
                    self._value(value, f"a variable of {where}", 1)
        if library:
            return
        self._note_globals(function.__globals__)
        for defaults in (function.__defaults__, function.__kwdefaults__):
            self._value(defaults, f"the default arguments of {where}")
        if function.__dict__:
            self._value(function.__dict__, f"the attributes of {where}")
        else:  # of most
            self.places.append(_Place(function.__dict__, {}, f"the attributes of {where}"))
        self._code(function)

    def _note_globals(self, names: dict[str, Any]) -> None:
        if id(names) not in self._seen:
            self._seen.add(id(names))
            self._note(names, f"the Python module {names.get('__name__')}")

    def _code(self, function: types.FunctionType) -> None:
        names, scope = _names_in(function.__code__), function.__globals__
        scopes = [scope]
        for name in (scope.keys() & names) | (sys.modules.keys() & names):
            value = scope.get(name, sys.modules.get(name))
            if type(value) is types.ModuleType and not _is_library(value.__name__):
                self._note_globals(vars(value))
                scopes.append(vars(value))
        for scope in scopes:
            for name in scope.keys() & names:
                value = scope[name]
                if type(value) not in _STATELESS and (id(value) not in self._seen or id(value) in self.copied):
                    self._value(value, f"{scope.get('__name__')}.{name}")
        self._names |= names
        for name in self._waiting.keys() & names:
            for value, where in self._waiting.pop(name):
                self._value(value, where, 1)

    def _note(self, owner: Any, name: str) -> None:
        self.places.append(_Place(owner, _content(owner), name))


@functools.lru_cache(10_000)
def _names_in(code: types.CodeType) -> frozenset[str]:
    """The names of globals and attributes in a function, including those in nested functions."""
    inner = (_names_in(one) for one in code.co_consts if isinstance(one, types.CodeType))
    return frozenset(code.co_names).union(*inner)


def _is_library(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in _LIBRARIES


class _Paths:
    """Paths from objects to the tensors `alive`; an object that was searched once is not searched again."""

    def __init__(self, alive: Mapping[int, Tensor]) -> None:
        self._alive = alive
        self._origins: dict[int, tuple[Any, Any]] = {}

    def find(self, roots: Iterable[Any]) -> list[Any] | None:
        """The objects from one of `roots` to a tensor, both included."""
        pending: list[tuple[Any, Any]] = [(root, None) for root in roots]
        while pending:
            value, origin = pending.pop()
            if type(value) in _STATELESS or id(value) in self._origins:
                continue
            self._origins[id(value)] = (value, origin)
            if id(value) in self._alive:
                return self._found(value)
            pending += [(one, value) for one in _inside(value)]
        return None

    def _found(self, value: Any) -> list[Any]:
        path = [value]
        while (origin := self._origins[id(path[0])][1]) is not None:
            path.insert(0, origin)
        self._origins = {}  # not all of it was looked into
        return path


def _inside(value: Any) -> list[Any]:
    """The objects that an object refers to, except those that reach the whole program."""
    if isinstance(value, type | types.ModuleType | types.CodeType | types.FrameType):
        return []
    if isinstance(value, types.FunctionType):
        return [*(value.__closure__ or ()), value.__defaults__, value.__kwdefaults__, value.__dict__]
    return gc.get_referents(value)
