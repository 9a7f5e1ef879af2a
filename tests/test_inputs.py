"""What a network is called with: every sort of example, names, rows, and clear errors."""

from collections import UserDict, namedtuple

import pytest
import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.inputs import Inputs, inputs_of

A, B = torch.randn(2, 6), torch.randn(2, 3, 4)
Pair = namedtuple("Pair", ["left", "right"])


class Seven(nn.Module):
    def forward(self, a: Tensor, b: object = None, *rest: object, c: object = 1.0, **more: object) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("example", "args", "kwargs"),
    [
        (A, (A,), {}),
        ((A, B), (A, B), {}),
        ([A, 3, None], (A, 3, None), {}),
        ({"a": A, "b": [B, True]}, (), {"a": A, "b": [B, True]}),
        (UserDict({"a": A}), (), {"a": A}),
        (Inputs((A,), {"c": 2.5}), (A,), {"c": 2.5}),
    ],
)
def test_every_sort_of_example(example: object, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    given = inputs_of(example)
    assert len(given.args) == len(args)
    assert all(one is other for one, other in zip(given.args, args, strict=True))
    assert dict(given.kwargs) == kwargs
    assert given.call(lambda *args, **kwargs: (args, kwargs)) == (args, kwargs)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (3, "example: found 3; expected a tensor, a tuple or list"),
        ({1: A}, "an object of dict"),
        ((1.0, None), "it holds no tensor"),
        (torch.tensor(1.0), "needs a batch dimension"),
        (torch.zeros(0, 3), r"its shape is \[0, 3\]"),
    ],
)
def test_anything_else_is_refused(example: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        inputs_of(example)


def test_names_are_those_of_the_arguments() -> None:
    given = Inputs((A, [B, A]), {"c": {"mask": B}, "d": Pair(A, 1)})
    assert given.names(Seven()) == ["a", "b_0", "b_1", "c_mask", "d_left"]
    assert Inputs((A, A)).names(Seven()) == ["a", "b"]


def test_rows_are_counted_along_the_dimension_of_the_batch() -> None:
    mask, state = torch.zeros(7, 7), torch.zeros(1, 2, 5)
    given = Inputs((A,), {"c": mask, "h": state})
    assert given.rows == 2
    assert [given.batch_dim_of(tensor) for tensor in given.tensors] == [0, None, 1]
    length_first = Inputs((torch.zeros(7, 2, 3), torch.zeros(2, 7)), {}, batch_dim=1)
    assert length_first.rows == 2
    assert [length_first.batch_dim_of(tensor) for tensor in length_first.tensors] == [1, 0]


def test_a_whole_call_keeps_all_of_its_samples() -> None:
    nodes, edges = torch.randn(5, 3), torch.tensor([[0, 4], [1, 2]])
    assert [tensor.shape for tensor in Inputs((nodes, edges)).few().tensors] == [(2, 3), (2, 2)]
    whole = Inputs((nodes, edges), whole=True).mapped(torch.clone)
    assert [tensor.shape for tensor in whole.few().tensors] == [(5, 3), (2, 2)]


def test_a_signature_ignores_values_and_rows_only() -> None:
    one = Inputs((A, 3), {"b": B})
    assert one.signature() == Inputs((A[:1] * 2, 3), {"b": B[:1]}).signature()
    for other in (Inputs((A, 4), {"b": B}), Inputs((A, 3), {"b": B.double()}), Inputs((A, 3), {"b": B[:, :2]})):
        assert one.signature() != other.signature()


def test_mapped_keeps_everything_but_the_tensors() -> None:
    given = Inputs((A, 3), {"b": [B, None]}).mapped(lambda tensor: tensor.double())
    assert [tensor.dtype for tensor in given.tensors] == [torch.float64] * 2
    assert given.args[1] == 3
    assert given.kwargs["b"][1] is None
