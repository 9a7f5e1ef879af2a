import numpy as np
from torch import nn

from compress.select.criteria.scaled_magnitude import fan_in, scaled_magnitude


def test_scaled_magnitude_by_fan_in():
    for module, inputs in (
        (nn.Linear(7, 3), 7),
        (nn.Conv2d(4, 6, (3, 2), groups=2), 2 * 6),
        (nn.ConvTranspose2d(4, 6, (3, 2), groups=2), 2 * 6),
        (nn.ConvTranspose1d(5, 2, 3), 5 * 3),
    ):
        assert fan_in(module, module.weight) == inputs
        assert fan_in(module, module.bias) == 1
        expected = np.abs(module.weight.detach().numpy()) * np.sqrt(inputs)
        np.testing.assert_allclose(scaled_magnitude(module.weight, inputs).numpy(), expected, rtol=1e-6)
        if not isinstance(module, nn.modules.conv._ConvTransposeNd):
            np.testing.assert_allclose(scaled_magnitude(module.weight).numpy(), expected, rtol=1e-6)
