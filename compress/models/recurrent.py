"""An LSTM that reads an image row by row, as a small example of a recurrent network."""

import torch
from torch import Tensor, nn

from compress.models.paper import MNIST_IMAGE


class RowLSTM(nn.Module):
    """Row after row through LSTM layers; a Linear layer predicts the class from the last state.

    [N, C, H, W] to logits [N, classes]; the input of a step is the C * W values of a row.
    """

    def __init__(self, image: tuple[int, int, int], hidden: int, layers: int, classes: int) -> None:
        super().__init__()
        self.input_shape = image
        self.lstm = nn.LSTM(image[0] * image[2], hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        states, _ = self.lstm(inputs.transpose(1, 2).flatten(2))
        logits: Tensor = self.head(states[:, -1])
        return logits


def row_lstm(
    image: tuple[int, int, int] = MNIST_IMAGE,
    hidden: int = 128,
    layers: int = 2,
    classes: int = 10,
    *,
    generator: torch.Generator | None = None,
) -> RowLSTM:
    """`RowLSTM`; 214,282 parameters for MNIST. Matrices are Xavier-uniform, biases zero."""
    model = RowLSTM(image, hidden, layers, classes)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, generator=generator)
        else:
            nn.init.zeros_(parameter)
    return model
