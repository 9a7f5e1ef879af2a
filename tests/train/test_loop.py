import copy
import io
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import DivergedError, InputError, TargetError
from compress.remove.masks import SoftPruningMethod
from compress.train.divergence import broken_weights
from compress.train.loop import Loop, only_trainable, train
from compress.train.optimization import Optimization, Optimizer

INPUTS = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])


class Samples:
    """Seven batches of `INPUTS`, shuffled by the generator."""

    def __len__(self) -> int:
        return 7

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(50, generator=generator).split(8)[skip:]:
            yield INPUTS[rows], TARGETS[rows]


SIZES = [8, 8, 8, 8, 8, 8, 2]
"""Of the batches of an epoch."""


def epoch_means(losses: Sequence[float]) -> list[float]:
    """Over the samples: the last batch of an epoch is a quarter of the others."""
    epochs = [losses[start : start + 7] for start in range(0, len(losses), 7)]
    return [float(np.average(epoch, weights=SIZES[: len(epoch)])) for epoch in epochs]


class Recorder(Samples):
    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in super().__call__(generator, skip):
            self.seen.append(inputs)
            yield inputs, targets


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Both:
    """Muon for the matrices and AdamW for the biases, as one optimizer."""

    def __init__(self, model: nn.Module, **settings: float) -> None:
        matrices, biases = ([p for p in model.parameters() if (p.dim() == 2) == two] for two in (True, False))
        self.muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **settings)  # type: ignore[arg-type]
        self.adamw = torch.optim.AdamW(biases, fused=True, **settings)  # type: ignore[arg-type]
        self.param_groups = self.muon.param_groups + self.adamw.param_groups

    def zero_grad(self) -> None:
        self.muon.zero_grad()
        self.adamw.zero_grad()

    def step(self) -> None:
        self.muon.step()
        self.adamw.step()


def plain_loop(
    model: nn.Module,
    steps: int,
    optimizer: torch.optim.Optimizer | Both,
    rates: list[float],
    precision: torch.dtype = torch.float32,
) -> list[float]:
    generator, losses = seeded(), []
    while len(losses) < steps:
        for inputs, targets in Samples()(generator):
            if len(losses) == steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = rates[len(losses)]
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                loss = F.mse_loss(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_it_is_a_plain_loop_to_the_last_bit(name: Optimizer, kind: type[torch.optim.Optimizer]) -> None:
    ours, plain = network(), network()
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    settings = Optimization(name, lr=0.01, momentum=0.9, weight_decay=0.1)
    # Fused updates round differently from the others, and are what is asked for.
    optimizer = kind(plain.parameters(), lr=0.01, weight_decay=0.1, fused=True, **momentum)  # type: ignore[call-arg]
    losses = plain_loop(plain, 17, optimizer, [0.01] * 17)
    shown: list[tuple[int, float, float, int]] = []
    result = train(
        ours,
        Samples(),
        F.mse_loss,
        17,
        settings,
        generator=seeded(),
        on_step=lambda *told: shown.append(told),
    )
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))
    rows = [SIZES[step % 7] for step in range(17)]
    assert shown == [(step, loss, 0.01, size) for step, (loss, size) in enumerate(zip(losses, rows, strict=True), 1)]
    assert result.steps == 17
    assert result.losses == pytest.approx(epoch_means(losses), rel=1e-12)


def test_muon_is_torchs_own_for_matrices_and_adamw_for_the_rest_to_the_last_bit() -> None:
    ours, plain = network(), network()
    losses = plain_loop(plain, 17, Both(plain, lr=0.01, weight_decay=0.1), [0.01] * 17)
    settings = Optimization("muon", lr=0.01, weight_decay=0.1)
    result = train(ours, Samples(), F.mse_loss, 17, settings, generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))
    assert result.losses == pytest.approx(epoch_means(losses), rel=1e-12)


def test_muon_without_matrices_or_without_anything_else() -> None:
    for kept in ("weight", "bias"):
        ours, plain = network(), network()
        for model in (ours, plain):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.endswith(kept))
        both = Both(plain, lr=0.01, weight_decay=0.0)
        plain_loop(plain, 3, both, [0.01] * 3)
        train(ours, Samples(), F.mse_loss, 3, Optimization("muon", lr=0.01), generator=seeded())
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))


