import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from compress.errors import TargetError
from compress.select.targets import resolve, weights


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 4, bias=False)
        self.scale = nn.Parameter(torch.ones(1))


@pytest.fixture
def model():
    return Network()


def paths(targets):
    return [target.path for target in targets]


def test_patterns_take_weights_of_two_dimensions(model):
    assert paths(resolve(model, weights("*"))) == ["encoder.0.weight", "encoder.3.weight", "head.weight"]
    assert paths(resolve(model, weights("encoder.*"))) == ["encoder.0.weight", "encoder.3.weight"]


def test_bias_on_request_and_norm_scales_never_by_pattern(model):
    found = paths(resolve(model, weights("encoder.*", bias=True)))
    assert found == ["encoder.0.weight", "encoder.0.bias", "encoder.1.bias", "encoder.3.weight", "encoder.3.bias"]


def test_full_names_take_anything(model):
    assert paths(resolve(model, weights("scale", "encoder.1.weight"))) == ["scale", "encoder.1.weight"]


def test_tensors_and_pairs_and_mixes_in_the_order_given_each_once(model):
    wanted = ["head.*", model.encoder[3].weight, (model.encoder[0], "bias"), model.head.weight, "encoder.*"]
    found = ["head.weight", "encoder.3.weight", "encoder.0.bias", "encoder.0.weight"]
    assert paths(resolve(model, weights(wanted))) == found


def test_a_target_reaches_its_parameter(model):
    (target,) = resolve(model, weights(["head.weight"]))
    assert target.parameter is model.head.weight


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (["decoder.*"], r"'decoder\.\*' matches no weight of the model; its weights are encoder\.0\.weight"),
        ([torch.zeros(2)], r"shape \(2,\) that is not a parameter"),
        ([(nn.Linear(2, 2), "weight")], "is not a part of the model"),
    ],
)
def test_what_matches_nothing(model, wanted, says):
    with pytest.raises(TargetError, match=says):
        resolve(model, weights(wanted))


def test_a_shared_parameter_is_one_target(model):
    model.tied = nn.Linear(4, 4, bias=False)
    model.tied.weight = model.head.weight
    assert [path for path in paths(resolve(model, weights("*"))) if "encoder" not in path] == ["head.weight"]
    assert paths(resolve(model, weights("tied.weight", "head.weight"))) == ["tied.weight"]
    assert "head.weight" not in paths(resolve(model, weights("*", exclude="tied.weight")))
    prune.identity(model.tied, "weight")
    with pytest.raises(TargetError, match=r"tied\.weight is pruned already"):
        resolve(model, weights("head.weight"))


def test_a_sharded_parameter_whose_parts_are_sums_is_refused() -> None:
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        for placement in (Replicate(), Partial()):
            model = nn.Linear(4, 4)
            spread = DTensor.from_local(torch.ones(4, 4), init_device_mesh("cpu", (1,)), [placement])
            model.weight = nn.Parameter(spread)
            if placement.is_replicate():
                assert paths(resolve(model, weights("*"))) == ["weight"]
                continue
            with pytest.raises(TargetError, match=r"weight is spread over processes as .*; only what is placed by"):
                resolve(model, weights("*"))
    finally:
        distributed.destroy_process_group()
