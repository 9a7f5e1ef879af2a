"""`compress.prune` on networks and batches of the kinds that people have; the fits themselves are held beside them."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compress
from compress.errors import InputError, TargetError
from compress.graph.stats import measure
from tests.select.test_branch_selection import INPUTS, stack


def images():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace=True)),
        *(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(12, 16, 1), nn.BatchNorm2d(16), nn.SiLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 5)),
    )
    for _ in range(4):
        model(torch.randn(32, 3, 8, 8))
    return model


PICTURES = torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(96) % 5


class Bert(nn.Module):
    """As those of transformers: keyword arguments, a mask of padding, its own loss, outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(30, 16), nn.Embedding(12, 16)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 4, 32, 0.1, batch_first=True) for _ in range(2))
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids: Any, attention_mask: Any = None, labels: Any = None) -> dict[str, Any]:
        x = self.embed(input_ids) + self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=None if attention_mask is None else attention_mask == 0)
        logits = self.head(x[:, 0])
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def sentences(length: int, rows: int = 24, labels: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(length)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[::2, length - 1] = 0
    ids = torch.randint(0, 30, (rows, length), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, **({"labels": torch.arange(rows) % 3} if labels else {})}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(6, 12), nn.Linear(4, 12), nn.Linear(12, 2)

    def forward(self, left: Any, right: Any) -> Any:
        return self.head((self.left(left) * self.right(right).sigmoid()).relu())


def pairs_of_inputs(count: int = 4) -> list[Any]:
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(30, 6, generator=generator), torch.randn(30, 4, generator=generator)) for _ in range(count)]


def loader(size: int = 16) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(PICTURES, LABELS), batch_size=size, shuffle=False)


