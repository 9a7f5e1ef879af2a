import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.errors import InputError, ProofError
from compress.proof import FILE_BATCHES, max_difference, prove_file, prove_same, random_inputs


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)
    )


@pytest.fixture
def inputs() -> list[Tensor]:
    return [torch.randn(rows, 1, 4, 4, generator=torch.Generator().manual_seed(rows)) for rows in (2, 5)]


def test_max_difference():
    assert max_difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.25])) == 0.25
    assert max_difference(torch.tensor([2**24 + 1]), torch.tensor([2**24])) == 1
    assert max_difference(torch.zeros(0, 3), torch.zeros(0, 3)) == 0
    assert max_difference(torch.tensor([True]), torch.tensor([False])) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(2), torch.zeros(1)),
        (torch.tensor([math.nan]), torch.tensor([math.nan])),
        (torch.tensor([0.0, math.nan]), torch.zeros(2)),
        (torch.tensor([math.inf]), torch.tensor([math.inf])),
    ],
)
def test_other_shapes_and_values_that_are_not_finite_never_agree(a, b):
    assert max_difference(a, b) == math.inf


def test_a_copy_is_the_same_and_both_keep_their_modes(network, inputs):
    candidate = copy.deepcopy(network)
    candidate[1].eval()
    before = [given.clone() for given in inputs]
    assert prove_same(network, candidate, inputs, 0.0) == 0.0
    assert network.training
    assert not candidate[1].training
    assert all(torch.equal(*pair) for pair in zip(before, inputs, strict=True))


def test_the_largest_difference_is_returned(network, inputs):
    candidate = copy.deepcopy(network)
    with torch.no_grad():
        candidate[5].bias[1] += 1e-3
    assert prove_same(network, candidate, inputs, 1.0) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("layer", [0, 3, 5])
def test_the_first_layer_that_differs_is_named(network, inputs, layer):
    candidate = copy.deepcopy(network)
    with torch.no_grad():
        candidate[layer].weight += 0.1
        candidate[5].bias += 0.1
    with pytest.raises(ProofError, match=f"computes something else in '{layer}': the outputs differ"):
        prove_same(network, candidate, inputs, 1e-5)
    assert not any(module._forward_hooks for module in [*network.modules(), *candidate.modules()])


def test_a_layer_of_another_width_is_passed_over(network, inputs):
    candidate = copy.deepcopy(network)
    candidate[3], candidate[5] = nn.Linear(64, 7), nn.Linear(7, 3)
    with pytest.raises(ProofError, match="computes something else in '5'"):
        prove_same(network, candidate, inputs, 1e-5)


def test_a_candidate_that_does_not_run_names_the_layer(network, inputs):
    candidate = copy.deepcopy(network)
    candidate[3] = nn.Linear(63, 8)
    with pytest.raises(ProofError, match="The changed network fails in '3'"):
        prove_same(network, candidate, inputs, 1e-5)


def test_a_difference_outside_of_all_layers():
    class Scaled(nn.Module):
        scale = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    candidate = Scaled()
    candidate.scale = 2.0
    with pytest.raises(ProofError, match="the network's own forward"):
        prove_same(Scaled(), candidate, [torch.ones(2, 3)], 1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_tolerance_is_relative_to_the_outputs_scale(scale):
    reference, near, far = (nn.Linear(1, 1, bias=False).double() for _ in range(3))
    for model, weight in ((reference, scale), (near, scale * (1 + 0.9e-5)), (far, scale * (1 + 1.1e-5))):
        nn.init.constant_(model.weight, weight)
    assert prove_same(reference, near, [torch.ones(2, 1).double()], 1e-5) > 0
    with pytest.raises(ProofError, match="outputs differ by"):
        prove_same(reference, far, [torch.ones(2, 1).double()], 1e-5)


def test_nan_is_never_proven():
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, math.nan)
    with pytest.raises(ProofError, match="differ by inf"):
        prove_same(model, copy.deepcopy(model), [torch.ones(1, 2)], 1e-5)


def test_every_output_counts():
    class Two(nn.Module):
        def __init__(self, extra: float) -> None:
            super().__init__()
            self.extra = extra

        def forward(self, x: Tensor) -> dict[str, object]:
            return {"a": x, "b": [x, x + self.extra], "n": 3}

    assert prove_same(Two(1.0), Two(1.0), [torch.ones(2, 3)], 0.0) == 0.0
    with pytest.raises(ProofError):
        prove_same(Two(1.0), Two(2.0), [torch.ones(2, 3)], 1e-5)


def test_an_input_that_the_reference_refuses(network):
    with pytest.raises(InputError, match=r"\[2, 3\]"):
        prove_same(network, network, [torch.zeros(2, 3)], 1e-5)


