"""Counts against hand formulas, bytes against the gzip module."""

import gzip
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compress import models
from compress.graph.stats import Stats, file_bytes, measure
from compress.inputs import inputs_of

few = st.integers(1, 6)


@given(batch=few, inputs=few, outputs=few)
def test_linear(batch: int, inputs: int, outputs: int) -> None:
    layer = nn.Linear(inputs, outputs)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    expected = Stats(params=inputs * outputs + outputs, nonzero=inputs * outputs, macs=inputs * outputs)
    assert measure(layer, torch.zeros(batch, inputs)) == expected


@given(batch=few, inputs=few, outputs=few, kernel=st.integers(1, 3), stride=st.integers(1, 2), size=st.integers(3, 7))
def test_convolution(batch: int, inputs: int, outputs: int, kernel: int, stride: int, size: int) -> None:
    layer = nn.Conv2d(inputs, outputs, kernel, stride)
    side = (size - kernel) // stride + 1
    stats = measure(layer, torch.zeros(batch, inputs, size, size))
    assert stats.params == outputs * (inputs * kernel**2 + 1)
    assert stats.macs == side**2 * outputs * inputs * kernel**2


def test_the_papers_networks() -> None:
    dense = 784 * 512 + 512 * 256 + 256 * 128 + 128 * 128
    assert measure(models.autoencoder(), torch.zeros(3, 1, 28, 28)).macs == 2 * (dense + 128 * 64)
    convolutions = 30**2 * 8 * 27 + 13**2 * 16 * 72
    assert measure(models.conv_classifier(), torch.zeros(1, 3, 32, 32)).macs == convolutions + (
        576 * 128 + 128 * 64 + 64 * 32 + 32 * 10
    )


@pytest.mark.parametrize("training", [True, False])
def test_attention(training: bool) -> None:
    """Evaluated without gradients, torch has a fused operator for it: that is not a reason to count nothing."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).train(training)
    projections, hidden, attention = 5 * 4 * 8 * 8, 5 * 2 * 8 * 16, 2 * 5 * 5 * 8
    assert measure(layer, torch.randn(3, 5, 8)).macs == projections + hidden + attention
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers(kind: type[nn.RNNBase], gates: int) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(4, 3, batch_first=True, bidirectional=True)

        def forward(self, inputs: Tensor) -> Tensor:
            output: Tensor = self.layer(inputs)[0]
            return output

    assert measure(Both(), torch.randn(2, 5, 4)).macs == 5 * 2 * gates * 3 * (4 + 3)


def test_a_zero_is_a_parameter_and_a_multiplication() -> None:
    layer = nn.Linear(4, 3, bias=False)
    layer.weight.data[1] = 0
    assert measure(layer, torch.zeros(1, 4)) == Stats(params=12, nonzero=8, macs=12)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.two(self.one(inputs))


def test_a_shared_parameter_is_stored_once_and_used_twice() -> None:
    assert measure(Tied(), torch.zeros(2, 4)) == Stats(params=16, nonzero=16, macs=32)


def test_measuring_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure(model, torch.randn(1, 2))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, (1 << 20) + 1, 3_000_000])
def test_file_bytes_are_those_of_the_gzip_module(tmp_path: Path, size: int) -> None:
    content = torch.randint(0, 5, (size,), dtype=torch.uint8).numpy().tobytes()
    (tmp_path / "file").write_bytes(content)
    assert file_bytes(tmp_path / "file") == {"plain": size, "gzip": len(gzip.compress(content, 6))}


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), nn.ConvTranspose2d(4, 6, 2, groups=2)), torch.randn(2, 3, 7, 7)),
        (nn.TransformerDecoderLayer(8, 2, 16), (torch.randn(3, 2, 8), torch.randn(5, 2, 8))),
        (models.resnet20(), torch.randn(2, 3, 32, 32)),
    ],
    ids=["convolutions", "decoder layer", "ResNet"],
)
def test_multiply_adds_are_those_of_torchs_own_counter(model: nn.Module, example: Any) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        inputs_of(example).call(model.eval())
    assert measure(model, example).macs == round(counter.get_total_flops() / 2 / inputs_of(example).rows) > 0