def test_the_schedule_is_that_of_both_optimizers_of_muon() -> None:
    ours, plain, steps = network(), network(), 12
    rates = [0.05 * (1 - t / steps) * min(1.0, (t + 1) / 4) for t in range(steps)]
    plain_loop(plain, steps, Both(plain, lr=0.05, weight_decay=0.1), rates)
    settings = Optimization("muon", 0.05, weight_decay=0.1, lr_schedule="linear", warmup=0.25)
    train(ours, Samples(), F.mse_loss, steps, settings, generator=seeded())
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_a_plain_loop_under_autocast_to_the_last_bit() -> None:
    ours, plain, full = network(), network(), network()
    for model, precision in ((plain, torch.bfloat16), (full, torch.float32)):
        plain_loop(model, 10, torch.optim.SGD(model.parameters(), fused=True), [0.05] * 10, precision)
    seen = []
    ours[1].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    settings = Optimization("sgd", 0.05, precision="bfloat16")
    train(ours, Samples(), F.mse_loss, 10, settings, generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))
    assert not torch.equal(ours[0].weight, full[0].weight)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}


def test_the_last_epoch_may_end_in_its_middle_and_no_step_is_none() -> None:
    recorder, done = Recorder(), []
    result = train(
        network(),
        recorder,
        F.mse_loss,
        9,
        Optimization(),
        generator=seeded(),
        after_step=lambda step: done.append(step),
    )
    assert done == list(range(1, 10))
    assert len(recorder.seen) == 9
    assert len(result.losses) == 2
    model = network()
    before = copy.deepcopy(model.state_dict())
    assert train(model, Samples(), F.mse_loss, 0, Optimization(), generator=seeded()).losses == []
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_order_hangs_on_the_generator_alone() -> None:
    orders = []
    for seed, everybody in ((0, 1), (0, 2), (3, 1)):
        recorder = Recorder()
        model = network()
        torch.manual_seed(everybody)
        train(model, recorder, F.mse_loss, 14, Optimization(), generator=seeded(seed))
        orders.append(torch.cat(recorder.seen))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0][:50], orders[0][50:]), "every epoch has an order of its own"


def test_after_step_comes_between_the_update_and_on_step() -> None:
    model, events = network(), []
    before = model[0].weight.detach().clone()

    def after_step(step: int) -> None:
        events.append(("after", step, torch.equal(before, model[0].weight)))

    train(
        model,
        Samples(),
        F.mse_loss,
        1,
        Optimization(),
        generator=seeded(),
        after_step=after_step,
        on_step=lambda step, value, lr, rows: events.append(("on", step, math.isfinite(value))),
    )
    assert events == [("after", 1, False), ("on", 1, True)]


def test_a_diverging_training_says_at_which_step_and_goes_back() -> None:
    model = network()
    healthy = Optimization("sgd", 0.01)
    train(model, Samples(), F.mse_loss, 7, healthy, generator=seeded())
    good = copy.deepcopy(model.state_dict())

    def broken_from(step: int) -> object:
        calls = iter(range(1, 100))

        def loss(output: Tensor, target: Tensor) -> Tensor:
            return F.mse_loss(output, target) * (math.inf if next(calls) >= step else 1.0)

        return loss

    with pytest.raises(
        DivergedError, match=r"loss became inf at step 3 of 21; the weights of step 0, .*rate below 0.01"
    ):
        train(model, Samples(), broken_from(3), 21, healthy, generator=seeded())  # type: ignore[arg-type]
    assert all(torch.equal(good[name], tensor) for name, tensor in model.state_dict().items())
    # The first loss of the third epoch is broken, so the second has already gone wrong: back to its start.
    with pytest.raises(DivergedError, match=r"at step 15 of 21; the weights of step 7,"):
        train(model, Samples(), broken_from(15), 21, healthy, generator=seeded())  # type: ignore[arg-type]
    model.load_state_dict(good)
    with pytest.raises(DivergedError, match=r"at step 16 of 21; the weights of step 14,"):
        train(model, Samples(), broken_from(16), 21, healthy, generator=seeded())  # type: ignore[arg-type]


def test_only_trainable_freezes_the_rest_and_gives_back_what_it_found() -> None:
    model = network()
    model[2].bias.requires_grad_(False)
    with only_trainable(model, ["2.*"]):
        assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, True, False]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, True, True, False]
    with pytest.raises(TargetError, match=r"the pattern 'nothing.\*' matches no parameter; there is 0.weight, 0.bias"):
        only_trainable(model, ["0.*", "nothing.*"]).__enter__()
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, True, True, False]


def test_only_trainable_knows_parameters_under_masks_by_their_names() -> None:
    model = network()
    torch.nn.utils.prune.l1_unstructured(model[0], "weight", 3)
    with only_trainable(model, ["0.weight"]):
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        assert trained == ["0.weight_orig"]
    with pytest.raises(TargetError, match=r"there is 0\.bias, 0\.weight, 2\.weight"), only_trainable(model, ["1.*"]):
        pass


def test_gradients_of_an_earlier_life_do_not_count() -> None:
    fresh, used = network(), network()
    F.mse_loss(used(INPUTS), TARGETS).backward()
    for model in (fresh, used):
        train(model, Samples(), F.mse_loss, 1, Optimization("sgd", 0.1), generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), used.parameters(), strict=True))


