import numpy as np
import pytest
import torch

from compress.select.criteria.lamp import lamp


@pytest.mark.parametrize("weight", [torch.randn(4, 5), torch.randint(-2, 3, (6, 3, 2)).float(), torch.zeros(3)])
def test_lamp_by_its_definition(weight):
    flat = weight.double().numpy().ravel()
    expected = [w**2 / sum(v**2 for v in flat if abs(v) >= abs(w)) if w else 0.0 for w in flat]
    score = lamp(weight)
    assert score.shape == weight.shape
    np.testing.assert_allclose(score.numpy().ravel(), expected, rtol=1e-12)
