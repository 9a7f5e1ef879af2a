import numpy as np
import torch

from compress.models import mlp, mlp_autoencoder


def forward(layers: list[tuple[np.ndarray, np.ndarray, bool]], rows: np.ndarray) -> np.ndarray:
    """Affine maps in numpy, each with whether a ReLU follows."""
    for weight, bias, relu in layers:
        rows = rows @ weight.T + bias
        rows = np.maximum(rows, 0) if relu else rows
    return rows


def drawn(model: torch.nn.Module) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    for parameter in model.double().parameters():
        torch.nn.init.normal_(parameter)
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def test_an_mlp_has_a_relu_after_each_layer_but_the_last() -> None:
    model = mlp(3, (5, 4), 2)
    weights, rows = drawn(model), torch.randn(6, 3, dtype=torch.float64)
    layers = [(weights[f"dense.{n}.weight"], weights[f"dense.{n}.bias"], n != 4) for n in (0, 2, 4)]
    np.testing.assert_allclose(model(rows).detach().numpy(), forward(layers, rows.numpy()), rtol=1e-12)
    assert model.input_shape == (3,)


def test_the_latent_layer_of_an_autoencoder_is_linear_and_the_decoder_mirrors_the_encoder() -> None:
    model = mlp_autoencoder(3, (6, 5), 2)
    weights, rows = drawn(model), torch.randn(7, 3, dtype=torch.float64)
    names = {"encoder.0": True, "encoder.2": True, "latent": False, "decoder.0": True, "decoder.2": True}
    layers = [
        (weights[f"{name}.weight"], weights[f"{name}.bias"], relu)
        for name, relu in {**names, "decoder.4": False}.items()
    ]
    np.testing.assert_allclose(model(rows).detach().numpy(), forward(layers, rows.numpy()), rtol=1e-12)
    assert [weight.shape for weight, _, _ in layers] == [(6, 3), (5, 6), (2, 5), (5, 2), (6, 5), (3, 6)]


def test_a_seed_gives_one_network_with_xavier_uniform_weights_and_no_biases() -> None:
    one, same, other = (
        mlp(30, (64,), 2, generator=torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["dense.0.weight"], other["dense.0.weight"])
    for name, tensor in one.items():
        bound = (6 / sum(tensor.shape)) ** 0.5 if tensor.ndim > 1 else 0.0
        assert 0.9 * bound <= tensor.abs().max() <= bound, name
