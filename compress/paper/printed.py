"""The figures that the paper prints: Tables I and II, and those in its text.

Menzies & Siebert, "Soft Pruning and Latent Space Dimensionality Reduction". Accuracies in percent, losses in 10^-3;
keys are the method and then the pruned share.
"""

from collections.abc import Mapping

Lines = Mapping[str, Mapping[float, float]]

TABLE_I: Mapping[str, Lines] = {
    "mnist": {
        "hard": {0.90: 79.9, 0.95: 10.4, 0.97: 10.4},
        "retrained": {0.90: 86.1, 0.95: 10.4, 0.97: 10.4},
        "soft": {0.90: 85.9, 0.95: 72.3, 0.97: 62.3},
    },
    "fashion_mnist": {
        "hard": {0.90: 68.4, 0.95: 10.0, 0.97: 10.0},
        "retrained": {0.90: 79.3, 0.95: 10.0, 0.97: 10.0},
        "soft": {0.90: 79.1, 0.95: 47.8, 0.97: 37.0},
    },
    "cifar10": {
        "hard": {0.90: 30.3, 0.95: 10.0, 0.97: 10.0},
        "retrained": {0.90: 48.1, 0.95: 10.0, 0.97: 10.0},
        "soft": {0.90: 47.7, 0.95: 37.4, 0.97: 35.4},
    },
}

TABLE_II: Mapping[str, Lines] = {
    "mnist": {
        "hard": {0.25: 5.70, 0.50: 11.52, 0.75: 17.56},
        "retrained": {0.25: 2.21, 0.50: 2.69, 0.75: 3.73},
        "soft": {0.25: 2.02, 0.50: 2.15, 0.75: 2.20},
    },
    "fashion_mnist": {
        "hard": {0.25: 8.15, 0.50: 15.9, 0.75: 22.9},
        "retrained": {0.25: 3.34, 0.50: 3.80, 0.75: 4.58},
        "soft": {0.25: 3.23, 0.50: 3.37, 0.75: 3.47},
    },
    "cifar10": {
        "hard": {0.25: 13.08, 0.50: 19.06, 0.75: 25.91},
        "retrained": {0.25: 7.41, 0.50: 8.79, 0.75: 11.86},
        "soft": {0.25: 6.77, 0.50: 8.18, 0.75: 10.66},
    },
}

# Section V: by how much soft pruning lowers the loss of hard pruning with retraining, at most, in percent.
DECODER_GAIN: Mapping[str, float] = {"mnist": 9.2, "fashion_mnist": 16.7, "cifar10": 17.0}
# Section VI: the same for the latent space, and the rise over the dense network at 95 % (soft, then hard).
LATENT_GAIN: Mapping[str, float] = {"mnist": 60.9, "fashion_mnist": 35.8, "cifar10": 20.7}
LATENT_RISE: Mapping[str, tuple[float, float]] = {"mnist": (8.4, 154.0), "fashion_mnist": (8.3, 90.0)}