# name -> (network, example, batches)
KINDS: dict[str, Any] = {
    "a loader": lambda: (images(), PICTURES[:2], loader()),
    "tiny batches": lambda: (images(), PICTURES[:2], loader(1)),
    "inputs alone": lambda: (images(), PICTURES[:1], [PICTURES[:50], PICTURES[50:]]),
    "a function": lambda: (images(), PICTURES[:2], lambda size: loader(size)),
    "float64": lambda: (images().double(), PICTURES[:2].double(), [PICTURES.double()]),
    "dicts": lambda: (Bert(), sentences(7), [sentences(7), sentences(9), sentences(5)]),
    "dicts with labels": lambda: (Bert(), sentences(7), [sentences(7, labels=True)]),
    "tuples": lambda: (Two(), (torch.randn(2, 6), torch.randn(2, 4)), [(one, None) for one in pairs_of_inputs()]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_network_of_the_same_outputs(kind: str) -> None:
    torch.manual_seed(0)
    model, example, batches = KINDS[kind]()
    before = copy.deepcopy(model.state_dict())
    small = compress.prune(model, example, macs=0.7, batches=batches)
    assert 0.4 < measure(small, example).macs / measure(model, example).macs < 0.75
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert {parameter.dtype for parameter in small.parameters()} == {next(model.parameters()).dtype}


def test_it_is_nearer_to_the_dense_network_than_a_plain_cut() -> None:
    model = images().eval()
    small = compress.prune(model, PICTURES[:2], macs=0.6, batches=[PICTURES])
    cut = copy.deepcopy(model)
    compress.Pruner(
        cut, compress.nodes("*"), macs=0.6, example=PICTURES[:2], criterion="obs", scope="global", batches=[PICTURES]
    ).finalize()
    wanted = model(PICTURES)
    assert not small.training
    assert (small(PICTURES) - wanted).square().mean() < 0.3 * (cut(PICTURES) - wanted).square().mean()


def test_modes_hooks_and_frozen_parameters_stay() -> None:
    model = images()
    model[1].eval()
    model[9].weight.requires_grad_(False)
    model[4].register_forward_hook(lambda module, inputs, output: output + 1)
    small = compress.prune(model, PICTURES[:2], macs=0.7, batches=[PICTURES])
    assert [module.training for module in small] == [module.training for module in model]
    assert not small[9].weight.requires_grad
    assert len(small[4]._forward_hooks) == 1


@pytest.mark.parametrize("how", [{"sparsity": 0.5}, {"params": 0.6}])
def test_other_amounts(how: dict[str, float]) -> None:
    model = images()
    small = compress.prune(model, PICTURES[:2], batches=[PICTURES], **how)
    share = measure(small, PICTURES[:2]).params / measure(model, PICTURES[:2]).params
    assert share <= how.get("params", 0.8)


def test_single_weights_are_chosen_exactly_and_make_up_for_each_other() -> None:
    model = images().eval()
    target = compress.weights("*", exclude="0.*")
    small = compress.prune(model, PICTURES[:2], sparsity=0.5, target=target, batches=[PICTURES])
    plain = copy.deepcopy(model)
    compress.Pruner(plain, target, sparsity=0.5, scope="layer").finalize()
    for name in ("3.weight", "4.weight", "9.weight"):
        assert int((small.get_parameter(name) == 0).sum()) == round(0.5 * model.get_parameter(name).numel())
    assert not (small.get_parameter("0.weight") == 0).any()
    wanted = model(PICTURES)
    assert (small(PICTURES) - wanted).square().mean() < 0.5 * (plain(PICTURES) - wanted).square().mean()


def test_a_pattern_of_two_in_four() -> None:
    model = images().eval()
    small = compress.prune(
        model, PICTURES[:2], target=compress.weights("9.*", "4.*"), scope={"n": 2, "m": 4}, batches=[PICTURES]
    )
    zeros = (small[9].weight == 0).unflatten(1, (-1, 4)).sum(2)
    assert (zeros == 2).all()


def test_labels_count_where_the_criterion_wants_them() -> None:
    small = compress.prune(
        images(), PICTURES[:2], macs=0.7, batches=loader(), criterion="taylor_square", loss=nn.CrossEntropyLoss()
    )
    assert small(PICTURES).shape == (96, 5)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"batches": None}, InputError, "batches: weights are fitted to some hundred samples"),
        ({"batches": iter([PICTURES])}, InputError, "which can be read only once"),
        ({"batches": [torch.randn(4, 7)]}, InputError, "batches: The network does not run on a batch"),
        ({"macs": 1.5}, InputError, "macs"),
        (
            {"sparsity": 0.5},
            InputError,
            r"^found macs=0.7 and sparsity=0.5; give exactly one of macs, params, sparsity$",
        ),
        ({"macs": None}, InputError, "^found none; give exactly one of macs, params, sparsity$"),
        ({"target": compress.nodes("nowhere")}, TargetError, "nowhere"),
        ({"target": "*"}, InputError, "macs is for nodes"),
        ({"criterion": "nonsense"}, InputError, "criterion"),
        ({"criterion": "taylor"}, InputError, "needs the loss"),
        ({"device": "nonsense"}, InputError, "device: found 'nonsense'"),
        ({"batches": [torch.full((8, 3, 8, 8), torch.nan)]}, InputError, "NaN or infinite"),
    ],
)
def test_mistakes_are_named_and_change_nothing(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    model = images()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=says):
        compress.prune(model, PICTURES[:2], **{"macs": 0.7, "batches": [PICTURES], **changes})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("loss", [None, F.cross_entropy])
def test_whole_branches_are_removed_and_made_up_for(loss):

    dense, samples = stack(), [(torch.randn(300, 5, 6), torch.arange(300) % 3) for _ in range(2)]
    small = compress.prune(
        dense, INPUTS[:2], batches=samples, macs=0.7, loss=loss, target=compress.branches("*"), device="cpu"
    )
    assert measure(small, INPUTS[:2]).macs <= 0.7 * measure(dense, INPUTS[:2]).macs
    cut = stack()
    pruner = compress.Pruner(
        cut, compress.branches("*"), macs=0.7, example=INPUTS[:2], criterion="ablation", batches=samples, loss=loss
    )
    pruner.finalize()
    gone = {layer.name for layer in pruner.layers() if layer.pruned}
    assert gone
    assert not {f"{name}.weight" for name in gone} & set(dict(small.named_parameters()))
    with torch.no_grad():
        errors = [float((model(INPUTS) - dense(INPUTS)).square().mean()) for model in (small, cut)]
    assert errors[0] < 0.7 * errors[1]
