"""A wrong word is never another result: every option of every public name, with everything that it must not be.

Each is an InputError that names the option and, of a word or a number, says what was found; a word that is nearly right
gets a hint. What may be wrong with an option follows from its kind, and a new option has to be given one here.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


def of_nodes() -> compress.Pruner:
    return compress.Pruner(network(), compress.nodes("2"), sparsity=0.5, example=EXAMPLE)


def of_another() -> compress.Pruner:
    pruner = compress.Pruner(other(), "*", sparsity=0.5)
    pruner.finalize()
    return pruner


# --- what an option of each kind must not be ---

WORDLESS = [3, 0.5, True, [], {}, str, b"layer"]
NUMBERLESS = ["0.5", True, NAN, INFINITE, -INFINITE, [0.5], {"conv1": 0.5}, float, 1j, torch.ones(2)]
SHARES = [*NUMBERLESS, -0.1, 1.0, 1.5, 2]
COUNTS = [*NUMBERLESS, 0, -1, 1.5, 2.0]
FLAGS = [0, 1, "yes", "False", None, [], bool]
MODELS = ["model.pt", None, 3, nn.Linear, {"weight": EXAMPLE}, [network()]]
EXAMPLES = [
    *(None, 3, "x", [1.0, 2.0], np.zeros((2, 6)), Tensor, (), {}),
    *(torch.tensor(3.0), torch.zeros(0, 6), torch.zeros(2, 7)),
]
TOLERANCES = ["1e-5", None, True, NAN, INFINITE, -1.0, [1e-5], float]
FUNCTIONS = ["cross_entropy", 3, nn.CrossEntropyLoss, [], {}]
PATHS = [None, 3, 1.5, [], {}, Path, b"\x00", network()]


def words(known: tuple[str, ...]) -> list[Any]:
    nearly = [word + word[-1] for word in known] + [word.upper() for word in known] + [word[:-1] for word in known]
    return [*WORDLESS, "nonsense", "", *(word for word in nearly if word not in known)]


TARGETS = [
    *(None, 3, 0.9, True, {"0.weight": 0.5}, nn.Linear, [], "", ["0.*", 3], ["0.*", None], "nothing.*", ["*", "noth?"]),
    *(nn.Linear(2, 2), nn.Linear(2, 2).weight, (nn.Linear(2, 2), "weight"), [["*", 3]], ("0.*", 0.5), b"0.*"),
    *(compress.weights("nothing"), compress.nodes("nothing"), compress.weights("*", exclude="*")),
    *(compress.nodes("*", exclude="*"), compress.weights, compress.nodes),
]
KEEPS: list[Any] = [
    *(
        3,
        0.5,
        "0.weight",
        True,
        [],
        {},
        [1],
        [None],
        [torch.ones(8, 6)],
        {"0.weight": torch.ones(8, 6, dtype=torch.bool)},
    ),
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
    *(
        [(EXAMPLE, 3)],
        "loader",
        {"x": EXAMPLE},
        [(EXAMPLE, torch.tensor([0]))],
        network(),
        lambda: LOADER,
        torch.Tensor,
    ),
    *(lambda size: 3, lambda size: None),
    *([(EXAMPLE[:0], torch.tensor([]))], [(torch.tensor(3.0), torch.tensor(1))], [(EXAMPLE, torch.tensor(1))]),
    *([(torch.zeros(2, 7), torch.tensor([0, 1]))], [(EXAMPLE.long(), torch.tensor([0, 1]))]),
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
    "criterion": [
        *words(CRITERIA_WORDS),
        compress.Taylor,
        compress.Criterion(),
        compress.Soft(steps=3),
        network,
        nn.ReLU,
    ],
    "batches": BATCHES,
    "loss": [
        *FUNCTIONS,
        lambda output: output.sum(),
        lambda output, target: output,
        lambda output, target: 0.0,
        lambda output, target: output.detach().mean(),
    ],
    "removal": [
        *words(REMOVAL_WORDS),
        None,
        "soft",
        compress.Soft,
        compress.Hard,
        compress.Taylor(),
        compress.Removal(),
        lambda: None,
    ],
    "scope": [*words(("global", "layer")), "coupling", "coupled", "layers"],
    "multiple_of": [*COUNTS, None],
    "min_keep": [*NUMBERLESS, -1, 0.0, 1.0, 1.5, 2.0],
    "compensate": FLAGS,
    "regrow": [*SHARES, 0, 0.0, compress.Regrowth],
    "earlier": [3, "pruner", True, [], {}, compress.Pruner, network(), compress.Hard(), of_another()],
    "seed": [*NUMBERLESS, None, 1.5, 1 << 80],
    "mask_gradients": FLAGS,
    "start": FLAGS,
    "traced": [3, "x", [], compress.couplings],
}
"""Each option of `Pruner`."""


PRUNE: dict[str, list[Any]] = {
    **{name: PRUNER[name] for name in ("model", "params", "macs", "criterion", "multiple_of", "min_keep", "seed")},
    "target": [target for target in TARGETS if target is not None],
    "scope": [scope for scope in PRUNER["scope"] if scope is not None],
    "device": ["nonsense", "cuda:x", 1.5, [], {}, b"cpu"],
    "batches": [None, 3, iter(LOADER), [], [3], "loader", network(), [(torch.zeros(2, 7), None)]],
    "example": EXAMPLES,
}
"""Options of `compress.prune`."""


def cases(options: Mapping[str, list[Any]], *, name: str = "") -> list[Any]:
    return [
        pytest.param(*((name,) if name else ()), option, value, id=f"{name}{'-' if name else ''}{option}-{number}")
        for option, values in options.items()
        for number, value in enumerate(values)
    ]


def refusal(option: str, value: object, call: Callable[[], object]) -> str:
    """The error text of a wrong call, which names the option and, of a word or a number, says what was found.

    Anything but an InputError, or no error at all, fails the test.
    """
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert any(name in text for name in NAMES.get(option, (option,))), text
    if isinstance(value, int | float | str):
        assert str(value) in text, text
    return text


NAMES = {
    "targets": ("targets", "pattern", "parameter", "module", "exclude", "weights", "layer", "width"),
    "wanted": ("weights", "nodes", "branches"),
    "target": ("targets", "pattern", "parameter", "module", "exclude", "weights", "layer", "width", "nodes"),
    "example": ("example", "batch size", "an input of shape"),
    "regrow": ("regrow", "Regrowth"),
    "loss": ("loss", "batches"),
    "path": ("path", "file", "must end in .safetensors"),
    "keep": ("keep", "layer", "mask", "classes"),
    "drop": ("drop", "classes"),
}
"""What the text may call an option, where it is not its name: a pattern may be the wrong one of several targets."""


@pytest.mark.parametrize(("option", "value"), cases(PRUNER))
@pytest.mark.parametrize("kind", ["weights", "nodes"])
def test_options_of_pruner(kind: str, option: str, value: Any) -> None:
    """For weights and for nodes; the network is left as it was."""
    if kind == "weights" and option == "example" and isinstance(value, Tensor):
        pytest.skip("weights need no example: its shape does not matter")
    if kind == "weights" and option == "example" and value is None:
        pytest.skip("weights need no example")
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
        "removal": compress.Gradual(steps=9) if option == "regrow" else compress.Hard(),
    }
    if option in ("params", "macs", "layers", "keep"):
        del how["sparsity"]
    how[option] = value
    refusal(option, value, lambda: compress.Pruner(how.pop("model"), how.pop("targets"), **how))
    assert not prune.is_pruned(model)
    assert all(torch.equal(entry, before[name]) for name, entry in model.state_dict().items())


def test_every_option_of_pruner_is_tried() -> None:
    assert set(PRUNER) == set(inspect.signature(compress.Pruner).parameters)


@pytest.mark.parametrize(
    ("option", "found", "meant"),
    [
        ("scope", "globl", "global"),
        ("scope", "layers", "layer"),
        ("criterion", "magnitde", "magnitude"),
        ("criterion", "taylor_sqare", "taylor_square"),
        ("removal", "sotf", "soft"),
        ("removal", "gradual_sotf", "gradual_soft"),
    ],
)
def test_a_word_that_is_nearly_right_gets_a_hint(option: str, found: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"{option}: found '{found}'; there is .*; did you mean {meant}?"):
        compress.Pruner(network(), "*", sparsity=0.5, **{option: found})


# --- criteria, removals and regrowth: what their descriptions say ---

DESCRIBED = {member.__name__: member for member in (*CRITERIA, *REMOVALS, compress.Regrowth)}
USUAL = {"steps": 12, "share": 0.3, "every": 2}


def wrong_values(hint: Any, bounds: Mapping[str, float]) -> list[Any]:
    """Values of every other kind, words that there are not, and numbers beyond the bounds."""
    kinds = get_args(hint) if get_origin(hint) not in (None, Literal) else (hint,)
    known = tuple(word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind))
    found: list[Any] = [[], {}, int, 1j, object(), torch.ones(2), b"3"]
    if str not in kinds:
        found += [value for value in words(known) if not isinstance(value, int | float | type)] if known else ["3", ""]
    found += [] if NoneType in kinds else [None]
    found += [] if bool in kinds else [True, False]
    if float not in kinds:
        found += [0.5, 3.0]
    if not {int, float} & set(kinds):
        found += [0, 3]
    found += [NAN, INFINITE, -INFINITE, 10**400]
    beyond = {"ge": -1, "gt": 0, "le": 1, "lt": 0}
    return found + [bound + beyond[sign] for sign, bound in bounds.items()]


def described() -> list[Any]:
    found = []
    for name, member in DESCRIBED.items():
        for option, (description, hint, _) in options_of(member).items():
            values = wrong_values(hint, description.bounds)
            found += cases({option: values}, name=name)
    return found


@pytest.mark.parametrize(("name", "option", "value"), described())
def test_options_of_criteria_and_removals(name: str, option: str, value: Any) -> None:
    member = DESCRIBED[name]
    usual = {key: USUAL[key] for key in options_of(member) if key in USUAL}
    member(**usual)  # as it should be
    with pytest.raises(InputError) as caught:
        member(**usual | {option: value})
    assert str(caught.value).startswith(f"{name}({option}=...): found {value!r}; ")


def test_every_word_and_bound_has_been_tried() -> None:
    assert len({option for member in DESCRIBED.values() for option in options_of(member)}) >= 12
    hint = "Skeletonization(error=...): found 'linar'; there is loss, linear; did you mean linear?"
    with pytest.raises(InputError) as caught:
        compress.Skeletonization(error="linar")  # type: ignore[arg-type]
    assert str(caught.value) == hint


# --- the other public functions and classes ---


@dataclass(frozen=True)
class Made:
    """An argument that is made for each call: from an empty folder, and from one with files of the network."""

    make: Callable[[Path, Path], Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    compress.export.safetensors(network(), folder / "model.safetensors")
    compress.export.onnx(network(), folder / "model.onnx", EXAMPLE)
    return folder


class Accelerator:
    """As far as it is asked."""

    gradient_accumulation_steps = 1
    sync_gradients = True

    def unwrap_model(self, model: nn.Module) -> nn.Module:
        return model

    def register_for_checkpointing(self, *objects: object) -> None:
        pass


MAKES = [None, 3, "pruner", compress.Pruner(network(), sparsity=0.5), compress.Pruner, [], compress.Soft(steps=3)]
LENGTHS = ["3", True, -1, 1.5, NAN, [], int]
DYNAMICS = [3, "x", [], {"input": 1}, {"input": {"x": "length"}}, {"input": {1: 3}}, {"word": {1: "length"}}]
EXPORTED = {
    "model": MODELS,
    "path": PATHS,
    "example": EXAMPLES,
    "tolerance": TOLERANCES,
    "dynamic": DYNAMICS,
    "program": [3, "x", network(), []],
}
DYNAMIC = [
    "length",
    {"x": 1},
    {"input": {"1": "length"}},
    3,
    [1],
    {"x": {1: "length"}},
    {"input": "length"},
    {"input": {9: "length"}},
    {"input": {0: "n"}},
]
WEIGHTED = [
    3,
    "label",
    [],
    ["label"],
    {"label": 0},
    {"label": -1.0},
    {"label": "1"},
    {"label": NAN},
    {3: 1.0},
    {"x": 1.0},
]
ATTRIBUTED = [(EXAMPLE, compress.Attributed(None, {"label": torch.tensor([0, 1])}))]
CODES = compress.Codes(EXAMPLE, {"label": torch.tensor([0, 1])})
METADATA = [3, "x", [], {3: "x"}, {"x": 3}, True, dict]
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, list[Any]]]] = {
    "weights": (
        lambda wanted, **how: compress.weights(wanted, **how),
        {"wanted": "*"},
        {"wanted": [*TARGETS[:8], b"0.*"], "exclude": [3, 0.5, True, nn.Linear, {"x": 1}, ["x", 3], ""], "bias": FLAGS},
    ),
    "nodes": (
        lambda wanted, **how: compress.nodes(wanted, **how),
        {"wanted": "*"},
        {"wanted": [*TARGETS[:8], b"0.*"], "exclude": [3, 0.5, True, nn.Linear, {"x": 1}, ["x", 3], ""]},
    ),
    "branches": (
        lambda wanted, **how: compress.branches(wanted, **how),
        {"wanted": "*"},
        {"wanted": [*TARGETS[:8], b"0.*"], "exclude": [3, 0.5, True, nn.Linear, {"x": 1}, ["x", 3], ""]},
    ),
    "slim": (
        compress.slim,
        {"model": Made(lambda folder, files: network()), "example": EXAMPLE},
        {
            "model": MODELS,
            "example": EXAMPLES,
            "tolerance": TOLERANCES,
            "optimizer": ["adam", 3, torch.optim.Adam, network(), [], torch.optim.SGD(other().parameters(), lr=1.0)],
            "known": [3, "x", [], compress.couplings(other(), EXAMPLE), compress.couplings],
            "custom_gradients": ["keep", "refused", 3, True, None],
            "dynamic": DYNAMIC,
        },
    ),
    "sparse": (
        compress.sparse,
        {"model": Made(lambda folder, files: network()), "example": EXAMPLE},
        {"model": MODELS, "example": EXAMPLES, "batch_size": [*COUNTS, None], "tolerance": TOLERANCES},
    ),
    "Inputs": (
        compress.Inputs,
        {"args": (EXAMPLE,)},
        {
            "args": [EXAMPLE, 3, "x", None, {"x": EXAMPLE}],
            "kwargs": [EXAMPLE, 3, "x", None, [EXAMPLE], {3: EXAMPLE}],
            "batch_dim": [-1, 0.5, "0", None, True, EXAMPLE],
            "whole": [2, "no", None, [True]],
        },
    ),
    "couplings": (
        compress.couplings,
        {"model": Made(lambda folder, files: network()), "example": EXAMPLE},
        {"model": MODELS, "example": EXAMPLES, "dynamic": DYNAMIC},
    ),
    "recalibrate": (
        compress.recalibrate,
        {"model": Made(lambda folder, files: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))), "batches": LOADER},
        {
            "model": MODELS,
            "batches": [3, True, [], [3], ["x"], [EXAMPLE[:1]], None, "loader"],
            "samples": [1, 0, -3, 0.5, "all", None, True],
        },
    ),
    "load": (
        compress.load,
        {"path": Made(lambda folder, files: files / "model.safetensors"), "model": network},
        {
            "path": PATHS,
            "model": ["model", None, 3, network(), nn.Linear, lambda: None, lambda: 1 / 0, {}, {"weight": EXAMPLE}],
        },
    ),
    "SoftPruningMethod.apply": (
        compress.SoftPruningMethod.apply,
        {
            "module": Made(lambda folder, files: nn.Linear(3, 2)),
            "name": "weight",
            "keep": torch.ones(2, 3, dtype=torch.bool),
        },
        {
            "module": MODELS,
            "name": ["wieght", None, 3, "", True, []],
            "keep": [
                None,
                3,
                True,
                [True],
                torch.ones(2, 3),
                torch.ones(3, 2, dtype=torch.bool),
                np.ones((2, 3), bool),
            ],
            "fades": FLAGS,
            "mask_gradients": FLAGS,
        },
    ),
    "TrainingLength": (
        compress.TrainingLength,
        {"total": 12, "per_epoch": 4},
        {"total": LENGTHS, "per_epoch": LENGTHS},
    ),
    "TrainingLength.steps": (
        lambda **how: compress.TrainingLength(12, 4).steps(**how),
        {"span": 3},
        {"span": [None, True, 1.5, -1, "3", "three epochs", "3 epoch s", "-1 epochs", [], int, NAN]},
    ),
    "Shaping": (
        compress.Shaping,
        {"pruner": Made(lambda folder, files: of_nodes()), "keep": {"label": 0.1}, "classes": {"label": 3, "one": 1}},
        {
            "pruner": [*MODELS, network(), compress.Pruner, compress.Soft(steps=3)],
            "keep": [*WEIGHTED, {}, None],
            "drop": [*WEIGHTED, {"label": 0.1}],
            "classes": [3, "label", None, [3], {}, {"labl": 3}, {"label": 1}, {"label": 2.5}, {"label": "3"}],
            "seed": [*NUMBERLESS, None, 1.5, 1 << 80],
        },
    ),
    "codes": (
        compress.codes,
        {"model": Made(lambda folder, files: network()), "layer": "2", "batches": ATTRIBUTED},
        {
            "model": MODELS,
            "layer": [*WORDLESS[:5], "nothing", "2.weight"],
            "batches": [3, True, [], [3], ["x"], None, "loader", LOADER, [EXAMPLE], {"x": EXAMPLE}, network()],
            "kept": [3, "x", True, [True] * 5, torch.ones(5), torch.ones(2, 5, dtype=torch.bool)],
        },
    ),
    "Codes": (
        compress.Codes,
        {"codes": EXAMPLE, "attributes": {"label": torch.tensor([0, 1])}},
        {
            "codes": [3, "x", None, [[1.0]], np.zeros((2, 6)), torch.zeros(2), torch.zeros(0, 6)],
            "attributes": [3, "x", None, [], {"label": 3}, {"label": EXAMPLE}, {"label": torch.tensor([0])}],
        },
    ),
    "probe": (
        compress.probe,
        {"train": CODES, "test": CODES, "attribute": "label"},
        {
            "train": [3, "x", None, EXAMPLE, [], {}, compress.Codes],
            "test": [3, "x", None, EXAMPLE, [], {}, compress.Codes, compress.Codes(EXAMPLE[:, :2], CODES.attributes)],
            "attribute": [*WORDLESS[:5], "labels", ""],
            "hidden": COUNTS,
            "seed": [*NUMBERLESS, None, 1.5, 1 << 80],
        },
    ),
    "AcceleratePruning": (
        compress.AcceleratePruning,
        {
            "accelerator": Made(lambda folder, files: Accelerator()),
            "model": Made(lambda folder, files: network()),
            "make": lambda model, loop: compress.Pruner(model, sparsity=0.5),
            "batches": 4,
        },
        {"make": [*MAKES, lambda: None, lambda model, loop: None], "batches": LENGTHS, "epochs": [*LENGTHS, 0, None]},
    ),
    "export.onnx": (
        compress.export.onnx,
        {
            "model": Made(lambda folder, files: network()),
            "path": Made(lambda folder, files: folder / "x.onnx"),
            "example": EXAMPLE,
        },
        {**EXPORTED, "metadata": METADATA, "opset": ["20", True, 17, 26, 20.0, NAN, [], int]},
    ),
    "export.pt2": (
        compress.export.pt2,
        {
            "model": Made(lambda folder, files: network()),
            "path": Made(lambda folder, files: folder / "x.pt2"),
            "example": EXAMPLE,
        },
        {**EXPORTED, "metadata": METADATA},
    ),
    "export.safetensors": (
        compress.export.safetensors,
        {"model": Made(lambda folder, files: network()), "path": Made(lambda folder, files: folder / "x.safetensors")},
        {"model": MODELS, "path": [*PATHS, "model.pt", ""], "metadata": METADATA},
    ),
    "export.sparse": (
        compress.export.sparse,
        {"model": Made(lambda folder, files: network()), "path": Made(lambda folder, files: folder / "x.safetensors")},
        {"model": MODELS, "path": [*PATHS, "model.pt", ""], "int8": FLAGS, "metadata": METADATA},
    ),
    "export.trace": (
        compress.export.trace,
        {"model": Made(lambda folder, files: network()), "example": EXAMPLE},
        {"model": MODELS, "example": EXAMPLES, "dynamic": DYNAMICS},
    ),
    "export.read_program": (compress.export.read_program, {"path": "x.pt2"}, {"path": PATHS}),
    "export.with_weights": (
        compress.export.with_weights,
        {
            "source": Made(lambda folder, files: files / "model.onnx"),
            "model": Made(lambda folder, files: network()),
            "path": Made(lambda folder, files: folder / "x.onnx"),
            "example": EXAMPLE,
        },
        {
            "source": PATHS,
            "model": MODELS,
            "path": PATHS,
            "example": EXAMPLES,
            "dynamic": DYNAMICS,
            "metadata": METADATA,
            "tolerance": TOLERANCES,
        },
    ),
    "export.int8": (
        compress.export.int8,
        {
            "source": Made(lambda folder, files: files / "model.onnx"),
            "path": Made(lambda folder, files: folder / "x.onnx"),
            "batches": LOADER,
        },
        {
            "source": [None, 3, [], {}, EXAMPLE, nn.Linear],
            "path": PATHS,
            "example": [],  # those of export.onnx, of a network
            "dynamic": [],
            "batches": [3, True, iter(LOADER), [], [3], ["x"], "loader", {"x": EXAMPLE}, network(), lambda: LOADER],
            "task": ["clasify", "", 3, True, [], nn.CrossEntropyLoss(), F.cross_entropy],
            "kind": words(("auto", "static", "dynamic")),
            "method": words(("minmax", "percentile", "entropy")),
            "samples": [*COUNTS, None],
            "per_channel": FLAGS,
            "exclude": [None, 3, "Gemm", {}, [3], ["Gem"], ["nothing*"]],
            "max_drop": [*NUMBERLESS, None, -0.1],
            "batch_sizes": [None, 3, [], "1", [0], [1.5], [True], [-1], [None], {}],
            "threads": [*COUNTS, None],
        },
    ),
    "export.measure": (
        compress.export.measure,
        {"files": Made(lambda folder, files: {"model": files / "model.onnx"}), "rounds": 1, "seconds": 0.01},
        {
            "files": [None, 3, [], {}, "model.onnx", {"x": 3}, {3: "x.onnx"}, {"x": None}],
            "batch_sizes": [None, 3, [], "1", [0], [1.5], [True], [-1], [None], {}],
            "sizes": [3, [], "x", {"length": 0}, {"length": "1"}],
            "threads": [*COUNTS, None],
            "rounds": [*COUNTS, None],
            "seconds": ["1", None, True, NAN, INFINITE, -1.0, [1.0]],
            "seed": ["0", None, True, 1.5, -1, NAN, [0]],
        },
    ),
}
"""Each function and class: how it is called as it should be, and what each argument must not be."""


@pytest.mark.parametrize(
    ("name", "option", "value"), [case for name, (_, _, wrong) in CALLS.items() for case in cases(wrong, name=name)]
)
def test_options_of_functions(name: str, option: str, value: Any, tmp_path: Path, files: Path) -> None:
    """Nothing is written before the mistake is found."""
    call, usual, _ = CALLS[name]
    how = {key: given.make(tmp_path, files) if isinstance(given, Made) else given for key, given in usual.items()}
    refusal(option, value, lambda: call(**how | {option: value}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_are_right_without_the_wrong_word(name: str, tmp_path: Path, files: Path) -> None:
    if name == "export.read_program":
        compress.export.pt2(network(), tmp_path / "x.pt2", EXAMPLE)
        compress.export.read_program(tmp_path / "x.pt2")
        return
    call, usual, _ = CALLS[name]
    call(**{key: given.make(tmp_path, files) if isinstance(given, Made) else given for key, given in usual.items()})


@pytest.mark.parametrize("name", CALLS)
def test_each_argument_of_the_functions_is_tried(name: str) -> None:
    call, _, wrong = CALLS[name]
    parameters = inspect.signature(call).parameters
    known = {key for key, one in parameters.items() if one.kind is not inspect.Parameter.VAR_KEYWORD}
    assert known <= set(wrong) | {"accelerator"} | ({"model"} if name == "AcceleratePruning" else set())


def test_all_public_names_are_covered() -> None:
    """Whatever can be called with options is tried above; errors, warnings and bases take none that could be wrong."""
    callbacks = {"LightningPruning", "TrainerPruning"}  # tests/loops, where their packages are installed
    called = {name.partition(".")[0] for name in CALLS}
    covered = {"Pruner", "prune", *DESCRIBED, *called, *callbacks, "export", "__version__"}
    # Bases, what functions return, and what is looked at where it is used.
    made = {"Criterion", "Removal", "SlimGraph", "SparseLinear", "SparseReport", "Attributed"}
    rest = set(compress.__all__) - covered - made
    assert rest == {name for name in rest if issubclass(getattr(compress, name), BaseException)}
    exported = {name.partition(".")[2] for name in CALLS if name.startswith("export.")}
    assert exported == set(compress.export.__all__)


# --- what a pruner is called with afterwards ---


@pytest.mark.parametrize("state", [None, 3, "x", [], {}, {"targets": ["0.weight"]}])
def test_a_state_that_is_none(state: Any) -> None:
    pruner = compress.Pruner(network(), "*", sparsity=0.5, removal=compress.Soft(steps=3), start=False)
    with pytest.raises(InputError, match="state"):
        pruner.load_state_dict(state)


def test_a_state_of_another_pruner() -> None:
    saved = compress.Pruner(network(), "0.*", sparsity=0.5, removal=compress.Soft(steps=3)).state_dict()
    for target, steps in (("2.*", 3), ("0.*", 4)):
        pruner = compress.Pruner(network(), target, sparsity=0.5, removal=compress.Soft(steps=steps), start=False)
        with pytest.raises(InputError, match="this state is of another run"):
            pruner.load_state_dict(saved)


@pytest.mark.parametrize(("option", "value"), cases(PRUNE))
def test_options_of_prune(option: str, value: Any) -> None:
    """The network is left as it was."""
    model = network()
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    how: dict[str, Any] = {"model": model, "example": EXAMPLE, "batches": LOADER, option: value}
    if option not in ("params", "macs"):
        how["sparsity"] = 0.5
    refusal(option, value, lambda: compress.prune(**how))
    assert all(torch.equal(before[name], entry) for name, entry in model.state_dict().items())


def test_nothing_after_the_end() -> None:
    pruner = compress.Pruner(network(), "*", sparsity=0.5)
    pruner.finalize()
    pruner.finalize()  # a second time does nothing
    with pytest.raises(InputError, match=r"step after finalize\(\)"):
        pruner.step()
    with pytest.raises(InputError, match=r"load_state_dict after finalize\(\)"):
        pruner.load_state_dict({})


# --- what the network and its functions are, rather than what is said ---


class Holder(nn.Module):
    """A parameter that is not a weight, beside a layer."""

    def __init__(self, held: Tensor) -> None:
        super().__init__()
        self.held = nn.Parameter(held, requires_grad=False)
        self.layer = nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Holder(torch.ones(4, 4, dtype=torch.int8)), r"held is of torch\.int8; only floating-point"),
        (lambda: Holder(torch.ones(4, 4, dtype=torch.bool)), r"held is of torch\.bool; only floating-point"),
        (lambda: Holder(torch.ones(4, 4, dtype=torch.complex64)), r"held is of torch\.complex64; only floating-point"),
        (lambda: nn.Linear(3, 3, device="meta"), "weight is on the meta device"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "a lazy layer has no size yet"),
        (lambda: nn.Sequential(nn.Tanh()), "Sequential has no parameters"),
    ],
)
def test_networks_that_cannot_be_pruned(make: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises(InputError, match=says):
        compress.Pruner(make(), "*", sparsity=0.5)


@pytest.mark.parametrize(("option", "value"), [("scope", "layer"), ("min_keep", 1), ("multiple_of", 2)])
def test_given_masks_leave_nothing_to_choose(option: str, value: Any) -> None:
    keep = {"0": torch.tensor([True, False, True])}
    with pytest.raises(InputError, match=f"found keep and {option}; keep is the choice itself"):
        compress.Pruner(
            nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)),
            compress.nodes("0"),
            keep=keep,
            example=torch.ones(1, 2),
            **{option: value},
        )


def test_what_is_pruned_already_is_refused() -> None:
    """By ours or by torch: their masks would multiply."""
    model = network()
    pruner = compress.Pruner(model, "0.*", sparsity=0.5)
    for target in ("*", "0.*", model[0]):
        with pytest.raises(InputError, match=r"0\.weight is pruned already: call finalize\(\) of its pruner"):
            compress.Pruner(model, target, sparsity=0.5)
    compress.Pruner(model, "2.*", sparsity=0.5).finalize()
    pruner.finalize()
    prune.l1_unstructured(model[4], "weight", 0.5)
    with pytest.raises(InputError, match=r"4\.weight is pruned already"):
        compress.Pruner(model, "*", sparsity=0.5)


@pytest.mark.parametrize(
    ("decay", "says"),
    [
        (lambda: 1.0, "the function failed for a progress in .*TypeError"),
        (lambda progress: "half", "the function gave .*; it must fall from 1"),
        (lambda progress: NAN, "the function gave .*; it must fall from 1"),
        (lambda progress: progress, "the function gave .*; it must fall from 1"),
        (lambda progress: 1 - 3 * progress, "the function gave .*; it must fall from 1"),
    ],
)
def test_curves_that_are_none(decay: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        compress.Soft(steps=3, decay=decay)


@pytest.mark.parametrize("target", [compress.weights("*"), compress.nodes("*")])
@pytest.mark.parametrize("removal", [compress.Gradual(steps=9), compress.GradualSoft(steps=9)])
def test_missing_data_is_said_at_once(target: Any, removal: Any) -> None:
    """Not at the first choice of a ramp, in the middle of a training."""
    for missing, given in (("batches", {"loss": F.cross_entropy}), ("loss", {"batches": LOADER})):
        how: dict[str, Any] = {"sparsity": 0.5, "example": EXAMPLE, "removal": removal, **given}
        with pytest.raises(InputError, match=f"the criterion taylor needs .*; give {missing}="):
            compress.Pruner(network(), target, criterion="taylor", **how)
        if isinstance(target, type(compress.weights("*"))):
            with pytest.raises(InputError, match=f"the criterion regrow needs .*; give {missing}="):
                compress.Pruner(network(), target, regrow=0.3, **how)
