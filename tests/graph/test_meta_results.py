"""What an operator gives for tensors without data has the sizes, strides and type that it gives for numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from compress.graph.meta_results import _SIZES, _UNTAGGED, _sizes_of, result_of
from compress.graph.stand_in import without_data

ATEN = torch.ops.aten
X, Y, ROW = torch.rand(2, 3, 4), torch.rand(2, 3, 4), torch.rand(4)
PICTURE, WHOLE = torch.rand(2, 4, 6, 8), torch.arange(24).reshape(2, 3, 4)
TURNED = torch.rand(2, 4, 3).transpose(1, 2)

FAST: list[tuple[Any, ...]] = [
    (ATEN.linear.default, X, torch.rand(5, 4), torch.rand(5)),
    (ATEN.linear.default, ROW, torch.rand(5, 4)),
    (ATEN.linear.default, TURNED, torch.rand(5, 4), torch.rand(5)),
    (ATEN.addmm.default, torch.rand(5), X[0], torch.rand(4, 5)),
    (ATEN.matmul.default, X, torch.rand(2, 4, 5)),
    (ATEN.matmul.default, X, torch.rand(4, 5)),
    (ATEN.bmm.default, X, torch.rand(2, 4, 5)),
    (ATEN.scaled_dot_product_attention.default, X, Y, torch.rand(2, 3, 7)),
    (ATEN.scaled_dot_product_attention.default, X, Y, Y, torch.rand(3, 3)),
    (ATEN.cat.default, [X, X[:, :1].contiguous()], -2),
    (ATEN.conv1d.default, X, torch.rand(6, 3, 2), torch.rand(6), [2], [1]),
    (ATEN.conv2d.default, PICTURE, torch.rand(6, 2, 3, 2), None, [2, 1], [1, 0], [1, 2], 2),
    (ATEN.conv2d.default, PICTURE, torch.rand(6, 4, 3, 3)),
    (ATEN.conv3d.default, PICTURE[None], torch.rand(6, 2, 3, 3, 3), torch.rand(6), [1], [1]),
    (ATEN.mean.dim, PICTURE, [2, -1], True),
    (ATEN.mean.dim, PICTURE, [1]),
    (ATEN.sum.dim_IntList, X, []),
    (ATEN.amax.default, X, [0], True),
    (ATEN.linalg_vector_norm.default, X, 1, [2]),
    (ATEN.adaptive_avg_pool2d.default, PICTURE, [1, 3]),
    (ATEN.upsample_nearest2d.vec, PICTURE, None, [1.5, 2.0]),
    (ATEN.upsample_bilinear2d.vec, PICTURE, [3, 5], False, None),
    (ATEN.grid_sampler.default, PICTURE, torch.rand(2, 3, 5, 2), 0, 0, False),
    (ATEN.ones_like.default, WHOLE),
    (ATEN.layer_norm.default, X, [4]),
    *((operator, TURNED) for operator in sorted(_UNTAGGED, key=str)),
    (ATEN.add.Tensor, X, ROW),
    (ATEN.add.Tensor, TURNED, TURNED),
    (ATEN.add.Tensor, X[:, :1].contiguous(), ROW[:, None]),
    (ATEN.mul.Tensor, WHOLE, 0.5),
    (ATEN.div.Tensor, WHOLE, 2),
    (ATEN.mul.Tensor, X, torch.tensor(2.0, dtype=torch.float64)),
    (ATEN.mul.Tensor, ROW.half(), X),
    (ATEN.gt.Scalar, X, 0),
    (ATEN.where.self, X > 0.5, X, ROW),
    (ATEN.masked_fill.Scalar, X, X > 0.5, 0.0),
    (ATEN.pow.Tensor_Scalar, TURNED, 2),
    (ATEN.add_.Tensor, X.clone(), ROW),
    (ATEN.gelu.default, X),
]
# Torch decides: what does not fit, and strides that are not those of sizes alone.
SLOW: list[tuple[Any, ...]] = [
    (ATEN.linear.default, X, torch.rand(5, 3), torch.rand(5)),
    (ATEN.linear.default, X, torch.rand(5, 4, dtype=torch.float64)),
    (ATEN.matmul.default, X, torch.rand(3, 5)),
    (ATEN.matmul.default, X, ROW),
    (ATEN.conv2d.default, PICTURE, torch.rand(6, 3, 3, 3)),
    (ATEN.conv2d.default, PICTURE, torch.rand(6, 4, 9, 9)),
    (ATEN.conv2d.default, PICTURE.to(memory_format=torch.channels_last), torch.rand(6, 4, 3, 3)),
    (ATEN.cat.default, [X, PICTURE], 1),
    (ATEN.mean.dim, X, [3]),
    (ATEN.mean.dim, WHOLE, [1]),
    (ATEN.add.Tensor, X, torch.rand(3)),
    (ATEN.add.Tensor, TURNED, ROW),
    (ATEN.add_.Tensor, ROW.clone(), X),
    (ATEN.add_.Tensor, WHOLE.clone(), 0.5),
    (ATEN.scaled_dot_product_attention.default, X, Y, torch.rand(2, 4, 4)),
]


def calls(cases: list[tuple[Any, ...]]) -> list[Any]:
    return [pytest.param(operator, given, id=f"{number}-{operator}") for number, (operator, *given) in enumerate(cases)]


def described(tensor: Tensor) -> tuple[Any, ...]:
    strides = [step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
    return tensor.shape, tensor.dtype, strides


@pytest.mark.parametrize(("operator", "given"), calls(FAST))
def test_a_result_is_like_the_one_with_data(operator: Any, given: list[Any]) -> None:
    bare = tree_map_only(Tensor, without_data, given)
    sizes = _sizes_of(operator)
    found = sizes and sizes(operator, *bare)
    assert found is not None
    assert found.is_meta
    assert described(found) == described(operator(*tree_map_only(Tensor, torch.clone, given)))
    assert (found is bare[0]) == operator._schema.is_mutable


@pytest.mark.parametrize(("operator", "given"), calls(SLOW))
def test_torch_decides_the_rest(operator: Any, given: list[Any]) -> None:
    sizes = _sizes_of(operator)
    assert sizes
    assert sizes(operator, *tree_map_only(Tensor, without_data, given)) is None


def test_errors_are_those_of_torch() -> None:
    with pytest.raises(RuntimeError, match="broadcast"):
        result_of(ATEN.add.Tensor, (without_data(X), without_data(torch.rand(3))), {})


def test_every_operator_with_sizes_of_its_own_is_tried() -> None:
    """Those without a case here are recurrent, or share their sizes with one that has a case."""
    tried = {operator for operator, *_ in FAST}
    families = {sizes for operator, sizes in _SIZES.items() if operator in tried}
    assert {sizes.__name__ for sizes in set(_SIZES.values()) - families} == {"_recurrent", "_packed", "_padded"}
