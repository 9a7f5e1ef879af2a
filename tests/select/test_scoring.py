"""Scoring data in any form: scores are those of a network of one tensor that takes the same numbers, bit for bit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compress
from compress.batches import pair_of
from compress.errors import InputError
from compress.select.scoring import Scoring


class TwoInputs(nn.Module):
    """Returns logits."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 5)

    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Any:
        return self.head(torch.tanh(self.left(a) + scale * self.right(b)))


class OneTensor(TwoInputs):
    def forward(self, both: Tensor) -> Any:  # type: ignore[override]
        return super().forward(both[:, :4], both[:, 4:])


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class Pair(NamedTuple):
    logits: Tensor
    loss: Tensor


class OwnLoss(TwoInputs):
    """Returns its loss too, in the container `form`."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.form = form

    def forward(self, a: Tensor, b: Tensor, labels: Tensor) -> Any:  # type: ignore[override]
        logits = super().forward(a, b)
        return self.form(logits, F.cross_entropy(logits, labels))


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "a tuple of inputs": lambda a, b, y: ((a, b), y),
    "a list of inputs": lambda a, b, y: [[a, b, 1.0], y],
    "a dict of inputs": lambda a, b, y: ({"a": a, "b": b, "scale": 1.0}, y),
    "Inputs": lambda a, b, y: (compress.Inputs((a,), {"b": b}), y),
    "a dict with labels": lambda a, b, y: {"b": b, "a": a, "labels": y},
}
CRITERIA = ["taylor_square", "taylor", "snip", "skeletonization", "variance", "ablation"]
A, B, Y = torch.randn(60, 4), torch.randn(60, 3), torch.randint(5, (60,))
SIZES = [40, 20]


def batches(form: Callable[[Tensor, Tensor, Tensor], object]) -> list[object]:
    return [form(*parts) for parts in zip(A.split(SIZES), B.split(SIZES), Y.split(SIZES), strict=True)]


def masked(network: nn.Module, criterion: object, targets: Any, **how: Any) -> dict[str, Tensor]:
    """The weights after half of the targets are pruned."""
    torch.manual_seed(0)
    for module in network.children():
        module.reset_parameters()  # type: ignore[operator]
    pruner = compress.Pruner(network, targets, sparsity=0.5, criterion=criterion, **how)  # type: ignore[arg-type]
    pruner.finalize()
    return network.state_dict()


def reference(criterion: object, targets: Any) -> dict[str, Tensor]:
    one = batches(lambda a, b, y: (torch.cat([a, b], 1), y))
    example = torch.cat([A, B], 1)[:2]
    return masked(OneTensor(), criterion, targets, example=example, batches=one, loss=F.cross_entropy)


def require_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())
    assert any((tensor == 0).any() for tensor in found.values())


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("form", FORMS)
def test_nodes(form: str, criterion: str) -> None:
    targets = compress.nodes("left")
    how = {"example": {"a": A[:2], "b": B[:2]}, "batches": batches(FORMS[form]), "loss": F.cross_entropy}
    require_equal(masked(TwoInputs(), criterion, targets, **how), reference(criterion, targets))


@pytest.mark.parametrize("criterion", ["taylor_square", "obd", "snip"])
@pytest.mark.parametrize("form", FORMS)
def test_weights(form: str, criterion: str) -> None:
    found = masked(TwoInputs(), criterion, "*.weight", batches=batches(FORMS[form]), loss=F.cross_entropy)
    require_equal(found, reference(criterion, "*.weight"))


@pytest.mark.parametrize("criterion", ["taylor_square", "skeletonization", "ablation"])
@pytest.mark.parametrize(
    "form",
    [Output, Pair, lambda x, loss: {"loss": loss, "x": x}, lambda x, loss: (loss, x)],
    ids=["object", "named tuple", "dict", "tuple"],
)
def test_a_network_that_returns_its_loss_needs_no_other(form: Any, criterion: str) -> None:
    targets = compress.nodes("left")
    how = {"example": {"a": A[:2], "b": B[:2], "labels": Y[:2]}, "batches": batches(FORMS["a dict with labels"])}
    found = masked(OwnLoss(form), criterion, targets, **how)
    if criterion != "ablation":  # its own loss is in float32
        require_equal(found, reference(criterion, targets))


def test_the_callers_loss_takes_whatever_the_network_returns() -> None:
    targets = compress.nodes("left")
    how = {
        "example": {"a": A[:2], "b": B[:2], "labels": Y[:2]},
        "batches": batches(FORMS["a dict with labels"]),
        "loss": lambda output, labels: F.cross_entropy(output.logits, labels),
    }
    require_equal(masked(OwnLoss(Output), "snip", targets, **how), reference("snip", targets))


@pytest.mark.parametrize("form", [lambda a, b, y: compress.Inputs((a, b)), lambda a, b, y: ({"a": a, "b": b}, None)])
def test_variance_needs_no_target(form: Any) -> None:
    targets = compress.nodes("left")
    how = {"example": (A[:2], B[:2]), "batches": batches(form)}
    require_equal(masked(TwoInputs(), "variance", targets, **how), reference("variance", targets))


def test_large_batches_are_taken_in_parts_whatever_their_form() -> None:
    """As torch's own tensor_split has them, and no more samples than were asked for."""
    whole = {"a": torch.randn(57, 4), "mask": torch.ones(3, 2), "labels": torch.arange(57)}
    scoring = Scoring(TwoInputs(), torch.Generator(), [whole], F.cross_entropy)
    found = list(scoring.batches("test", 50, 25))
    assert [given.rows for given, _ in found] == [19, 19, 12]
    for (given, target), part in zip(found, whole["a"].tensor_split(3), strict=True):
        assert torch.equal(given.kwargs["a"], part[: given.rows])
        assert torch.equal(given.kwargs["labels"], target)
        assert given.kwargs["mask"] is whole["mask"] or torch.equal(given.kwargs["mask"], whole["mask"])
    assert torch.cat([target for _, target in found]).tolist() == list(range(50))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([(A, B, Y)], "batches: found a tuple of 3; a batch is a pair"),
        ([{"a": A, "b": B}], "the target of these batches is None"),
        ([{"a": A, "labels": Y}], "missing 1 required positional argument: 'b'"),
        ([({"a": A, "b": None}, Y)], "batches: the criterion snip cannot be computed on them: "),
        ([((A, B), Y[:7])], r"inputs and targets of \[60, 4\] and \[7\]"),
    ],
)
def test_what_cannot_be_scored(given: list[Any], message: str) -> None:
    how = {"example": (A[:2], B[:2]), "batches": given, "loss": F.cross_entropy}
    with pytest.raises(InputError, match=message):
        masked(TwoInputs(), "snip", compress.nodes("left"), **how)


def test_a_network_without_a_loss_asks_for_one() -> None:
    data = batches(FORMS["a tuple of inputs"])
    with pytest.raises(InputError, match="needs the loss; give loss="):
        masked(TwoInputs(), "snip", "*.weight", batches=data)
    network = OwnLoss(lambda logits, loss: logits)
    with pytest.raises(InputError, match="has no loss of its own"):
        masked(network, "snip", "*.weight", batches=batches(FORMS["a dict with labels"]))
    assert pair_of(data[0])[1] is not None
