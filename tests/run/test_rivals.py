import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.data.sources import from_npz
from compress.errors import DivergedError, RecipeError
from compress.models import autoencoder
from compress.recipe.loading import load_recipe
from compress.recipe.schema import Recipe
from compress.results import ScratchResult
from compress.run import rivals
from compress.run.clock import Clock
from compress.run.rivals import RivalWarning, against_scratch, from_scratch
from compress.run.setting import Setting, unwatched
from compress.typed_json import first_mistake

TRAIN = {"epochs": 2, "optimizer": "adamw", "lr": 1e-3}
STAGE = {"target": {"nodes": "latent"}, "criterion": "norms", "sparsity": 0.5, "removal": "hard"}
RETRAIN = {"epochs": 1, "optimizer": "adamw", "lr": 2e-3, "distill": {"weight": 0.5}}


def recipe(npz: Path, *stages: dict[str, Any], **changes: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"name": "autoencoder", "latent": 8, "image": [1, 6, 6]},
            "data": {"npz": str(npz), "batch_size": 20},
            "task": "reconstruct",
            "train": TRAIN,
            "stages": stages or [{**STAGE, "retrain": RETRAIN}],
            **changes,
        }
    )


@pytest.fixture
def setting(npz: Path) -> Setting:
    dense = autoencoder(8, (1, 6, 6))
    return Setting(from_npz(npz), "reconstruct", 20, torch.device("cpu"), 0, unwatched, Clock(), dense=lambda: dense)


def network(latent: int) -> nn.Module:
    return autoencoder(latent, (1, 6, 6)).eval()


@pytest.mark.filterwarnings("ignore::compress.run.rivals.RivalWarning")
def test_both_lengths(npz: Path, setting: Setting) -> None:
    found = against_scratch(recipe(npz), network(4), network(8), setting)
    assert (found["total"]["epochs"], found["retraining"]["epochs"]) == (3, 1)
    assert (found["total"]["steps"], found["retraining"]["steps"]) == (15, 5)
    assert "missing" not in found
    assert first_mistake(found, ScratchResult) is None


@pytest.mark.parametrize(
    ("stages", "changes", "lengths", "missing"),
    [
        ([{**STAGE, "retrain": RETRAIN}], {"train": None}, {"retraining"}, "the recipe has no `train`"),
        ([STAGE], {}, {"total"}, "nothing is retrained"),
        ([{**STAGE, "retrain": {**RETRAIN, "epochs": 0}}], {}, {"total"}, "nothing is retrained"),
    ],
)
@pytest.mark.filterwarnings("ignore::compress.run.rivals.RivalWarning")
def test_what_is_not_known_is_missing_with_its_reason(
    npz: Path, setting: Setting, stages: list[dict[str, Any]], changes: dict[str, Any], lengths: set[str], missing: str
) -> None:
    found = against_scratch(recipe(npz, *stages, **changes), network(4), network(8), setting)
    assert found.keys() == lengths | {"missing"}
    assert missing in found["missing"]


def test_nothing_was_cut(npz: Path, setting: Setting) -> None:
    found = against_scratch(recipe(npz), network(8), network(8), setting)
    assert found.keys() == {"missing"}
    assert "not trained, since nothing was cut out" in found["missing"]


class Fixed(nn.Module):
    """Returns the same grey for every pixel."""

    def __init__(self, grey: float) -> None:
        super().__init__()
        self.grey = nn.Parameter(torch.tensor(grey))

    def forward(self, images: Tensor) -> Tensor:
        return self.grey.expand_as(images)


@pytest.mark.parametrize(("ours", "better"), [(0.5, "slim"), (0.8, "neither"), (1.5, "scratch")])
def test_the_better_one(npz: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch, ours: float, better: str) -> None:
    monkeypatch.setattr(rivals, "from_scratch", lambda *_: Fixed(0.8))
    monkeypatch.setattr(rivals, "train", lambda *_: {"steps": 5, "seconds": 1.0})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = against_scratch(recipe(npz), Fixed(ours), network(8), setting)
    assert found["total"]["better"] == found["retraining"]["better"] == better
    advantage = found["total"]["metric"]["loss"] - setting.evaluate(Fixed(ours))["loss"]
    assert found["total"]["ahead"] == pytest.approx(advantage, rel=1e-4, abs=1e-6)
    texts = [str(one.message) for one in caught if one.category is RivalWarning]
    assert len(texts) == (better == "scratch")
    loss = f"better trained from scratch: loss {found['total']['metric']['loss']:.4g} after 3 epochs"
    assert all(loss in text for text in texts)


def test_a_rival_that_diverges_is_a_result(npz: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(network: nn.Module, part: rivals.Part, setting: Setting) -> None:
        raise DivergedError("the loss became nan at step 3 of 10")

    monkeypatch.setattr(rivals, "train", train)
    found = against_scratch(recipe(npz), network(4), network(8), setting)
    assert found["total"] == {
        "epochs": 3,
        "steps": 0,
        "seconds": 0.0,
        "diverged": "the loss became nan at step 3 of 10",
    }


def test_random_weights_are_those_of_another_seed_than_the_dense_ones(npz: Path, setting: Setting) -> None:
    wanted = recipe(npz)
    one, two = (from_scratch(wanted, network(4), setting) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    dense = autoencoder(8, (1, 6, 6), generator=torch.Generator().manual_seed(wanted.seed))
    assert not torch.equal(one.encoder[1].weight, dense.encoder[1].weight)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (["train=null", "stages.0.retrain=null", "stages.0.removal=hard"], "the recipe has neither; add one of them"),
        (["model={name: program}", "train=null"], "needs random weights, and a program has only its own"),
    ],
)
def test_recipes_that_cannot_train_from_scratch(change: list[str], text: str) -> None:
    with pytest.raises(RecipeError, match=rf"rivals: .*{text}"):
        load_recipe("mnist_latent", ["rivals.scratch=true", "stages.0.criterion=norms", *change])
