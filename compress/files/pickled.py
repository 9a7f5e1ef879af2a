"""Checks what reading a pickle would cost, from its opcodes, before torch reads it.

torch's own reader (`weights_only=True`) runs no code, but a kilobyte can keep it busy for ever: a tuple that holds a
tuple twice, thirty times over, is hashed element by element when it is used as a key. So this reader
steps through the opcodes once, with stand-ins for values, and refuses what `torch.save` of weights never writes. It
names the foreign classes and functions in the pickle, whose objects `compress.files.unread` lets torch skip.
"""

import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from typing import IO, Any, Literal

DEPTH = 100
"""The most that containers may be nested; Python and C walk them by recursion."""

OPCODES = 4_000_000
"""The most operations of one pickle: some hundred thousand tensors."""

WAITING = 100_000
"""The most values that may wait to be put in a container; pickle adds them by the thousand."""

STRANGE = 1_000
"""The most keys that are neither text nor small integers: such keys can be made to collide, each with all others."""

REPEATED = 100
"""How many times as large as its text a pickle may be, counting a value at each reference to it."""

CLASSES = 200
"""The most foreign classes and functions of one pickle: torch compares each call with the list of them."""

SKIPPED = 50_000
"""The most objects of foreign classes in one pickle."""

_WEIGHTS = re.compile(
    r"torch(\.cuda)?(\.sparse)?\.\w+|torch\._utils\._rebuild_\w+|torch\._tensor\.\w+|torch\.storage\.\w+"
    r"|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout|collections\.(Counter|OrderedDict)"
    r"|builtins\.(set|complex|bytearray)|_codecs\.encode"
)
"""Names that torch reads without leave, and some that it refuses itself."""

