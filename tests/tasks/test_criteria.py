"""Every criterion that looks at the loss, with every task's loss and the targets of its data."""

import pytest
import torch
from torch import nn

import compress
from compress.task_words import WORDS
from compress.tasks import loss

OUTPUTS = {"classify": 3, "multilabel": 4, "regress": 1, "forecast": 5, "language_model": 11}


def build(word):
    torch.manual_seed(0)
    first = nn.Embedding(11, 6) if word == "language_model" else nn.Identity()
    model = nn.Sequential(first, nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, OUTPUTS.get(word, 6)))
    x = torch.randint(11, (12, 5)) if word == "language_model" else torch.randn(12, 6)
    target = {
        "classify": torch.arange(12) % 3,
        "multilabel": torch.randint(2, (12, 4)),
        "regress": torch.randn(12, dtype=torch.float64),
        "forecast": torch.randn(12, 5, 1),
        "language_model": torch.randint(11, (12, 5)).masked_fill(torch.rand(12, 5) < 0.2, -100),
        "reconstruct": x,
        "anomaly": {"input": x, "anomaly": (torch.arange(12) % 5 == 0).float()},
    }[word]
    return model, x, target


NODES = [compress.Taylor(), compress.Skeletonization(), compress.Skeletonization(error="linear"), compress.Ablation()]
WEIGHTS = [compress.Taylor(), compress.Snip(), compress.OBD()]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("targets", "criterion"),
    [*((compress.nodes("1"), one) for one in NODES), *((compress.weights("1"), one) for one in WEIGHTS)],
    ids=lambda one: type(one).__name__,
)
def test_it_prunes_half(word, targets, criterion) -> None:
    model, x, target = build(word)
    pruner = compress.Pruner(
        model, targets, sparsity=0.5, criterion=criterion, batches=[(x, target)], loss=loss(word), example=x[:2]
    )
    pruner.finalize()
    assert int((model[1].weight == 0).sum()) == 24  # of 8 nodes with 6 weights


@pytest.mark.parametrize("word", WORDS)
def test_a_score_is_the_slope_of_that_loss(word) -> None:
    """Skeletonization's |mean dE/da| of each node, against finite differences of the task's own loss."""
    from compress.select.saliency import skeletonization

    model, x, target = build(word)
    model.double()
    x = x if word == "language_model" else x.double()
    scores = skeletonization(model, ["1"], [(x, target)], loss(word), reduce="sum")["1"]
    step = 1e-5

    def error(node: int, factor: float) -> float:
        weight, bias = (nn.Parameter(tensor.clone()) for tensor in (model[1].weight, model[1].bias))
        weight.data[node] *= factor
        bias.data[node] *= factor
        changed = {"1.weight": weight, "1.bias": bias}
        return float(loss(word)(torch.func.functional_call(model, changed, (x,)), target).detach())

    expected = [abs(error(node, 1 + step) - error(node, 1 - step)) / (2 * step) for node in range(8)]
    assert scores.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-8)
