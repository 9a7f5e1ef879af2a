"""Shaping against formulas in numpy and brute force, and a network whose latent space it empties and fills."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compress
from compress.batches import Attributed
from compress.errors import CompressError, InputError, TargetError
from compress.train.independence import dependence, whitened
from compress.train.latents import codes
from compress.train.probes import probe
from compress.train.shaping import Shaping

RANDOM = torch.Generator().manual_seed(0)
LABEL, TINT = torch.randint(3, (2000,), generator=RANDOM), torch.randint(2, (2000,), generator=RANDOM)
INPUTS = torch.cat([F.one_hot(LABEL, 3), F.one_hot(TINT, 2), torch.zeros(2000, 3)], 1).float()
INPUTS = INPUTS + 0.1 * torch.randn(2000, 8, generator=RANDOM)
ATTRIBUTES = {"label": LABEL, "tint": TINT}
CLASSES = {"label": 3, "tint": 2}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
        self.latent = nn.Linear(16, 6)
        self.decoder = nn.Linear(6, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.decoder(self.latent(self.encoder(inputs)).tanh())
        return found


def pruner_of(model: nn.Module, target: Any = None, **changes: Any) -> compress.Pruner:
    how = {"sparsity": 0.5, "example": INPUTS[:2], "removal": compress.Soft(steps=40), **changes}
    return compress.Pruner(model, compress.nodes("latent") if target is None else target, **how)


def trained(
    model: nn.Module, pruner: compress.Pruner, shaping: Shaping | None, steps: int = 300, completes: bool = False
) -> None:
    optimizer, generator = torch.optim.Adam(model.parameters(), 1e-2), torch.Generator().manual_seed(1)
    for _ in range(steps):
        rows = torch.randint(len(INPUTS), (128,), generator=generator)
        output, attributes = model(INPUTS[rows]), {name: classes[rows] for name, classes in ATTRIBUTES.items()}
        if shaping is not None and completes:
            output = shaping.completed(output, attributes)
        loss = F.mse_loss(output, INPUTS[rows])
        if shaping is not None:
            loss = loss + shaping.loss(attributes)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if shaping is not None:
            shaping.step()
        pruner.step()
    pruner.finalize()
    model.eval()


def accuracy(model: nn.Module, layer: str, name: str, hidden: int | None) -> float:
    train, test = (
        codes(model, layer, [(INPUTS[rows], Attributed(None, {name: ATTRIBUTES[name][rows]}))])
        for rows in (slice(1000), slice(1000, None))
    )
    return probe(train, test, name, hidden=hidden)


# --- what it does ---


def test_a_latent_space_holds_what_is_kept_and_not_what_is_dropped() -> None:
    for shaped in (False, True):
        torch.manual_seed(0)
        model = Network()
        pruner = pruner_of(model)
        if shaped:
            with Shaping(pruner, keep={"label": 0.1}, drop={"tint": 0.2}, classes=CLASSES) as shaping:
                trained(model, pruner, shaping)
        else:
            trained(model, pruner, None)
        small = compress.slim(model, INPUTS[:2])
        assert small.latent.out_features == 3
        assert [name.split(".")[0] for name, _ in small.named_modules() if "." not in name][1:] == [
            "encoder",
            "latent",
            "decoder",
        ]
        linear, two_layer = (accuracy(small, "latent", "tint", hidden) for hidden in (None, 64))
        if shaped:
            assert max(linear, two_layer) < 0.56
            assert accuracy(small, "latent", "label", None) > 0.97
        else:
            assert two_layer > 0.9


def test_a_kept_attribute_is_told_by_a_line_that_reconstruction_alone_does_not_draw() -> None:
    found = []
    for keep in ({}, {"tint": 0.3}):
        torch.manual_seed(0)
        model = Network()
        pruner = pruner_of(model, sparsity=0.8, removal=compress.Hard())  # one node is left
        with Shaping(pruner, keep=keep, drop={} if keep else {"tint": 0.3}, classes=CLASSES) as shaping:
            trained(model, pruner, shaping)
        found.append(accuracy(compress.slim(model, INPUTS[:2]), "latent", "tint", None))
    assert found[0] < 0.58
    assert found[1] > 0.95


def test_completed_outputs_take_less_to_drop_an_attribute() -> None:
    """With a weak term: the codes do not need the attribute, and outputs become the mean over it, which is known."""
    found = {}
    for completes in (False, True):
        torch.manual_seed(0)
        model = Network()
        pruner = pruner_of(model)
        with Shaping(pruner, drop={"tint": 0.02}, classes=CLASSES) as shaping:
            trained(model, pruner, shaping, 600, completes)
        mean = torch.cat([INPUTS[:, :3], torch.full((2000, 2), 0.5), torch.zeros(2000, 3)], 1)
        with torch.no_grad():
            apart = float(F.mse_loss(model(INPUTS), mean))
        found[completes] = apart, accuracy(model, "latent", "tint", 64)
    assert found[True][0] < 0.7 * found[False][0]
    assert found[True][1] < 0.6 < found[False][1]


# --- the terms ---


def test_dependence_is_the_mean_over_all_quadruples() -> None:
    white, classes = torch.randn(7, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 0, 0])
    far = ((white[:, None] - white[None]) ** 2).sum(2).numpy() / (2 * 2)
    k = (white @ white.T).numpy() + 3 * (np.exp(-far / 0.25) + np.exp(-far))
    same = (classes[:, None] == classes[None]).numpy().astype(float)
    terms = [k[i, j] * (same[i, j] + same[q, r] - 2 * same[i, q]) for i, j, q, r in permutations(range(7), 4)]
    np.testing.assert_allclose(float(dependence(white, classes)), np.mean(terms), rtol=1e-10)


def test_dependence_is_zero_in_the_mean_of_independent_batches_and_positive_otherwise() -> None:
    generator = torch.Generator().manual_seed(2)
    values = [
        float(dependence(torch.randn(20, 3, generator=generator), torch.randint(2, (20,), generator=generator)))
        for _ in range(400)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20
    sign = torch.where(torch.randn(1000, 1, generator=generator) > 0, 1.0, -1.0)
    other = torch.where(torch.randn(1000, 1, generator=generator) > 0, 1.0, -1.0)
    product = ((sign * other).flatten() > 0).long()  # no linear function of the two signs depends on it
    assert float(dependence(torch.cat([sign, other], 1), product)) > 0.1
    assert float(dependence(torch.randn(3, 2), torch.tensor([0, 1, 0]))) == 0


def test_whitened_codes_have_the_identity_as_their_covariance_in_directions_of_any_variance() -> None:
    mixed = torch.randn(5000, 3, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.5])
    white = whitened(mixed @ torch.randn(3, 3, dtype=torch.float64) + 5)
    np.testing.assert_allclose(np.cov(white.T.numpy(), bias=True), np.eye(3), atol=0.05)
    np.testing.assert_allclose(white.mean(0).numpy(), 0, atol=1e-9)
    assert whitened(torch.ones(4, 2)).abs().max() == 0


def test_the_terms_are_the_weighted_sum_of_their_formulas() -> None:
    model, rows = Network(), slice(64)
    pruner = pruner_of(model, keep={"latent": torch.tensor([True, False, True, True, False, True])}, sparsity=None)
    kept = [0, 2, 3, 5]
    with Shaping(pruner, keep={"label": 0.3}, drop={"tint": 0.7}, classes=CLASSES) as shaping:
        seen: list[Tensor] = []
        model.latent.register_forward_hook(lambda module, args, output: seen.append(output))
        model(INPUTS[rows])
        value = shaping.loss({name: classes[rows] for name, classes in ATTRIBUTES.items()})
        head, adversary = shaping._heads.modules[0], shaping._adversaries.modules[0]
        z = seen[0].detach()
        apart = z.double().numpy()[:, kept] - z.double().numpy()[:, kept].mean(0)
        weight, bias = head.weight.detach().double().numpy()[:, kept], head.bias.detach().double().numpy()
        said_by_head = apart / np.sqrt((apart**2).mean()) @ weight.T + bias
        logits = said_by_head - np.log(np.exp(said_by_head).sum(1, keepdims=True))
        own = -logits[np.arange(64), LABEL[rows].numpy()].mean()
        white = torch.zeros_like(z)
        white[:, kept] = whitened(z[:, kept])
        said = adversary(white).double().log_softmax(1).detach().numpy()
        share = np.bincount(TINT[rows].numpy()) / 64
        learned = -(share * np.log(share)).sum() + said[np.arange(64), TINT[rows].numpy()].mean()
        dropped = learned + float(dependence(white, TINT[rows]))
    assert value.item() == pytest.approx(0.3 * own + 0.7 * dropped, rel=1e-4)


def test_what_is_kept_does_not_depend_on_the_scale_of_the_codes() -> None:
    model = Network()
    attributes = {name: classes[:64] for name, classes in ATTRIBUTES.items()}
    with Shaping(pruner_of(model), keep={"label": 1.0}, classes=CLASSES) as shaping:
        model(INPUTS[:64])
        before = shaping.loss(attributes)
        with torch.no_grad():
            model.latent.weight_orig *= 10
            model.latent.bias_orig += 3
        model(INPUTS[:64])
        assert shaping.loss(attributes).item() == pytest.approx(before.item(), rel=1e-4)
        with torch.no_grad():
            model.latent.weight_orig.zero_()  # the codes of all samples are equal
        model(INPUTS[:64])
        shaping.loss(attributes).backward()
        gradient = model.latent.weight_orig.grad
        assert gradient is not None
        assert torch.isfinite(gradient).all()


def test_nodes_that_are_going_neither_teach_the_head_nor_are_they_emptied() -> None:
    model = Network()
    keep = torch.tensor([True] * 3 + [False] * 3)
    pruner = pruner_of(model, keep={"latent": keep}, sparsity=None)
    with Shaping(pruner, keep={"label": 1.0}, drop={"tint": 1.0}, classes=CLASSES) as shaping:
        model(INPUTS[:64])
        shaping.loss({name: classes[:64] for name, classes in ATTRIBUTES.items()}).backward()
    gradient = model.latent.weight_orig.grad
    assert gradient is not None
    assert gradient[keep].abs().sum() > 0
    assert gradient[~keep].abs().sum() == 0


# --- its state ---


def test_a_loaded_state_goes_on_with_the_same_bits() -> None:
    torch.manual_seed(0)
    model = Network()
    pruner = pruner_of(model)
    batch = {name: classes[:100] for name, classes in ATTRIBUTES.items()}

    def step(shaping: Shaping) -> float:
        loss = F.mse_loss(shaping.completed(model(INPUTS[:100]), batch), INPUTS[:100]) + shaping.loss(batch)
        loss.backward()
        shaping.step()
        return float(loss.detach())

    with Shaping(pruner, keep={"label": 0.1}, drop={"tint": 0.1}, classes=CLASSES) as first:
        for _ in range(3):
            step(first)
        saved = {key: torch.utils._pytree.tree_map(_kept, value) for key, value in first.state_dict().items()}
        expected = [step(first) for _ in range(3)]
    with Shaping(pruner, keep={"label": 0.1}, drop={"tint": 0.1}, classes=CLASSES, seed=5) as second:
        second.load_state_dict(saved)
        assert [step(second) for _ in range(3)] == expected


def _kept(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def test_it_leaves_the_network_and_the_random_numbers_alone() -> None:
    model = Network()
    pruner = pruner_of(model)
    names, hooks, before = list(model.state_dict()), len(model.latent._forward_hooks), torch.get_rng_state()
    shaping = Shaping(pruner, drop={"tint": 0.1}, classes=CLASSES)
    model(INPUTS[:10])
    shaping.loss({"tint": TINT[:10]})
    assert torch.equal(torch.get_rng_state(), before)
    assert list(model.state_dict()) == names
    shaping.close()
    assert len(model.latent._forward_hooks) == hooks
    model(INPUTS[:10])
    with pytest.raises(InputError, match="there was no forward pass of 'latent' in training mode"):
        shaping.loss({"tint": TINT[:10]})


# --- mistakes ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "found neither keep nor drop"),
        ({"keep": {"label": 0.0}}, r"keep\['label'\]: found 0.0; expected a number above 0"),
        ({"drop": {"tint": -1}}, r"drop\['tint'\]: found -1; expected a number above 0"),
        ({"keep": {"tint": 1.0}, "drop": {"tint": 1.0}}, "'tint' is in keep and in drop"),
        ({"keep": {"labels": 1.0}}, "classes: 'labels' is missing; did you mean label"),
        ({"keep": {"one": 1.0}}, r"classes\['one'\]: found 1; expected a whole number at least 2"),
    ],
)
def test_options_that_are_wrong_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Shaping(pruner_of(Network()), classes={**CLASSES, "one": 1}, **changes)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "attributes: 'tint' is missing; found none"),
        ({"tint": TINT[:9]}, r"'tint' is torch.int64 of shape \[9\]; expected a whole number for each of the 10"),
        ({"tint": TINT[:10].float()}, "'tint' is torch.float32"),
        ({"tint": TINT[:10] + 1}, "'tint' has the class 2; expected 0 to 1"),
        ({"tint": TINT[:10] - 1}, "'tint' has the class -1; expected 0 to 1"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(attributes: dict[str, Tensor], message: str) -> None:
    model = Network()
    with Shaping(pruner_of(model), drop={"tint": 1.0}, classes=CLASSES) as shaping:
        model(INPUTS[:10])
        with pytest.raises(InputError, match=message):
            shaping.loss(attributes)


def test_an_output_of_another_shape_is_refused() -> None:
    model = Network()
    with Shaping(pruner_of(model), drop={"tint": 1.0}, classes=CLASSES) as shaping:
        output = model(INPUTS[:10])
        shaping.completed(output, {"tint": TINT[:10]})
        with pytest.raises(InputError, match=r"output: found the shape \[10, 7\]; .* as in the first output, 8"):
            shaping.completed(output[:, :7], {"tint": TINT[:10]})


def _weights() -> object:
    return compress.Pruner(Network(), compress.weights("latent.*"), sparsity=0.5)


def _layers() -> object:
    return pruner_of(Network(), compress.nodes("*"))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (_weights, InputError, "the pruner prunes weights; a latent space is made of nodes"),
        (_layers, TargetError, r"the target has the nodes of several layers \(encoder.0, latent\)"),
        (Network, InputError, "pruner: found .*; expected a compress.Pruner"),
    ],
)
def test_what_is_no_latent_space_is_refused(make: Callable[[], Any], kind: type[CompressError], message: str) -> None:
    with pytest.raises(kind, match=message):
        Shaping(make(), drop={"tint": 1.0}, classes=CLASSES)


def test_outputs_with_positions_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))
    pruner = compress.Pruner(model, compress.nodes("0"), sparsity=0.5, example=torch.rand(2, 1, 6, 6))
    with Shaping(pruner, drop={"tint": 1.0}, classes=CLASSES), pytest.raises(TargetError, match=r"nodes of a latent"):
        model(torch.rand(2, 1, 6, 6))
