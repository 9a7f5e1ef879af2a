"""Training, evaluation and distillation on batches of any form do what they do with one tensor, to the last bit."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import DataError, DivergedError, InputError
from compress.inputs import Inputs
from compress.tasks import OwnTask, Task, loss
from compress.train.distill import Teacher
from compress.train.loop import Loop, train
from compress.train.metrics import evaluate
from compress.train.optimization import Optimization
from compress.train.ranks import Ranks

A = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
B = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
LABELS = A[:, :3].add(B).argmax(1)

Form = Callable[[Tensor, Tensor, Tensor], object]
FORMS: dict[str, Form] = {
    "a tuple": lambda a, b, labels: ((a, b), labels),
    "a dict": lambda a, b, labels: {"b": b, "a": a, "labels": labels},
    "Inputs": lambda a, b, labels: (Inputs((a,), {"b": b}), labels),
}


class OneTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.left, self.right, self.head = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 3)

    def forward(self, both: Tensor) -> Any:
        return self.scores(both[:, :4].contiguous(), both[:, 4:].contiguous())

    def scores(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.tanh(self.left(a) + self.right(b)))  # type: ignore[no-any-return]


@dataclasses.dataclass
class Output:
    count: Tensor
    logits: Tensor


class TwoInputs(OneTensor):
    def forward(self, a: Tensor, b: Tensor) -> Any:  # type: ignore[override]
        return Output(torch.tensor(3.0), self.scores(a, b))


class Samples:
    """Seven batches, shuffled by the generator."""

    def __init__(self, form: Form) -> None:
        self.form = form

    def __len__(self) -> int:
        return 7

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Any]:
        order = torch.arange(50) if generator is None else torch.randperm(50, generator=generator)
        for rows in order.split(8)[skip:]:
            yield self.form(A[rows], B[rows], LABELS[rows])


ONE = Samples(lambda a, b, labels: (torch.cat([a, b], 1), labels))
HOW = Optimization(optimizer="adamw", lr=1e-2)


def trained(network: nn.Module, batches: Any, error: Any, **how: Any) -> dict[str, Tensor]:
    train(network, batches, error, 11, HOW, generator=torch.Generator().manual_seed(3), **how)
    return network.state_dict()


def require_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())


@pytest.mark.parametrize("form", FORMS)
def test_training(form: str) -> None:
    found = trained(TwoInputs(), Samples(FORMS[form]), loss("classify"))
    require_equal(found, trained(OneTensor(), ONE, loss("classify")))


@pytest.mark.parametrize("form", FORMS)
def test_distillation(form: str) -> None:
    wanted, teacher = Teacher(OneTensor(), 0.5, 2.0), Teacher(TwoInputs(), 0.5, 2.0)
    for network in (wanted.network, teacher.network):
        with torch.no_grad():
            network.get_parameter("head.weight").mul_(3.0)
    found = trained(TwoInputs(), teacher.batches(Samples(FORMS[form])), teacher.loss("classify"))
    require_equal(found, trained(OneTensor(), wanted.batches(ONE), wanted.loss("classify")))


@pytest.mark.parametrize("form", FORMS)
def test_a_loop_that_is_resumed(form: str) -> None:
    def loop(network: nn.Module) -> Loop:
        return Loop(network, Samples(FORMS[form]), loss("classify"), 11, HOW, torch.Generator().manual_seed(3))

    kept: dict[str, Any] = {}

    def keep(step: int, value: float, lr: float, rows: int) -> None:
        if step == 9:
            kept.update(copy.deepcopy({"loop": first.state_dict(), "network": network.state_dict()}))

    network = TwoInputs()
    first = loop(network)
    first.run(lambda step: None, keep)
    again = TwoInputs()
    again.load_state_dict(kept["network"])
    second = loop(again)
    second.load_state_dict(kept["loop"])
    second.run(lambda step: None, lambda *told: None)
    require_equal(again.state_dict(), network.state_dict())


OWN = OwnTask(lambda output, labels: F.cross_entropy(output.logits, labels))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", ["classify", OWN], ids=["classify", "own"])
def test_evaluation(form: str, task: Task) -> None:
    found = evaluate(TwoInputs(), lambda: Samples(FORMS[form])(), task)
    wanted = evaluate(OneTensor(), lambda: ONE(), "classify")
    # An own loss gets the whole output, whose class torch does not know: its numbers remain in float32.
    assert found["loss"] == (wanted["loss"] if task == "classify" else pytest.approx(wanted["loss"], rel=1e-6))
    assert found.get("accuracy", wanted["accuracy"]) == wanted["accuracy"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 3, 60])
def test_ranks_share_a_batch(form: str, count: int) -> None:
    given = Inputs((A,), {"b": B, "steps": torch.arange(7), "labels": LABELS})
    shares = [Ranks(rank, count).share(given, {"class": LABELS}) for rank in range(count)]
    left = [(share, target) for share, target, weight in shares if weight]
    assert sum(weight for _, _, weight in shares) == pytest.approx(count)
    order = torch.cat([torch.arange(50)[rank::count] for rank in range(count)])
    assert torch.equal(torch.cat([share.args[0] for share, _ in left]), A[order])
    assert torch.equal(torch.cat([share.kwargs["b"] for share, _ in left]), B[order])
    assert torch.equal(torch.cat([target["class"] for _, target in left]), LABELS[order])
    assert all(torch.equal(share.kwargs["steps"], torch.arange(7)) for share, _ in left)


def test_what_is_not_finite_is_named() -> None:
    broken = Samples(lambda a, b, labels: {"a": a, "b": b / 0, "labels": labels})
    with pytest.raises(DivergedError, match="the inputs of the batch are not finite"):
        trained(TwoInputs(), broken, loss("classify"))


def test_batches_without_a_target() -> None:
    nothing = Samples(lambda a, b, labels: Inputs((a, b)))
    with pytest.raises(DataError, match=r"The batches have no target, and the task needs a tensor: give pairs"):
        trained(TwoInputs(), nothing, loss("classify"))
    found = trained(TwoInputs(), nothing, lambda output, target: output.logits.square().mean())
    assert all(tensor.isfinite().all() for tensor in found.values())
    with pytest.raises(InputError, match="found 'words'; a batch is a pair"):
        trained(TwoInputs(), Samples(lambda a, b, labels: "words"), loss("classify"))