# Callables of torch's list that cost no more than their arguments. Sparse, quantized and nested tensors are allocated
# or checked by the sizes that they claim, and torch.FloatTensor(n) has n entries.
_REBUILT = {f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3")}
_REBUILT |= {f"torch._utils._rebuild_{name}" for name in ("parameter", "parameter_with_state")}
_REBUILT |= {"torch._utils._rebuild_meta_tensor_no_storage", "torch.nn.parameter.Parameter"}
_PLAIN = {"torch.Size", "torch.device", "torch.serialization._get_layout", "builtins.complex"}
_KEYED = {"collections.OrderedDict", "collections.Counter", "builtins.set"}
_TEXT = {str, bytes, type(None)}
_ENCODINGS = {"latin1", "latin-1", "ascii", "utf-8", "utf8"}
_METHODS = frozenset(dir(OrderedDict))
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1"}
_TEXTS = {"BINUNICODE", "SHORT_BINSTRING"}


Foreign = dict[str, Literal["object", "dict", "list"]]
"""Classes and functions that torch does not read, by name, and what their objects are: "dict" where they get items."""


class StrangePickleError(Exception):
    """The reason why a pickle is not read, as the end of a sentence that begins with the file."""


class _Global(str):
    """A class or function by its qualified name."""


class _Box:
    """A container, or an object made from one.

    size: values in it, repeated ones counted each time.
    strange: how many of its own items are not plain keys; pairs: how many have a first item that is not one.
    closed: whether it is in another container, or was referred to again; then it no longer grows.
    """

    __slots__ = ("closed", "depth", "items", "kind", "methods", "pairs", "size", "strange")

    def __init__(self, kind: str, items: Sequence[Any] = ()) -> None:
        self.kind, self.size, self.depth, self.strange, self.pairs = kind, 1, 0, 0, 0
        self.closed = self.methods = False
        self.items = tuple(items[:8])
        self.take(items)

    def take(self, items: Sequence[Any]) -> None:
        self.size += len(items)
        self.pairs += len(items)
        for item in items:
            if type(item) is _Box:
                item.closed = True
                self.size += item.size - 1
                self.strange += 1
                self.pairs -= bool(item.items) and _is_key(item.items[0])
                if item.depth >= self.depth:
                    self.depth = item.depth + 1
            elif not _is_key(item):
                self.strange += 1


def require_cheap(file: IO[bytes], room: int, trusted: Container[str] = ()) -> Foreign:
    """Check the pickle at the file's position, up to its end.

    Args:
        room: bytes of the whole file, which no single storage may exceed.
        trusted: names of classes and functions that the user has allowed, beside those of weights.

    Returns:
        The other classes and functions in it, under the names that torch gives them.

    Raises:
        StrangePickleError: it is too costly to read, or does with its objects what no class of containers does.
        Exception: of any kind, where it is damaged.
    """
    reading = _Reading(file, room, trusted)
    reading.run()
    return reading.foreign


def _is_key(value: Any) -> bool:
    """Whether a key is safe: the hash of text is not predictable, and small integers have distinct hashes."""
    return type(value) in _TEXT or (isinstance(value, int) and abs(value) < 2**60)


class _Reading:
    def __init__(self, file: IO[bytes], room: int, trusted: Container[str]) -> None:
        self._file, self._start, self._room, self._trusted = file, file.tell(), room, trusted
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._copied = self._strange = self._skipped = 0
        self.foreign: Foreign = {}

    def run(self) -> None:
        for count, (opcode, argument, place) in enumerate(pickletools.genops(self._file)):
            self._step(opcode.name, argument)
            if count > OPCODES or len(self._stack) > WAITING or len(self._memo) > OPCODES // 4:
                raise StrangePickleError(f"its pickle has {count:,} operations and {len(self._stack):,} loose values")
            if self._copied > REPEATED * ((place or 0) - self._start) + 10_000:
                raise StrangePickleError("its pickle repeats the same values over and over")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _NUMBERS or name in _TEXTS:
            stack.append(argument)
        elif name == "GLOBAL":
            stack.append(self._named(argument))
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
            if isinstance(stack[-1], _Box):
                stack[-1].closed = True
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in _BUILDERS:
            _BUILDERS[name](self)
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"torch does not read the operation {name}")

    def _named(self, argument: str) -> _Global:
        module, _, what = argument.partition(" ")
        module, what = NAME_MAPPING.get((module, what), (IMPORT_MAPPING.get(module, module), what))
        name = _Global(f"{module}.{what}")
        if not _WEIGHTS.fullmatch(name) and name not in self._trusted:
            self.foreign.setdefault(str(name), "object")
            if len(self.foreign) > CLASSES:
                raise StrangePickleError(f"it holds pickled objects of more than {CLASSES} classes")
        return name

    def _box(self, kind: str, items: Sequence[Any] = ()) -> None:
        box = _Box(kind, items)
        self._charge(box, items)
        self._stack.append(box)

    def _charge(self, box: _Box, items: Sequence[Any]) -> None:
        for item in items:
            if type(item) is _Box:
                self._copied += item.size
        if box.depth > DEPTH:
            raise StrangePickleError(f"its pickle nests containers more than {DEPTH} deep")

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError("it takes values that are not there")
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return items

    def _marked(self) -> list[Any]:
        return self._pop(len(self._stack) - self._marks.pop())

    def _grow(self, items: list[Any], kinds: tuple[str, ...]) -> _Box:
        """Put items into the container on top."""
        box = self._stack[-1]
        if not isinstance(box, _Box) or (box.kind not in kinds and box.kind not in self.foreign):
            raise StrangePickleError("its pickle puts values into something that is not a container")
        if box.kind in self.foreign:
            kind: Literal["dict", "list"] = "list" if kinds == ("list",) else "dict"
            if self.foreign[box.kind] not in ("object", kind):
                raise StrangePickleError(f"its pickle takes {box.kind} for a list and for a dict")
            self.foreign[box.kind] = kind
            if kind == "list":  # whose items are dropped
                return box
        if box.closed:
            raise StrangePickleError("its pickle changes a container that is used already")
        box.items = box.items or tuple(items[:8])
        box.take(items)
        self._charge(box, items)
        return box

    def _append(self, items: list[Any]) -> None:
        self._grow(items, ("list",))

    def _set(self, items: list[Any]) -> None:
        box = self._grow(items, ("dict", "collections.OrderedDict", "collections.Counter"))
        keys = items[::2]
        box.methods = box.methods or any(isinstance(key, str) and key in _METHODS for key in keys)
        self._count_strange(sum(not _is_key(key) for key in keys))

    def _count_strange(self, keys: int) -> None:
        self._strange += keys
        if self._strange > STRANGE:
            raise StrangePickleError(f"more than {STRANGE:,} of its keys are neither text nor small integers")

    def _call(self) -> None:
        function, arguments = self._pop(2)
        if isinstance(function, _Box) and function.kind in self.foreign:  # what is skipped may be called: a method
            function = _Global(function.kind)
        self._require_harmless(function, arguments)
        skipped = function in self.foreign
        self._skipped += skipped
        if self._skipped > SKIPPED:
            raise StrangePickleError(f"it holds more than {SKIPPED:,} pickled objects")
        self._box(str(function), [] if skipped else [arguments])  # what is skipped takes no arguments

    def _require_harmless(self, function: Any, arguments: Any) -> None:
        """Refuse calls of torch's list that could take more than their arguments; torch refuses the others."""
        if not isinstance(function, _Global) or not isinstance(arguments, _Box) or arguments.kind != "tuple":
            raise StrangePickleError("its pickle calls something that is not a function")
        if function in self.foreign:
            return
        if function == "torch._tensor._rebuild_from_type_v2":
            self._require_harmless(arguments.items[0], arguments.items[2])
        elif function in _KEYED:
            for given in arguments.items[:1]:
                if isinstance(given, _Box) and given.kind not in ("dict", *_KEYED):
                    self._count_strange(given.pairs if function == "collections.OrderedDict" else given.strange)
        elif function == "builtins.bytearray":
            if any(isinstance(given, int) for given in arguments.items):
                raise StrangePickleError("its pickle asks for memory by a number")
        elif function == "_codecs.encode":
            if not set(arguments.items[1:]) <= _ENCODINGS:
                raise StrangePickleError("its pickle encodes text in an unusual way")
        elif function.startswith("torch.") and function not in _REBUILT | _PLAIN:
            raise StrangePickleError(f"its tensors are not plain arrays of numbers ({function})")

    def _build(self) -> None:
        """State for the object on top; that of a dict becomes attributes, which would hide its methods."""
        made, state = self._stack[-2], self._stack.pop()
        if isinstance(made, _Box) and made.kind in self.foreign:
            return  # the state of what is skipped is dropped
        self._charge(made if isinstance(made, _Box) else _Box("object"), [state])
        if isinstance(made, _Box) and made.kind in _KEYED:
            if not isinstance(state, _Box) or state.kind != "dict" or state.methods:
                raise StrangePickleError(f"its pickle changes the methods of a {made.kind.rpartition('.')[2]}")
            made.take([state])
            self._charge(made, [])

    def _storage(self) -> None:
        (which,) = self._pop(1)
        items = which.items if isinstance(which, _Box) and which.kind == "tuple" else ()
        kinds = (str | bytes, _Global, str | bytes, str | bytes, int)
        if items and items[0] == "module":
            raise StrangePickleError("it holds a pickled network")
        if len(items) not in (5, 6) or not all(map(isinstance, items, kinds)):
            raise StrangePickleError("its pickle names a storage in a way that torch does not")
        if not 0 <= items[4] <= self._room:
            raise StrangePickleError(f"a storage of it claims {items[4]:,} entries, more than the file has bytes")
        self._stack.append(_Box("storage"))


def _tuple(count: int) -> Callable[[_Reading], None]:
    return lambda reading: reading._box("tuple", reading._pop(count))


_BUILDERS: dict[str, Callable[[_Reading], None]] = {
    "EMPTY_TUPLE": _tuple(0),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda reading: reading._box("tuple", reading._marked()),
    "EMPTY_LIST": lambda reading: reading._box("list"),
    "EMPTY_DICT": lambda reading: reading._box("dict"),
    "EMPTY_SET": lambda reading: reading._box("builtins.set"),
    "APPEND": lambda reading: reading._append(reading._pop(1)),
    "APPENDS": lambda reading: reading._append(reading._marked()),
    "SETITEM": lambda reading: reading._set(reading._pop(2)),
    "SETITEMS": lambda reading: reading._set(reading._marked()),
    "REDUCE": _Reading._call,
    "NEWOBJ": _Reading._call,
    "BUILD": _Reading._build,
    "BINPERSID": _Reading._storage,
}
