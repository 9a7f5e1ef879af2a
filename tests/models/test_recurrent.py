"""The row LSTM against the equations of its cell (Hochreiter & Schmidhuber, 1997; Gers, 1999) in numpy."""

import numpy as np
import torch

from compress.models import row_lstm


def test_it_is_an_lstm_over_rows_and_the_last_state_is_read() -> None:
    torch.manual_seed(0)
    model = row_lstm((2, 5, 3), hidden=4, layers=2, classes=3).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    images = torch.randn(6, 2, 5, 3, dtype=torch.float64)
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}

    def sigmoid(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-values))

    rows = [images[:, :, row].reshape(6, 6).numpy() for row in range(5)]  # both channels of a row
    for layer in range(2):
        state, cell, states = np.zeros((6, 4)), np.zeros((6, 4)), []
        for row in rows:
            gates = row @ weights[f"lstm.weight_ih_l{layer}"].T + weights[f"lstm.bias_ih_l{layer}"]
            gates = gates + state @ weights[f"lstm.weight_hh_l{layer}"].T + weights[f"lstm.bias_hh_l{layer}"]
            enter, forget, new, leave = np.split(gates, 4, axis=1)
            cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
            state = sigmoid(leave) * np.tanh(cell)
            states.append(state)
        rows = states
    expected = rows[-1] @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(model(images).detach(), torch.from_numpy(expected))


def test_sizes() -> None:
    layers = 4 * (128 * (28 + 128) + 2 * 128) + 4 * (128 * (128 + 128) + 2 * 128)
    assert sum(parameter.numel() for parameter in row_lstm().parameters()) == layers + 128 * 10 + 10 == 214_282
    model = row_lstm((3, 8, 8), 5, 1, 4)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 4)
    assert model.input_shape == (3, 8, 8)


def test_a_seed_gives_one_network_with_xavier_uniform_matrices_and_no_biases() -> None:
    one, same, other = (row_lstm(generator=torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lstm.weight_hh_l0"], other["lstm.weight_hh_l0"])
    for name, tensor in one.items():
        bound = (6 / sum(tensor.shape)) ** 0.5 if tensor.ndim > 1 else 0.0
        assert 0.9 * bound <= tensor.abs().max() <= bound, name
