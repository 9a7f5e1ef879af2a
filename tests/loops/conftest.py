"""A small network on real digits, and the loop by hand that every callback is compared with."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

import compress
from compress.data import sources
from compress.remove.pruner import Pruner
from compress.remove.removals import GradualSoft, GReg, Soft

Pairs = Sequence[tuple[Tensor, Tensor]]


class Digits(nn.Module):
    """10 logits of images [N, 1, 28, 28]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(784, 16)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.out(self.norm(self.hidden(images.flatten(1)).relu()))
        return logits


@pytest.fixture(scope="session")
def samples(sample: None) -> Pairs:
    """160 digits with their labels."""
    batches = sources.mnist_sample(train=160, test=10).batches("train", 1, "classify")
    return [(image[0], label[0]) for image, label in batches()]


@pytest.fixture
def digits() -> Digits:
    return Digits()


# What may prune: the network's names have a prefix in some loops. Eight batches of 20 samples make an epoch.
MAKERS = {
    "soft": lambda model, loop: Pruner(
        model, "*hidden.weight", sparsity=0.8, removal=Soft(steps=loop.steps("1.5 epochs"))
    ),
    "hard": lambda model, loop: Pruner(model, ["*hidden.weight", "*out.weight"], sparsity=0.8),
    "gradual soft": lambda model, loop: Pruner(
        model, "*.weight", sparsity=0.7, removal=GradualSoft(steps=loop.steps("1 epoch") + 3, every=2, cohort=3)
    ),
    "growing penalty": lambda model, loop: Pruner(
        model, "*hidden.weight", sparsity=0.7, removal=GReg(steps=loop.steps("1.5 epochs"))
    ),
}


@pytest.fixture(params=list(MAKERS))
def make(request: pytest.FixtureRequest) -> Callable[..., Pruner]:
    """Each of them, one after the other."""
    maker: Callable[..., Pruner] = MAKERS[request.param]
    return maker


def by_hand(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    make: Callable[..., Pruner],
    loop: Any,
    *,
    epochs: int,
    accumulate: int = 1,
) -> dict[str, Tensor]:
    """The weights after a loop that nobody's library runs: AdamW at a constant rate on mean cross entropies."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    pruner = make(model, loop)
    model.train()
    for _ in range(epochs):
        for number, (images, labels) in enumerate(batches, start=1):
            (F.cross_entropy(model(images), labels) / accumulate).backward()
            if number % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
                pruner.step()
    pruner.finalize()
    return model.state_dict()


@pytest.fixture
def soft() -> Callable[..., Pruner]:
    return MAKERS["soft"]


@pytest.fixture(name="by_hand")
def by_hand_fixture() -> Callable[..., dict[str, Tensor]]:
    return by_hand


@pytest.fixture
def same() -> Callable[[dict[str, Tensor], dict[str, Tensor]], None]:
    """The same names and the same weights to the last bit, some of them pruned."""

    def check(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
        assert sorted(found) == sorted(wanted)
        for name, tensor in wanted.items():
            assert torch.equal(found[name], tensor), name
        assert sum(int((tensor == 0).sum()) for name, tensor in found.items() if "weight" in name) > 1000

    return check


# --- a network that takes dicts, and returns its loss ---


def tiny_bert() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **sizes, intermediate_size=24, max_position_embeddings=8, num_labels=3, hidden_dropout_prob=0.0
    )
    config.attention_probs_dropout_prob = 0.0
    network: nn.Module = transformers.BertForSequenceClassification(config)
    return network


SENTENCES = [
    {
        "input_ids": torch.arange(number, number + 6) % 40,
        "attention_mask": (torch.arange(6) < 3 + number % 4).long(),
        "labels": torch.tensor(number % 3),
    }
    for number in range(8)
]


def half_of_the_nodes(model: nn.Module, loop: object) -> Pruner:
    """Scored by the network's own loss on batches of dicts."""
    example = {key: torch.stack([one[key] for one in SENTENCES[:2]]) for key in ("input_ids", "attention_mask")}
    return Pruner(
        model,
        compress.nodes("*intermediate*"),
        sparsity=0.5,
        example=example,
        criterion="taylor_square",
        batches=DataLoader(SENTENCES, batch_size=4),  # type: ignore[arg-type]
        removal=Soft(steps=2),
    )


@pytest.fixture
def bert() -> nn.Module:
    return tiny_bert()


@pytest.fixture
def sentences() -> list[dict[str, Tensor]]:
    return SENTENCES


@pytest.fixture
def halved() -> Callable[..., Pruner]:
    return half_of_the_nodes


@pytest.fixture
def bert_by_hand() -> dict[str, Tensor]:
    """Its weights after two steps of a loop by hand."""
    model = tiny_bert()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    pruner = half_of_the_nodes(model, None)
    model.train()
    for batch in DataLoader(SENTENCES, batch_size=4):  # type: ignore[arg-type]
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    pruner.finalize()
    weights = model.state_dict()
    assert int((weights["bert.encoder.layer.0.intermediate.dense.weight"] == 0).all(1).sum()) == 12
    return weights
