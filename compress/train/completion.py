"""What dropped attributes add to an output, for the training of a latent space that does not hold them.

Reconstructing a sample takes all of its attributes. A loss that is computed from codes alone therefore pulls a dropped
attribute back into them. Here a small network, which is thrown away afterwards, is given the attribute, and adds to the
output what follows from it. It adds 0 in the mean over the classes, so that the output itself becomes the mean over
them: what the codes tell of a sample without the attribute.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 256
"""Units of the hidden layer."""


class Completion(nn.Module):
    """(codes [N, nodes], classes [N]) -> what one attribute adds to the flat outputs [N, outputs]."""

    seen: Tensor

    def __init__(self, nodes: int, classes: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.of_codes = nn.Linear(nodes, HIDDEN)
        self.of_class = nn.Embedding(classes, HIDDEN)
        self.output = nn.Linear(HIDDEN, outputs, bias=False)
        nn.init.zeros_(self.output.weight)  # at first, nothing is added
        self.register_buffer("seen", torch.zeros(classes))

    def forward(self, codes: Tensor, classes: Tensor) -> Tensor:
        self.seen += F.one_hot(classes, len(self.seen)).sum(0)
        shares = self.seen / self.seen.sum()
        every = F.relu(self.of_codes(codes)[:, None] * self.of_class.weight)  # [N, classes, HIDDEN]
        own = every[torch.arange(len(codes), device=codes.device), classes]
        mean = (every * shares[:, None]).sum(1)
        found: Tensor = self.output(own - mean)
        return found
