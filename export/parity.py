"""Does a written file compute what the model computes?"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compress.errors import ProofError
from compress.evaluation_mode import evaluation_mode
from compress.proof import max_difference

# Neither is the size that models are traced with, so that a batch size which became a constant shows.
BATCH_SIZES = (1, 7)


def check(model: nn.Module, run: Callable[[Tensor], Tensor], example: Tensor, tolerance: float, what: str) -> float:
    """Compare `run` with the model in evaluation mode, on random inputs with the shape and type of the example.

    Args:
        example: one input, shape [batch, ...]; integer inputs are drawn from its values.
        tolerance: allowed difference, relative to the output's largest magnitude over the batch, as in `compress.slim`.
        what: the file, for the error text.

    Returns:
        The largest absolute difference found.

    Raises:
        ProofError: a difference is above the tolerance, or the outputs' shapes differ.
    """
    largest = 0.0
    with evaluation_mode(model):
        for size in BATCH_SIZES:
            inputs = _random_like(example, size)
            expected = model(inputs.clone())  # an in-place layer may write into its input
            found = max_difference(expected, run(inputs))
            allowed = tolerance * (float(expected.abs().max()) or 1.0)
            if not found <= allowed:  # a NaN is no proof either
                raise ProofError(
                    f"{what} is not kept: at batch size {size} its output differs from the model's by {found:.3g}, "
                    f"allowed is {allowed:.3g}"
                )
            largest = max(largest, found)
    return largest


def _random_like(example: Tensor, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    shape = (size, *example.shape[1:])
    if example.is_floating_point():
        return torch.randn(shape, generator=generator).to(example.dtype)
    # Any other number may be out of range: an index of an embedding, for one.
    values = example.flatten().cpu()
    return values[torch.randint(len(values), shape, generator=generator)]
