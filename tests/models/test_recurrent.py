"""The row LSTM against the equations of its cell (Hochreiter & Schmidhuber, 1997; Gers, 1999) in numpy."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import compress
from compress.models import lstm_classifier, row_lstm


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


LENGTHS = [7, 1, 3, 7, 5]


def padded(fill: float) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    inputs = torch.randn(5, 7, 3)
    for row, length in zip(inputs, LENGTHS, strict=True):
        row[length:] = fill
    return {"inputs": inputs, "lengths": torch.tensor(LENGTHS)}


@pytest.mark.parametrize("layers", [1, 2])
def test_a_padded_series_gives_what_it_gives_alone_without_padding(layers: int) -> None:
    """torch's own packing, and each series in its own batch."""
    model = lstm_classifier(3, 6, layers, 4, generator=torch.Generator().manual_seed(0)).eval()
    given = padded(0)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        given["inputs"], given["lengths"], batch_first=True, enforce_sorted=False
    )
    found = model(**given)
    torch.testing.assert_close(found, model.head(model.lstm(packed)[1][0][-1]))
    for row, length in enumerate(LENGTHS):
        states, _ = model.lstm(given["inputs"][row : row + 1, :length])
        torch.testing.assert_close(found[row], model.head(states[0, -1]))
    assert torch.equal(found, model(**padded(100)))


def test_half_of_the_states_are_cut_and_the_onnx_file_has_both_inputs(tmp_path: Path) -> None:
    model = lstm_classifier(3, 6, 1, 4, generator=torch.Generator().manual_seed(0)).eval()
    example = padded(0)
    pruner = compress.Pruner(
        model, compress.nodes("lstm"), sparsity=0.5, criterion="norms", removal=compress.Hard(), example=example
    )
    pruner.finalize()
    small = compress.slim(model, example)
    assert small.lstm.hidden_size == 3
    torch.testing.assert_close(small(**padded(100)), model(**padded(100)))
    compress.export.onnx(small, tmp_path / "small.onnx", example)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    assert [given.name for given in session.get_inputs()] == ["inputs", "lengths"]
    rows = {name: tensor[1:3].numpy() for name, tensor in padded(100).items()}  # another batch, other lengths
    (logits,) = session.run(None, rows)
    np.testing.assert_allclose(logits, model(**padded(0))[1:3].detach().numpy(), atol=1e-6)