def test_nothing_to_train_is_refused() -> None:
    model = network().requires_grad_(False)
    with pytest.raises(InputError, match="no parameter of the model requires a gradient"):
        train(model, Samples(), F.mse_loss, 1, Optimization(), generator=seeded())


def broken(inputs: Tensor | None = None, targets: Tensor | None = None) -> type[Samples]:
    """Samples whose batches have other inputs or targets."""

    class Broken(Samples):
        def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
            for found, target in super().__call__(generator, skip):
                yield found if inputs is None else found * inputs, target if targets is None else target * targets

    return Broken


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (broken(inputs=torch.tensor(math.nan)), "where the inputs of the batch are not finite; .*: look at the data"),
        (broken(targets=torch.tensor(math.inf)), "where the targets of the batch are not finite; .*: look at the data"),
    ],
)
def test_data_that_are_not_finite_are_named(batches: type[Samples], message: str) -> None:
    with pytest.raises(DivergedError, match=message):
        train(network(), batches(), F.mse_loss, 3, Optimization(), generator=seeded())


def test_weights_that_are_not_finite_are_named_by_the_names_without_masks() -> None:
    model = network()

    def after_step(step: int) -> None:
        if step == 2:
            model[2].bias.data.fill_(math.nan)

    settings = Optimization("sgd", 0.01)
    with pytest.raises(DivergedError, match=r"became nan at step 3 of 9, where 2\.bias had become not finite; .*below"):
        train(model, Samples(), F.mse_loss, 9, settings, generator=seeded(), after_step=after_step)
    SoftPruningMethod.apply(model[0], "weight", torch.ones(6, 4, dtype=torch.bool))
    model[0].weight_orig.data[0, 0] = math.inf
    assert broken_weights(model) == ["0.weight"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
def test_gradients_that_are_not_finite_end_it_at_the_next_step(optimizer: Optimizer) -> None:
    """The loss is finite, and its derivative is not: that of a root at zero."""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (0 * output).abs().sqrt().sum()

    model = network()
    good = copy.deepcopy(model.state_dict())
    with pytest.raises(DivergedError, match=r"became nan at step 2 of 9, where 0\.weight and 3 more had become not"):
        train(model, Samples(), loss, 9, Optimization(optimizer), generator=seeded())
    assert all(torch.equal(good[name], tensor) for name, tensor in model.state_dict().items())


def test_the_first_layer_whose_output_is_not_finite_is_named() -> None:
    class Blow(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * math.inf

    model = nn.Sequential(nn.Linear(4, 6), Blow(), nn.Linear(6, 1))
    with pytest.raises(DivergedError, match=r"where the output of 1 \(Blow\) is not finite; .* rate below 0\.5"):
        train(model, Samples(), F.mse_loss, 3, Optimization(lr=0.5), generator=seeded())
    assert all(not module._forward_hooks for module in model.modules())


def test_the_last_step_may_not_leave_anything_broken() -> None:
    model = network()
    good = copy.deepcopy(model.state_dict())

    def after_step(step: int) -> None:
        if step == 3:
            model[0].weight.data[0, 0] = math.nan

    with pytest.raises(DivergedError, match=r"the last step, 3, left NaN or infinite values in 0\.weight; .* step 0"):
        train(model, Samples(), F.mse_loss, 3, Optimization(), generator=seeded(), after_step=after_step)
    assert all(torch.equal(good[name], tensor) for name, tensor in model.state_dict().items())


class LeftError(Exception):
    """The loop was left."""


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
@pytest.mark.parametrize("left", [1, 6, 7, 8, 16, 17])
def test_a_loop_that_was_left_is_gone_on_with_to_the_last_bit(optimizer: Optimizer, left: int) -> None:
    settings = Optimization(optimizer, 0.01, momentum=0.9, lr_schedule="cosine", warmup=0.3)

    def noisy() -> nn.Sequential:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 1))

    whole = noisy()
    expected = train(whole, Samples(), F.mse_loss, 17, settings, generator=seeded())
    model = noisy()
    kept, loops = io.BytesIO(), list[Loop]()

    def on_step(step: int, value: float, lr: float, rows: int) -> None:
        if step == left:
            torch.save((model.state_dict(), loops[0].state_dict()), kept)
            raise LeftError

    with pytest.raises(LeftError):
        train(model, Samples(), F.mse_loss, 17, settings, generator=seeded(), on_step=on_step, on_start=loops.append)
    kept.seek(0)
    weights, state = torch.load(kept, weights_only=True)
    other = noisy()
    other.load_state_dict(weights)
    torch.manual_seed(99)
    found = train(
        other,
        Samples(),
        F.mse_loss,
        17,
        settings,
        generator=seeded(5),
        on_start=lambda loop: loop.load_state_dict(state),
    )
    assert found == expected
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), whole.state_dict().values(), strict=True))
