"""`run`: one call of a network with the seed that all calls of a proof have; `Passes` keeps what it has returned."""

from collections.abc import Callable
from dataclasses import dataclass, replace

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


class Passes:
    """The outputs of one network, for proofs of several candidates with the same inputs."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Inputs, Ran]] = {}  # with the inputs, which keep their identity so

    def run(self, network: Network, given: Inputs, time: int = 1) -> Ran:
        """As `run`, once for each input and each `time`, which is 2 for the second one."""
        key = (id(given), time)
        if key not in self._known:
            ran = run(network, given)
            own = {path: tensor.clone() for path, tensor in ran.outputs.tensors.items()}  # a later pass may write there
            self._known[key] = given, Ran(replace(ran.outputs, tensors=own), ran.drew)
        return self._known[key][1]
