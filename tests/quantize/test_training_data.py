"""Which samples calibrate int8, and which decide on it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from compress.quantize.training_data import Split


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Takes rows of two numbers."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "net", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "n.onnx")
    return tmp_path / "n.onnx"


def batches(start: int, count: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each of ten samples that are equal, numbered from `start`."""
    return [(torch.full((10, 2), float(start + number)), torch.zeros(10)) for number in range(count)]


def deciding(split: Split) -> list[float]:
    return [float(given.args[0][0, 0]) for given, _ in split.held_out()]


def calibrating(split: Split, file: Path) -> list[float]:
    return [float(next(iter(feed.values()))[0, 0]) for feed in split.feeds(file)()]


def test_without_a_validation_part_the_rest_of_the_training_samples_decides(file: Path) -> None:
    split = Split(lambda: batches(0), samples=20)
    assert deciding(split) == [2, 3]
    assert calibrating(split, file) == [0, 1, 2, 3], "as many as are wanted are taken from the start"
    assert deciding(Split(lambda: batches(0), samples=100)) == [0, 1, 2, 3], "there are no others"


def test_the_validation_part_decides_where_there_is_one(file: Path) -> None:
    split = Split(lambda: batches(0), samples=20, validation=lambda: batches(50))
    assert deciding(split) == [50, 51, 52, 53]
    assert calibrating(split, file) == [0, 1, 2, 3]


def test_the_samples_are_the_same_each_time() -> None:
    def shuffled() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [batches(0)[row] for row in torch.randperm(4).tolist()]

    split = Split(lambda: batches(0), samples=20, validation=shuffled)
    state = torch.get_rng_state()
    first = deciding(split)
    assert deciding(split) == first
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(sorted(first), [0, 1, 2, 3])
