"""Objects that are not read: whatever is pickled beside weights, torch reads the weights, and nothing of it runs."""

import enum
import functools
import os
import pathlib
from argparse import Namespace
from collections import defaultdict, deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compress
from compress.errors import CheckpointError
from compress.files.checkpoint import read_weights


class Mode(enum.Enum):
    FAST = "fast"


class Config(dict[str, Any]):
    """As EasyDict and others: items, and attributes."""

    def __init__(self, **items: Any) -> None:
        super().__init__(items)
        self.frozen = True


class Names(list[str]): ...


class Node:
    """As omegaconf's: it refers to its parent."""

    def __init__(self) -> None:
        self.child = Namespace(parent=self)


class Slotted:
    __slots__ = ("a",)

    def __init__(self) -> None:
        self.a = 1


class Named:
    def __new__(cls, *, a: int) -> "Named":
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> Any:
        return (), {"a": 1}


OBJECTS: dict[str, Any] = {
    "argparse": Namespace(lr=0.1, path=Path("data"), inner=Namespace()),
    "a path": pathlib.PurePosixPath("runs/x"),
    "times": (datetime.now(UTC), timedelta(1)),
    "a partial": functools.partial(nn.functional.gelu, approximate="tanh"),
    "an enum": Mode.FAST,
    "a dict by an enum": {Mode.FAST: 3, (Mode.FAST, 1): 4},
    "numpy scalars": {"best": np.float64(0.5), "step": np.int64(3)},
    "numpy arrays": np.arange(6.0).reshape(2, 3),
    "numpy's random state": np.random.default_rng(0).bit_generator.state
    | {"old": np.random.RandomState(0).get_state()},
    "a class": torch.optim.Adam,
    "functions": [torch.relu, len, os.path.join],
    "a defaultdict": defaultdict(list, {"loss": [1.0, 2.0]}),
    "a dict with attributes": Config(lr=0.1, inner=Config(a=1)),
    "a list of its own": Names(["a", "b"]),
    "a deque": deque([1, 2], maxlen=5),
    "a cycle": Node(),
    "a method, and a call with names": [Path.touch, Named(a=1)],
    "slots": Slotted(),
    "a set": frozenset({1, 2}),
    "a range": [range(3), slice(1, 2)],
    "an optimizer": torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", OBJECTS)
def test_weights_beside_any_object_are_read(kind: str, zipped: bool, tmp_path: Path) -> None:
    weight = torch.randn(3, 2)
    content = {"before": OBJECTS[kind], "model": {"w": weight}, "after": {"deep": [OBJECTS[kind]]}, "epoch": 3}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "w.pt")
    assert torch.equal(found.sets["model"]["w"], weight)
    assert found.others["epoch"] == []
    if kind not in ("a defaultdict", "a dict with attributes"):  # which are read as dicts
        assert found.others["before"]
        assert found.others["before"] == found.others["after"]


class Payload:
    """Whoever unpickles it makes a file."""

    def __init__(self, victim: Path, how: str) -> None:
        self.victim, self.how = victim, how

    def __reduce__(self) -> Any:
        if self.how == "pathlib":
            return Path.touch, (self.victim,)
        if self.how == "eval":
            return eval, (f"__import__('pathlib').Path({str(self.victim)!r}).touch()",)
        return os.system, (f"touch {self.victim}",)


@pytest.mark.parametrize("how", ["pathlib", "eval", "system"])
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_runs(how: str, zipped: bool, tmp_path: Path) -> None:
    """The system's own functions are refused by torch whatever represents them; the others are skipped."""
    victim, path = tmp_path / "victim", tmp_path / "w.pt"
    payload = Payload(victim, how)
    torch.save(
        {"model": {"w": torch.ones(2)}, "x": [payload, {payload: 1}]}, path, _use_new_zipfile_serialization=zipped
    )
    if how == "system":
        with pytest.raises(CheckpointError, match=r"posix\.system|nt\.system"):
            read_weights(path)
    else:
        assert read_weights(path).others["x"]
    assert not victim.exists()
    torch.load(path, weights_only=False)  # the payload is alive
    assert victim.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(2, 2), r"a pickled object of torch\.nn\.modules\.linear\.Linear instead of weights by name"),
        (
            {"model": nn.Linear(2, 2), "epoch": 3},
            r"\(model, a pickled object of torch\.nn\.modules\.linear\.Linear, epoch",
        ),
    ],
)
def test_a_pickled_network_is_refused_with_the_way_out(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=message + r".*`torch\.save\(model\.state_dict\(\), \"model\.pt\"\)`"):
        read_weights(tmp_path / "w.pt")


def test_a_pickled_network_in_the_older_format(tmp_path: Path) -> None:
    torch.save({"model": nn.PReLU()}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"holds a pickled network: save the weights alone"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_scripted_network_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r'TorchScript archive.*torch\.jit\.load\("w\.pt"\)\.state_dict'):
        read_weights(tmp_path / "w.pt")


def test_the_user_s_own_list_of_classes_is_as_before(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({"model": nn.Linear(2, 1).state_dict(), "a": Namespace()}, tmp_path / "w.pt")
    compress.load(tmp_path / "w.pt", model=lambda: nn.Linear(2, 1))
    assert set(torch.serialization.get_safe_globals()) == before
