"""The proof that a changed network, or a file made of one, computes the same.

Two outputs are the same where they differ by no more than a tolerance times the scale of the output, its largest
magnitude over the batch: 1e-5 allows a difference of 1e-5 where the outputs reach 1, and of 1e-7 where they reach 0.01.
Outputs that are not finite are never the same.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.errors import InputError, ProofError
from compress.evaluation_mode import evaluation_mode

FILE_BATCHES = (1, 7)
"""Neither is the batch size of traces, so that a batch size that became a constant of the file shows."""

_OWN_FORWARD = "the network's own forward"


def prove_same(reference: nn.Module, candidate: nn.Module, inputs: Iterable[Tensor], tolerance: float) -> float:
    """Run both in evaluation mode on every input; the largest absolute difference of their outputs.

    Args:
        tolerance: of each output, relative to its scale.

    Raises:
        ProofError: an output differs by more, is not finite, or the candidate does not run; names the first layer
            whose output differs, among those whose output has the same shape in both.
        InputError: the reference itself does not run on an input.
    """
    worst = 0.0
    with evaluation_mode(reference), evaluation_mode(candidate):
        for given in inputs:
            try:
                worst = max(worst, _difference(reference, candidate, given, tolerance))
            except _DiffersError as error:
                where = _parting(reference, candidate, given, tolerance)
                raise ProofError(f"The changed network {error.how} in {where}: {error}") from error
    return worst


def prove_file(
    model: nn.Module, run: Callable[[Tensor], object], example: Tensor, tolerance: float, what: str
) -> float:
    """Compare what runs a file with the model in evaluation mode, on random inputs of `FILE_BATCHES` rows.

    Args:
        example: one input, shape [batch, ...]; see `random_inputs`.
        tolerance: of each output, relative to its scale.
        what: the file, for the error text.

    Returns:
        The largest absolute difference of their outputs.

    Raises:
        ProofError: an output differs by more, is not finite, or the file does not run.
        InputError: the model itself does not run.
    """
    worst = 0.0
    with evaluation_mode(model):
        for given in random_inputs(example, FILE_BATCHES):
            try:
                worst = max(worst, _difference(model, run, given, tolerance))
            except _DiffersError as error:
                raise ProofError(f"{what} {error.how} at batch size {len(given)}: {error}") from error
    return worst


def random_inputs(example: Tensor, sizes: Iterable[int]) -> Iterator[Tensor]:
    """For each of `sizes` a batch of that many rows like those of `example` [N, ...], always the same ones.

    Floating-point numbers come from the normal distribution. Others are drawn from the example's own: any others might
    be out of range, as the numbers of classes or tokens.
    """
    for size in sizes:
        generator = torch.Generator().manual_seed(size)
        shape = (size, *example.shape[1:])
        if example.is_floating_point():
            yield torch.randn(shape, generator=generator).to(example)
        else:
            yield example.flatten()[torch.randint(example.numel(), shape, generator=generator).to(example.device)]


def max_difference(a: Tensor, b: Tensor) -> float:
    """Largest |a - b|, computed in float64; infinite where the shapes differ or any value is not finite."""
    if a.shape != b.shape or a.is_complex() != b.is_complex():
        return math.inf
    difference = (_numbers(a) - _numbers(b)).abs()
    worst = float(difference.max()) if difference.numel() else 0.0
    return worst if math.isfinite(worst) else math.inf


class _DiffersError(Exception):
    """how: a verb for what the candidate does instead."""

    def __init__(self, how: str, detail: str) -> None:
        super().__init__(detail)
        self.how = how


def _difference(
    reference: Callable[[Tensor], object], candidate: Callable[[Tensor], object], given: Tensor, tolerance: float
) -> float:
    """The largest difference of any output; raises _DiffersError, and InputError where the reference does not run."""
    try:
        expected = _results(reference, given)
    except Exception as error:
        raise InputError(f"The network does not run on an input of shape {list(given.shape)}: {error}") from error
    if not expected:
        raise InputError("The network returns no tensor, so that there is nothing to compare.")
    try:
        found = _results(candidate, given)
    except Exception as error:
        raise _DiffersError("fails", str(error)) from error
    if len(found) != len(expected):
        raise _DiffersError("computes something else", f"{len(found)} outputs instead of {len(expected)}")
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        difference, allowed = max_difference(one, other), tolerance * _scale(one)
        if difference > allowed:
            raise _DiffersError(
                "computes something else", f"the outputs differ by {difference:.3g}, allowed is {allowed:.3g}"
            )
        worst = max(worst, difference)
    return worst


def _results(model: Callable[[Tensor], object], given: Tensor) -> Sequence[Tensor]:
    # A copy, since an in-place layer may write into its input.
    return [result for result in tree_leaves(model(given.clone())) if isinstance(result, Tensor)]


def _numbers(tensor: Tensor) -> Tensor:
    """In float64, the real and the imaginary part of complex ones beside each other."""
    tensor = tensor.detach()
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).double()


def _scale(output: Tensor) -> float:
    """Largest magnitude; 1 where that is not a scale: all zeros, or not finite."""
    largest = float(_numbers(output).abs().max()) if output.numel() else 0.0
    return largest if 0 < largest < math.inf else 1.0


def _parting(reference: nn.Module, candidate: nn.Module, given: Tensor, tolerance: float) -> str:
    """Where the two part, in the order of execution: the first comparable output that differs, or is missing.

    A traced graph has the outputs of no layer but its own; what it lacks says nothing unless it did not finish.
    """
    expected, found = _outputs(reference, given), _outputs(candidate, given)
    unfinished = ("", 0) not in found
    for (name, number), one in expected.items():
        other = found.get((name, number))
        if other is None:
            differs = unfinished
        else:
            differs = one.shape == other.shape and max_difference(one, other) > tolerance * _scale(one)
        if differs:
            return repr(name) if name else _OWN_FORWARD
    return _OWN_FORWARD


def _outputs(model: nn.Module, given: Tensor) -> dict[tuple[str, int], Tensor]:
    """Outputs of all modules by name and number, in the order in which they finish, as far as the model runs.

    A module that is called twice, or gives several tensors in whatever tuple or dict, has several.
    """
    outputs: dict[tuple[str, int], Tensor] = {}
    counts: Counter[str] = Counter()

    def record(name: str, output: object) -> None:
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                outputs[name, counts[name]] = leaf.clone()  # a later layer may write into it
                counts[name] += 1

    with ExitStack() as stack, suppress(Exception):
        for name, module in model.named_modules():
            hook = module.register_forward_hook(lambda _module, _inputs, output, name=name: record(name, output))
            stack.callback(hook.remove)
        _results(model, given)
    return outputs
