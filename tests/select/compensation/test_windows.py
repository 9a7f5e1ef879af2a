"""Rows are drawn from all samples, and a fit on them is numpy's least squares on the same windows."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from compress.graph.coupling import couplings, masks_of
from compress.select.compensate import compensate
from compress.select.compensation import windows
from compress.select.compensation.calls import calls_of


def drawn(count, most):
    return windows._drawn(count, most, torch.Generator().manual_seed(0), torch.device("cpu"))


@pytest.mark.parametrize(("count", "most"), [(7, 7), (7, 20), (0, 5)])
def test_all_rows_are_looked_at_where_there_are_no_more(count, most):
    assert drawn(count, most).tolist() == list(range(count))


def test_rows_are_drawn_from_equal_parts():
    """Of 1000 rows the 25 of each sample: no sample has more than another."""
    found = drawn(40 * 1000, 1000)
    assert (found // 1000).bincount().tolist() == [25] * 40
    assert (found // 40).tolist() == list(range(1000))
    assert 15 < float((found % 40).double().mean()) < 25  # anywhere in its part


def test_a_layer_with_many_windows_is_fitted_to_those_that_are_drawn(monkeypatch):
    """The windows are cut out one by one, of inputs with zeros around."""
    monkeypatch.setattr("compress.select.compensation.fit.RIDGE", 1e-5)
    monkeypatch.setattr("compress.select.compensate.ROWS", 300)
    monkeypatch.setattr("compress.select.compensate.ROWS_PER_ENTRY", 0)
    places = []

    def noted(count, most, chance, device):
        places.append(drawn_by(count, most, chance, device))
        return places[-1]

    drawn_by = windows._drawn
    monkeypatch.setattr(windows, "_drawn", noted)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Tanh(), nn.Conv2d(6, 5, (3, 2), stride=(2, 1), padding=(1, 0))).eval()
    data = [torch.randn(10, 2, 9, 8) for _ in range(2)]
    keep = {couplings(model, data[0]).of("0"): torch.arange(6) % 3 > 0}
    masks, adjusted, traces = masks_of(model, keep), copy.deepcopy(model), {}
    compensate(adjusted, masks, calls_of(adjusted, data, traces), traces)
    # Inputs and outputs of each batch, of the second layer: the first one reads what it read, and is not fitted.
    assert [len(one) for one in places] == [150] * 4
    assert all(torch.equal(*pair) for pair in (places[:2], places[2:]))
    rows, wanted = [], []
    with torch.no_grad():
        for inputs, chosen in zip(data, places[::2], strict=True):
            nodes, outputs = model[:2](inputs), model(inputs)
            padded = np.pad(nodes.double().numpy(), ((0, 0), (0, 0), (1, 1), (0, 0)))
            for sample, y, x in zip(*np.unravel_index(chosen.numpy(), (10, *outputs.shape[2:])), strict=True):
                window = padded[sample, :, 2 * y : 2 * y + 3, x : x + 2][masks["0.bias"].numpy()]
                rows.append([*window.flatten(), 1.0])
                wanted.append(outputs[sample, :, y, x].double().numpy())
    best = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    found = adjusted[2].weight.detach()[:, masks["0.bias"]].flatten(1).numpy()
    np.testing.assert_allclose(found, best[:-1].T, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(adjusted[2].bias.detach().numpy(), best[-1], rtol=1e-3, atol=1e-3)
