"""LSTM classifiers, as small examples of recurrent networks: of images row by row, and of series."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from compress.models.paper import MNIST_IMAGE

Model = TypeVar("Model", bound=nn.Module)


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


class LSTMClassifier(nn.Module):
    """Step after step through LSTM layers; a Linear layer predicts the class from the state of the last valid step.

    `inputs` [N, T, channels], padded after the last valid step, and `lengths` [N], from 1 to T, to logits [N, classes].
    What pads a series has no influence: states depend on earlier steps only.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.lstm(inputs)
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        logits: Tensor = self.head(states.gather(1, last).squeeze(1))
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
    return _initialised(RowLSTM(image, hidden, layers, classes), generator)


def lstm_classifier(
    inputs: int, hidden: int = 64, layers: int = 1, classes: int = 2, *, generator: torch.Generator | None = None
) -> LSTMClassifier:
    """`LSTMClassifier`. Matrices are Xavier-uniform, biases zero."""
    return _initialised(LSTMClassifier(inputs, hidden, layers, classes), generator)


def _initialised(model: Model, generator: torch.Generator | None) -> Model:
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, generator=generator)
        else:
            nn.init.zeros_(parameter)
    return model