class Several(nn.Module):
    """Two outputs in a dict, one of them of a layer that gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        states, last = self.rnn(x)
        return {"out": self.out(states), "last": last}


def test_outputs_in_tuples_and_dicts_are_compared_and_named():
    torch.manual_seed(0)
    model, given = Several(), [torch.randn(2, 5, 3)]
    candidate = copy.deepcopy(model)
    assert prove_same(model, candidate, given, 0.0) == 0.0
    with torch.no_grad():
        candidate.rnn.weight_hh_l0[0, 0] += 1
    with pytest.raises(ProofError, match="computes something else in 'rnn'"):
        prove_same(model, candidate, given, 1e-5)


def test_another_number_of_outputs():
    with pytest.raises(ProofError, match="2 outputs instead of 1"):
        prove_same(nn.Identity(), Pair(), [torch.ones(2, 3)], 1e-5)


def test_outputs_that_are_truth_values():
    class Positive(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x > 0

    assert prove_same(Positive(), Positive(), [torch.tensor([[1.0, -1.0]])], 1e-5) == 0.0


def test_both_parts_of_complex_numbers_count():
    one, other = torch.tensor([1 + 2j]), torch.tensor([1 + 5j])
    assert max_difference(one, other) == max_difference(one.conj(), other.conj()) == 3.0
    assert max_difference(one, torch.tensor([1.0])) == math.inf


def test_a_network_that_returns_no_tensor_proves_nothing():
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "done"

    with pytest.raises(InputError, match="nothing to compare"):
        prove_same(Silent(), Silent(), [torch.ones(2, 3)], 1e-5)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_an_interruption_leaves_no_hook(network, inputs):
    def interrupt(module: nn.Module, inputs: object, output: object) -> None:
        if len(module._forward_hooks) > 1:  # only while layers are compared
            raise KeyboardInterrupt

    candidate = copy.deepcopy(network)
    candidate[5].register_forward_hook(interrupt)
    with torch.no_grad():
        candidate[5].bias += 1
    with pytest.raises(KeyboardInterrupt):
        prove_same(network, candidate, inputs, 1e-5)
    assert sum(len(module._forward_hooks) for module in candidate.modules()) == 1


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
)
def test_random_inputs_are_like_the_example(shape: list[int], dtype: torch.dtype) -> None:
    example = (torch.arange(math.prod(shape)).view(shape) % 3).to(dtype)
    first, second = (list(random_inputs(example, (1, 6))) for _ in range(2))
    assert [tuple(batch.shape) for batch in first] == [(rows, *shape[1:]) for rows in (1, 6)]
    assert all(batch.dtype == dtype for batch in first)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    if not dtype.is_floating_point:
        assert {value.item() for batch in first for value in batch.flatten()} <= set(example.flatten().tolist())


class TestFile:
    EXAMPLE = torch.zeros(2, 3)

    def test_the_largest_difference_of_all_batches(self) -> None:
        seen = []

        def run(inputs: Tensor) -> Tensor:
            seen.append(len(inputs))
            return inputs + 1e-6 * len(inputs)

        assert prove_file(nn.Identity(), run, self.EXAMPLE, 1e-5, "x.onnx") == pytest.approx(7e-6, rel=0.05)
        assert tuple(seen) == FILE_BATCHES == (1, 7)

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
    def test_the_tolerance_is_relative_to_the_output(self, scale: float) -> None:
        class Scaled(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return scale * x.tanh()

        def off_by(share: float) -> float:
            return prove_file(Scaled(), lambda x: scale * (1 + share) * x.tanh(), self.EXAMPLE, 1e-4, "x.onnx")

        assert off_by(0.5e-4) <= scale * 1e-4
        with pytest.raises(ProofError, match=r"^x\.onnx computes something else at batch size 1: .* allowed is"):
            off_by(2e-4)

    @pytest.mark.parametrize("wrong", [math.nan, math.inf])
    def test_what_is_not_finite_is_not_the_same(self, wrong: float) -> None:
        with pytest.raises(ProofError):
            prove_file(nn.Identity(), lambda x: x * wrong, self.EXAMPLE, 1e-5, "x.onnx")

    @pytest.mark.parametrize("wrong", [math.nan, math.inf])
    def test_nor_where_the_model_is_not_finite_either(self, wrong: float) -> None:
        class Broken(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * wrong

        with pytest.raises(ProofError):
            prove_file(Broken(), lambda x: x * wrong, self.EXAMPLE, 1e-5, "x.onnx")

    def test_a_batch_size_that_became_a_constant(self) -> None:
        with pytest.raises(ProofError):
            prove_file(nn.Identity(), lambda x: torch.zeros(2, 3), self.EXAMPLE, 1e9, "x.onnx")

    def test_a_file_that_does_not_run(self) -> None:
        def run(inputs: Tensor) -> Tensor:
            raise RuntimeError("no such operator")

        with pytest.raises(ProofError, match=r"^x\.onnx fails at batch size 1: no such operator"):
            prove_file(nn.Identity(), run, self.EXAMPLE, 1e-5, "x.onnx")

    def test_a_model_that_does_not_run(self) -> None:
        with pytest.raises(InputError, match=r"does not run on an input of shape \[1, 3\]"):
            prove_file(nn.Linear(2, 2), torch.clone, self.EXAMPLE, 1e-5, "x.onnx")

    def test_one_tensor_in_a_tuple(self) -> None:
        assert prove_file(Pair(), lambda x: [x, x], self.EXAMPLE, 0.0, "x.pt2") == 0.0

    def test_outputs_of_zeros(self) -> None:
        assert prove_file(nn.Identity(), torch.clone, torch.zeros(2, 3, dtype=torch.int64), 1e-5, "x.onnx") == 0.0
