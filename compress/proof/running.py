"""`run`: one call of a network with the seed that all calls of a proof have."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from compress.inputs import Inputs
from compress.proof import randomness
from compress.proof.outputs import Outputs, outputs_of

Network = Callable[[Inputs], object]


@dataclass(frozen=True)
class Ran:
    """drew: whether it has drawn random numbers."""

    outputs: Outputs
    drew: bool


def run(network: Network, given: Inputs) -> Ran:
    with randomness.seeded():
        before = randomness.state()
        outputs = outputs_of(network(given.mapped(Tensor.clone)))  # an in-place layer may write into its input
        return Ran(outputs, randomness.state() != before)
