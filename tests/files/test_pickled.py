"""What a pickle would cost: strange ones are refused within a moment, and whatever torch.save writes passes."""

import io
import pickle
import time
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.errors import CheckpointError
from compress.files.checkpoint import read_weights
from compress.files.pickled import CLASSES, DEPTH, SKIPPED, STRANGE, StrangePickleError, require_cheap

START = b"\x80\x02"
"""Protocol 2, as torch writes it."""

ORDERED = b"ccollections\nOrderedDict\n)R"
TENSOR = b"ctorch\nFloatTensor\n"


def text(content: str) -> bytes:
    return b"X" + len(content.encode()).to_bytes(4, "little") + content.encode()


def integer(number: int) -> bytes:
    size = number.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True)


def doubled(times: int, join: bytes) -> bytes:
    """A value that holds a value twice, so many times over."""
    steps = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + join for n in range(times))
    return text("x") + steps


BOMBS: dict[str, bytes] = {
    "a key that is a nest of tuples": b"}" + doubled(40, b"\x86") + b"K\x01s.",
    "a nest of tuples in a set": b"c__builtin__\nset\n(" + doubled(40, b"\x86") + b"t\x85R.",
    "a nest of tuples counted": b"ccollections\nCounter\n(" + doubled(40, b"\x86") + b"t\x85R.",
    "a nest of tuples in pairs": b"ccollections\nOrderedDict\n](" + doubled(40, b"\x86") + b"K\x01\x86e\x85R.",
    "a nest of lists": b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(40)) + b".",
    "a nest of dicts": b"}q\x00" + b"".join(b"}(K\x01h%cK\x02h%cuq%c" % (n, n, n + 1) for n in range(40)) + b".",
    "tuples, deep": b")" + b"\x85" * 200_000 + b".",
    "lists, deep": b"]" * 20_000 + b"a" * 19_999 + b".",
    "dicts, deep": b"}" + b"K\x01}" * 20_000 + b"s" * 20_000 + b".",
    "a chain of calls": (b"ccollections\nOrderedDict\n" * 500) + b")R" + b"\x85R" * 499 + b".",
    "attributes of attributes": ORDERED + b"".join(b"}" + text("a") + ORDERED for _ in range(500)) + b"sb" * 500 + b".",
    "a shadowed items": ORDERED + b"}" + text("items") + b"K\x01sb.",
    "a shadowed get": ORDERED + b"}" + text("get") + b"K\x01sb.",
    "a shadowed keys, by pairs": ORDERED + b"](" + text("keys") + b"K\x01\x86eb.",
    "a shadowed values of a Counter": b"ccollections\nCounter\n)R}" + text("values") + b"K\x01sb.",
    "memory by a number": b"c__builtin__\nbytearray\n" + integer(2**40) + b"\x85R.",
    "a new object of memory by a number": b"c__builtin__\nbytearray\n" + integer(2**40) + b"\x85\x81.",
    "a tensor by a number": TENSOR + integer(2**40) + b"\x85R.",
    "storage by a number": b"ctorch.storage\nUntypedStorage\n" + integer(2**40) + b"\x85R.",
    "memory by a number, called for": b"ctorch._tensor\n_rebuild_from_type_v2\n(c__builtin__\nbytearray\n"
    b"c__builtin__\nbytearray\n" + integer(2**40) + b"\x85NtR.",
    "keys that collide": b"}(" + b"".join(integer(n * (2**61 - 1)) + b"N" for n in range(1, STRANGE + 2)) + b"u.",
    "a list in itself": b"]q\x00h\x00a.",
    "a key made text in quadratic time": b"c_codecs\nencode\n" + text("\u0101" * 9) + text("punycode") + b"\x86R.",
    "values that nothing takes": b"N" * 200_000 + b".",
    "a call of a list": b"]" + b")R.",
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("bomb", BOMBS)
def test_what_would_cost_too_much_is_refused_at_once(tmp_path: Path, bomb: str, zipped: bool) -> None:
    with pytest.raises(CheckpointError, match=r"w\.pt .*torch\.save\(model\.state_dict"):
        read_weights(written(tmp_path / "w.pt", START + BOMBS[bomb], zipped=zipped))


def written(path: Path, content: bytes, *, zipped: bool) -> Path:
    """A file that torch takes for its own, with `content` in place of the pickle of the weights."""
    good = io.BytesIO()
    torch.save({}, good, _use_new_zipfile_serialization=zipped)
    if zipped:
        with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
        return path
    head = io.BytesIO(good.getvalue())
    for _ in range(3):
        pickle.load(head)
    path.write_bytes(good.getvalue()[: head.tell()] + content + pickle.dumps([], protocol=2))
    return path


def test_each_bomb_is_one_for_this_check_and_not_merely_damaged() -> None:
    refused = [bomb for bomb, content in BOMBS.items() if _why(START + content) == "StrangePickleError"]
    assert refused == list(BOMBS)


def _why(content: bytes) -> str:
    started = time.process_time()
    try:
        require_cheap(io.BytesIO(content), len(content))
    except Exception as error:
        assert time.process_time() - started < 2
        return type(error).__name__
    return "passed"


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.text(max_size=5) | st.integers() | st.tuples(st.integers(), st.text(max_size=3)) | st.floats(allow_nan=False)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3).map(OrderedDict)
        | st.dictionaries(st.integers(), st.integers(), max_size=3).map(Counter)
    ),
    max_leaves=30,
)


@settings(max_examples=100, deadline=None)
@given(values, st.booleans())
def test_what_torch_saves_passes(value: Any, shared: bool) -> None:
    content = pickle.dumps([value, value] if shared else value, protocol=2)
    require_cheap(io.BytesIO(content), len(content))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint_passes(tmp_path: Path, zipped: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8))
    model[2].weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.state[model[0].weight] = {"step": torch.ones(()), "momentum_buffer": torch.ones(8, 8)}
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    state = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    state |= {"chance": torch.get_rng_state(), "seen": {3, 4}, "bytes": b"\xff\0", "more": bytearray(b"ab"), "x": 1j}
    state["nest"] = deep(DEPTH // 2)
    torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "w.pt").only("a file")
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_weights_of_python_2_pass() -> None:
    """An OrderedDict as a list of pairs, as Python 2 wrote it."""
    pairs = b"".join(b"](" + text(f"layer{n}.weight") + b"K\x01e" for n in range(3))
    require_cheap(io.BytesIO(START + b"ccollections\nOrderedDict\n](" + pairs + b"e\x85R."), 100)


def test_other_objects_are_skipped_unless_the_user_allows_them(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"state_dict": {"w": torch.ones(2)}, "arguments": Namespace(lr=0.1)}, path)
    assert read_weights(path).others == {"arguments": ["argparse.Namespace"]}
    with torch.serialization.safe_globals([Namespace]):
        assert read_weights(path).others == {"arguments": []}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"".join(b"cm\nC%d\n0" % n for n in range(CLASSES + 1)), "more than 200 classes"),
        (b"cm\nC\nq\x00" + b"h\x00)R" * (SKIPPED + 1), "more than 50,000 pickled objects"),
        (b"cm\nC\nq\x00)Rq\x01]ah\x00)R}}s", "takes m.C for a list and for a dict"),
    ],
)
def test_objects_that_are_skipped_are_few(content: bytes, reason: str) -> None:
    content = content.replace(b"\n0", b"\n")
    with pytest.raises(StrangePickleError, match=reason):
        require_cheap(io.BytesIO(START + content + b"."), 10**6)
