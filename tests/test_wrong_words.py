"""A wrong word is never another result: every option of every public name, with everything that it must not be.

Each is an InputError that names the option and, of a word or a number, says what was found; a word that is nearly right
gets a hint. What may be wrong with an option follows from its kind, and a new option has to be given one here.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import compress
from compress.errors import InputError
from compress.options import options_of
from compress.remove.removals import REMOVALS
from compress.select.criteria import CRITERIA

EXAMPLE = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
LOADER = [(EXAMPLE, torch.tensor([0, 1])), (EXAMPLE + 1, torch.tensor([2, 0]))]
NAN, INFINITE = float("nan"), float("inf")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))


def other() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 3))


# --- what an option of each kind must not be ---

WORDLESS = [3, 0.5, True, [], {}, str, b"layer"]
NUMBERLESS = ["0.5", True, NAN, INFINITE, -INFINITE, [0.5], {"conv1": 0.5}, float, 1j, torch.ones(2)]
SHARES = [*NUMBERLESS, -0.1, 1.0, 1.5, 2]
COUNTS = [*NUMBERLESS, 0, -1, 1.5, 2.0]
FLAGS = [0, 1, "yes", "False", None, [], bool]
MODELS = ["model.pt", None, 3, nn.Linear, {"weight": EXAMPLE}, [network()]]
EXAMPLES = [
    *(None, 3, "x", [1.0, 2.0], np.zeros((2, 6)), Tensor, (), {}),
    *(torch.tensor(3.0), torch.zeros(0, 6), torch.zeros(2, 7), torch.zeros(2, 6, dtype=torch.int64)),
]
TOLERANCES = ["1e-5", None, True, NAN, INFINITE, -1.0, [1e-5], float]
FUNCTIONS = ["cross_entropy", 3, nn.CrossEntropyLoss, [], {}]
PATHS = [None, 3, 1.5, [], {}, Path, b"\x00", network()]


def words(known: tuple[str, ...]) -> list[Any]:
    nearly = [word + word[-1] for word in known] + [word.upper() for word in known] + [word[:-1] for word in known]
    return [*WORDLESS, "nonsense", "", *(word for word in nearly if word not in known)]


# --- what is called, and with what ---


def pruner(kind: str, **changes: Any) -> Any:
    """A pruner of weights or of nodes with every option, but for the changes."""
    model = changes.pop("model", None)
    how = {
        "targets": "*" if kind == "weights" else compress.nodes("*"),
        "sparsity": 0.5,
        "example": EXAMPLE,
        "criterion": compress.Taylor(),
        "batches": LOADER,
        "loss": F.cross_entropy,
        **changes,
    }
    if {"params", "macs", "layers", "keep"} & changes.keys() and "sparsity" not in changes:
        del how["sparsity"]
    return compress.Pruner(network() if "model" not in WANTED and model is None else model, **how)


WANTED: set[str] = set()

TARGETS = [
    *(None, 3, 0.9, True, {"0.weight": 0.5}, nn.Linear, [], "", ["0.*", 3], ["0.*", None], "nothing.*", ["*", "noth?"]),
    *(nn.Linear(2, 2), nn.Linear(2, 2).weight, (nn.Linear(2, 2), "weight"), [["*", 3]], ("0.*", 0.5), b"0.*"),
    *(compress.weights("nothing"), compress.nodes("nothing"), compress.weights("*", exclude="*")),
    *(compress.nodes("*", exclude="*"), compress.weights, compress.nodes),
]
KEEPS: list[Any] = [
    *(3, 0.5, "0.weight", True, [], {}, [1], [None], [torch.ones(8, 6)], {"0.weight": torch.ones(8, 6, dtype=torch.bool)}),
    *({"nothing": torch.ones(8, dtype=torch.bool)}, {3: torch.ones(8, dtype=torch.bool)}, torch.ones(8, 6)),
    *({"0": torch.ones(9, dtype=torch.bool), "2": torch.ones(5, dtype=torch.bool)}, {"0": [True] * 8, "2": [True] * 5}),
    {"0": torch.zeros(8, dtype=torch.bool), "2": torch.ones(5, dtype=torch.bool)},
]
LAYERS = [
    *(3, 0.5, True, "0.*", [], {}, [("0.*", 0.5)], {3: 0.5}, {"0*": "0.5"}, {"0*": True, "*": 0.1}, {"*": NAN}),
    *({"*": 1.0}, {"*": -0.5}, {"*": 0.0}, {"nothing": 0.5, "*": 0.5}, {"0*": 0.5}, {"*": None}, {"*": [0.5]}),
]
CRITERIA_WORDS = tuple(word for member in CRITERIA for word in member.words)
REMOVAL_WORDS = tuple(word for member in REMOVALS for word in member.words)
BATCHES = [
    *(3, True, iter(LOADER), (pair for pair in LOADER), [], [3], ["x"], [(EXAMPLE,)], [EXAMPLE], [{"x": EXAMPLE}]),
    *([(EXAMPLE, 3)], "loader", {"x": EXAMPLE}, [(EXAMPLE, torch.tensor([0]))], network(), lambda: LOADER, torch.Tensor),
    *(lambda size: 3, lambda size: None),
]
PRUNER: dict[str, list[Any]] = {
    "model": MODELS,
    "targets": TARGETS,
    "sparsity": SHARES,
    "params": [*SHARES, 0, 0.0],
    "macs": [*SHARES, 0, 0.0],
    "layers": LAYERS,
    "keep": KEEPS,
    "example": EXAMPLES,
    "criterion": [*words(CRITERIA_WORDS), None, compress.Taylor, compress.Soft(steps=3), network, F.relu, nn.ReLU],
    "batches": BATCHES,
    "loss": [*FUNCTIONS, lambda output: output.sum(), lambda output, target: output, lambda output, target: 0.0],
    "removal": [*words(REMOVAL_WORDS), None, "soft", compress.Soft, compress.Hard, compress.Taylor(), lambda: None],
    "scope": [*words(("global", "layer")), "coupling", "coupled", "layers"],
    "multiple_of": [*COUNTS, None],
    "min_keep": [*COUNTS, 0.0, 1.0],
    "compensate": FLAGS,
    "regrow": [*SHARES, 0, 0.0, compress.Regrowth],
    "earlier": [3, "pruner", True, [], {}, compress.Pruner, network(), compress.Hard()],
    "seed": [*NUMBERLESS, None, 1.5, 1 << 80],
    "mask_gradients": FLAGS,
    "start": FLAGS,
}
"""Each option of `Pruner`."""


def named(option: str, value: object, error: InputError) -> None:
    """The text names the option, and says of words and numbers what was found."""
    text = str(error)
    assert "\n\n" not in text
    assert any(name in text.lower() for name in (option.lower(), option.lower().replace("_", " "))), text
    if isinstance(value, int | float | str) and value != "":
        assert str(value) in text, text


def told(option: str, value: object, call: Callable[[], object]) -> str:
    """The error text of a wrong call. Anything but an InputError, or no error at all, fails the test."""
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def cases(options: Mapping[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(option, value, id=f"{option}-{number}")
        for option, values in options.items()
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(("option", "value"), cases(PRUNER))
@pytest.mark.parametrize("kind", ["weights", "nodes"])
def test_pruner(kind: str, option: str, value: Any) -> None:
    model = network()
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    how: dict[str, Any] = {
        "model": model,
        "targets": "*" if kind == "weights" else compress.nodes("*"),
        "sparsity": 0.5,
        "example": EXAMPLE,
        "criterion": compress.Taylor(),
        "batches": LOADER,
        "loss": F.cross_entropy,
    }
    if option in ("params", "macs", "layers", "keep"):
        del how["sparsity"]
    how[option] = value
    text = told(option, value, lambda: compress.Pruner(how.pop("model"), how.pop("targets"), **how))
    print(option, repr(value)[:60], "->", text)
    assert not prune.is_pruned(model)
    assert all(torch.equal(entry, before[name]) for name, entry in model.state_dict().items())
