"""`parting`: the first layer whose output differs between two networks, for the error message."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import CompressError
from compress.inputs import Inputs
from compress.proof.comparing import largest, numbers
from compress.proof.outputs import outputs_of
from compress.proof.randomness import seeded

_OWN_FORWARD = "the network's own forward"


def parting(
    reference: tuple[nn.Module, Callable[[Inputs], object]],
    candidate: tuple[nn.Module, Callable[[Inputs], object]],
    given: Inputs,
    tolerance: float,
) -> str:
    """The place where the two networks diverge: the first comparable output, in execution order, that differs or is
    missing.

    A traced graph has only the outputs of its own layers; a missing output says nothing unless the graph did not
    finish.

    Args:
        reference, candidate: the network whose layers are observed, and the function that runs it.
    """
    expected, found = _outputs(*reference, given), _outputs(*candidate, given)
    unfinished = ("", 0) not in found
    for (name, number), one in expected.items():
        other = found.get((name, number))
        differs = unfinished if other is None else _differs(one, other, tolerance)
        if differs:
            return repr(name) if name else _OWN_FORWARD
    return _OWN_FORWARD


def _differs(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False  # the layer has another width
    one, other = numbers(one), numbers(other)
    difference = torch.where((one == other) | (one.isnan() & other.isnan()), 0.0, (one - other).abs())
    finite = one[one.isfinite()]
    spread = float(finite.max() - finite.min()) if finite.numel() else 0.0
    return not largest(difference) <= tolerance * spread  # NaN is a difference


def _outputs(model: nn.Module, run: Callable[[Inputs], object], given: Inputs) -> dict[tuple[str, int], Tensor]:
    """Outputs of all modules by name and number, in the order in which they finish, as far as the model runs.

    A module that is called twice, or returns several tensors, has several outputs.
    """
    outputs: dict[tuple[str, int], Tensor] = {}
    counts: Counter[str] = Counter()

    def record(name: str, output: Any) -> None:
        with suppress(CompressError):
            for leaf in outputs_of(output).tensors.values():
                outputs[name, counts[name]] = leaf.clone()  # a later layer may write into it
                counts[name] += 1

    with ExitStack() as stack, suppress(Exception), seeded():
        for name, module in model.named_modules():
            hook = module.register_forward_hook(lambda _module, _inputs, output, name=name: record(name, output))
            stack.callback(hook.remove)
        run(given.mapped(Tensor.clone))
    return outputs
