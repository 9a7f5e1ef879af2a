"""Batches in the forms that people have, as (inputs, target)."""

from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.batches import has_own_loss, pair_of, pairs, part_of_target, takes
from compress.errors import InputError
from compress.inputs import Inputs

X, Y, Z = torch.arange(12.0).view(6, 2), torch.arange(6), torch.ones(6, 3)


class Plain(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x


class WithLabels(nn.Module):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return x


class WithAny(nn.Module):
    def forward(self, **kwargs: Tensor) -> Tensor:
        return kwargs["x"]


@pytest.mark.parametrize(
    ("batch", "args", "kwargs", "target"),
    [
        ((X, Y), (X,), {}, Y),
        ([X, Y], (X,), {}, Y),
        (((X, Z), Y), (X, Z), {}, Y),
        (({"x": X, "mask": Z}, Y), (), {"x": X, "mask": Z}, Y),
        ((Inputs((X,), {"mask": Z}), Y), (X,), {"mask": Z}, Y),
        ((X, None), (X,), {}, None),
        ((X, {"boxes": Z}), (X,), {}, {"boxes": Z}),
        ({"x": X, "labels": Y}, (), {"x": X, "labels": Y}, Y),
        (UserDict(x=X, labels=Y), (), {"x": X, "labels": Y}, Y),
        ({"x": X, "scale": 2.0}, (), {"x": X, "scale": 2.0}, None),
        (X, (X,), {}, None),
        ((X,), (X,), {}, None),
        (Inputs((X, Z)), (X, Z), {}, None),
    ],
)
def test_every_form(batch: object, args: tuple[Any, ...], kwargs: dict[str, Any], target: Any) -> None:
    given, found = pair_of(batch)
    assert [*map(id, given.args)] == [*map(id, args)]
    assert {key: id(value) for key, value in given.kwargs.items()} == {key: id(kwargs[key]) for key in kwargs}
    assert found is target or found == target


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ((X, Z, Y), "a tuple of 3"),
        ([], "a list of 0"),
        (3, "3"),
        ("words", "'words'"),
        ({1: X}, "dict"),
        (("words", Y), "'words'"),
        ({"x": 1.0}, "it holds no tensor"),
        ((X[:0], Y[:0]), "needs a batch dimension with a row"),
    ],
)
def test_what_is_none_of_them_is_told_with_the_forms(batch: object, found: str) -> None:
    with pytest.raises(InputError, match=r"^my loader: ") as caught:
        pair_of(batch, "my loader")
    assert found in str(caught.value)


def test_labels_are_arguments_where_the_network_takes_them() -> None:
    batch = {"x": X, "labels": Y}
    for network, labelled in ((Plain(), False), (WithLabels(), True), (WithAny(), True)):
        ((given, target),) = pairs([batch], network)
        assert ("labels" in given.kwargs) == labelled == takes(network, "labels")
        assert target is Y
    assert batch.keys() == {"x", "labels"}
    assert [has_own_loss(network) for network in (Plain(), WithLabels(), WithAny())] == [False, True, False]


@pytest.mark.parametrize("batch_dim", [0, 1])
def test_parts_of_a_batch(batch_dim: int) -> None:
    """Samples are cut out of all tensors that have them, and plain values and constants remain."""
    sample, steps = torch.randn(6, 4, 2), torch.arange(4.0)
    tokens = sample if batch_dim == 0 else sample.movedim(0, 1)
    given = Inputs((tokens, steps, 3), {"states": torch.randn(2, 6, 5), "none": None}, batch_dim)
    part = given.part(slice(1, 6, 2))
    assert part.rows == 3
    assert torch.equal(part.args[0], tokens[1::2] if batch_dim == 0 else tokens[:, 1::2])
    assert torch.equal(part.args[1], steps)
    assert part.args[2] == 3
    assert torch.equal(part.kwargs["states"], given.kwargs["states"][:, 1::2])
    target = part_of_target({"class": Y, "weights": (steps, "text")}, given, slice(1, 6, 2))
    assert target["class"].tolist() == [1, 3, 5]
    assert torch.equal(target["weights"][0], steps)
    assert part_of_target(None, given, slice(2)) is None
