import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import compress
from compress.errors import InputError


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(3 * 16, 4), nn.BatchNorm1d(4)).eval()


def batches(*sizes: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(size, 1, 6, 6, generator=generator), torch.zeros(size)) for size in sizes]


def test_statistics_are_weighted_means_of_the_batches() -> None:
    model, data = network(), batches(8, 4)
    compress.recalibrate(model, data)
    found = [model[0](images) for images, _ in data]
    means = [output.mean((0, 2, 3)) for output in found]
    variances = [output.transpose(0, 1).flatten(1).var(1) for output in found]
    assert torch.allclose(model[1].running_mean, (8 * means[0] + 4 * means[1]) / 12, atol=1e-6)
    assert torch.allclose(model[1].running_var, (8 * variances[0] + 4 * variances[1]) / 12, atol=1e-6)
    assert model[1].num_batches_tracked == 2


def test_a_norm_gets_what_normed_layers_before_it_give() -> None:
    model, data = network(), batches(16)
    compress.recalibrate(model, data)
    normed = nn.functional.batch_norm(model[0](data[0][0]), None, None, model[1].weight, model[1].bias, training=True)
    outputs = model[5](normed.relu().flatten(1))
    assert torch.allclose(model[6].running_mean, outputs.mean(0), atol=1e-6)
    assert torch.allclose(model[6].running_var, outputs.var(0), atol=1e-5)


def test_the_rest_of_the_network_and_chance_are_as_before() -> None:
    model = network()
    model[3].train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    compress.recalibrate(model, batches(8))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert model[1].momentum == 0.1
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{norm}.{what}" for norm in (1, 6) for what in ("running_mean", "running_var")} | {
        "1.num_batches_tracked",
        "6.num_batches_tracked",
    }


def test_only_so_many_samples_are_used() -> None:
    taken: list[int] = []

    def source() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches(4, 4, 4, 4):
            taken.append(1)
            yield batch

    whole, part = network(), network()
    compress.recalibrate(whole, lambda size: source(), samples=6)
    compress.recalibrate(part, [batches(4, 4)[0], (batches(4, 4)[1][0][:2], None)])
    assert len(taken) == 2
    assert torch.equal(whole[1].running_mean, part[1].running_mean)


def _frozen(model: nn.Module) -> None:
    model.train()
    model[1].eval()


def _never_updating(model: nn.Module) -> None:
    model[1].momentum = 0.0


def _of_the_batch(model: nn.Module) -> None:
    model[1] = nn.BatchNorm2d(3, track_running_stats=False)


@pytest.mark.parametrize("freeze", [_frozen, _never_updating, _of_the_batch])
def test_frozen_norms_are_left_alone(freeze: Callable[[nn.Module], None]) -> None:
    model = network()
    freeze(model)
    before = copy.deepcopy(model[1].state_dict())
    old = model[6].running_mean.clone()
    compress.recalibrate(model, batches(8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model[1].state_dict().items())
    assert not torch.equal(model[6].running_mean, old)


@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.SyncBatchNorm(3),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, affine=False),
    ],
)
def test_other_norms_with_statistics(norm: nn.Module) -> None:
    model = network()
    model[1], data = copy.deepcopy(norm).eval(), batches(8)
    compress.recalibrate(model, data)
    assert torch.allclose(model[1].running_mean, model[0](data[0][0]).mean((0, 2, 3)), atol=1e-6)
    assert model[1].momentum == norm.momentum
    assert "forward" not in vars(model[1])


def test_it_helps_a_network_whose_channels_were_pruned() -> None:
    model, (images, _) = network(), batches(64)[0]
    compress.recalibrate(model, [(images, None)])
    with torch.no_grad():
        model[5].weight[:, :16] = 0  # what the first channel gives is no longer read
    off = model(images).mean(0).abs().max()
    compress.recalibrate(model, [(images, None)])
    assert model(images).mean(0).abs().max() < 2e-3 < 0.1 < off
    small = compress.slim(model, images[:2])
    assert small[0].out_channels == 2
    assert torch.allclose(small(images), model(images), atol=1e-5)


def test_statistics_of_a_pruned_channel_are_those_of_zeros() -> None:
    model, (images, _) = network(), batches(16)[0]
    pruner = compress.Pruner(model, compress.nodes("0"), sparsity=0.3, example=images)
    pruner.finalize()
    compress.recalibrate(model, [images])
    (gone,) = (model[0].weight.flatten(1).abs().sum(1) == 0).nonzero().flatten().tolist()
    assert model[1].running_mean[gone] == model[1].running_var[gone] == 0
    small = compress.slim(model, images[:2])
    assert torch.allclose(small(images), model(images), atol=1e-5)


def _nan(model: nn.Module) -> list[Tensor]:
    return [torch.zeros(4, 1, 6, 6), torch.full((4, 1, 6, 6), float("nan"))]


def _overflow(model: nn.Module) -> list[Tensor]:
    nn.init.constant_(model[0].weight, 3e38)
    return [torch.ones(4, 1, 6, 6)]


def _single(model: nn.Module) -> list[Tensor]:
    return [torch.ones(1, 1, 6, 6)] * 3


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (_nan, "batches: batch 2 holds NaN or infinite values"),
        (_overflow, r"1\.running_mean became NaN or infinite; .* the layers before it"),
        (_single, "there is no batch with two samples"),
        (lambda model: [], "there is no batch with two samples"),
        (lambda model: ["word"], "a batch is a pair"),
    ],
)
def test_bad_data_change_nothing(data: Callable[[nn.Module], list[Tensor]], text: str) -> None:
    model = network()
    given = data(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=text):
        compress.recalibrate(model, given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_what_cannot_be_recalibrated() -> None:
    with pytest.raises(InputError, match="no norm with running statistics"):
        compress.recalibrate(nn.Linear(2, 2), [torch.ones(2, 2)])
    with pytest.raises(InputError, match="samples: found 1"):
        compress.recalibrate(network(), batches(4), samples=1)
    with pytest.raises(InputError, match="expected a network"):
        compress.recalibrate(3, batches(4))  # type: ignore[arg-type]
