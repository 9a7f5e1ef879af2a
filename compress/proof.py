"""Two networks are shown to compute the same, or the first layer where they part is named."""

import contextlib
import math
from collections import Counter
from collections.abc import Iterable
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.errors import InputError, ProofError
from compress.evaluation_mode import evaluation_mode


def max_difference(a: Tensor, b: Tensor) -> float:
    """Largest |a - b|, computed in float64; infinite where the shapes differ or any value is not finite."""
    if a.shape != b.shape:
        return math.inf
    difference = (a.detach().double() - b.detach().double()).abs()
    worst = float(difference.max()) if difference.numel() else 0.0
    return worst if math.isfinite(worst) else math.inf


def prove_same(reference: nn.Module, candidate: nn.Module, inputs: Iterable[Tensor], tolerance: float) -> float:
    """Run both in evaluation mode on every input; the largest absolute difference of their outputs.

    `tolerance` is relative to the scale of the output, its largest magnitude over the batch: 1e-5 allows a
    difference of 1e-5 where the outputs reach 1, and of 1e-7 where they reach 0.01.

    Raises:
        ProofError: an output differs by more, is not finite, or the candidate does not run; names the first layer
            whose output differs, among those whose output has the same shape in both.
        InputError: the reference itself does not run on an input.
    """
    worst = 0.0
    with evaluation_mode(reference), evaluation_mode(candidate):
        for given in inputs:
            try:
                expected = _results(reference, given)
            except Exception as error:
                raise InputError(
                    f"The network does not run on an input of shape {list(given.shape)}: {error}"
                ) from error
            try:
                found = _results(candidate, given)
            except Exception as error:
                where = _parting(reference, candidate, given, tolerance)
                raise ProofError(f"The changed network does not run; it fails in {where}: {error}") from error
            for one, other in zip_longest(expected, found, fillvalue=torch.empty(0)):
                difference, allowed = max_difference(one, other), tolerance * _scale(one)
                if difference > allowed:
                    where = _parting(reference, candidate, given, tolerance)
                    raise ProofError(
                        f"The changed network computes something else: its output differs by {difference:.3g}, "
                        f"allowed is {allowed:.3g}. The first difference is in {where}."
                    )
                worst = max(worst, difference)
    return worst


def _results(model: nn.Module, given: Tensor) -> list[Tensor]:
    # A copy, since an in-place layer may write into its input.
    return [result for result in tree_leaves(model(given.clone())) if isinstance(result, Tensor)]


def _scale(output: Tensor) -> float:
    """Largest magnitude; 1 where that is no scale: all zeros, or not finite."""
    largest = float(output.abs().max()) if output.numel() else 0.0
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
            return repr(name) if name else "the network's own forward"
    return "the network's own forward"


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

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: record(name, output))
        for name, module in model.named_modules()
    ]
    with contextlib.suppress(Exception):
        _results(model, given)
    for hook in hooks:
        hook.remove()
    return outputs
