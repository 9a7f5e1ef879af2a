"""Runs that are killed and gone on with come to the same bits as those that are not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.recipe import journal, running
from compress.recipe.checkpoints import Checkpoints
from compress.recipe.clock import Clock
from compress.recipe.interruption import Stop
from compress.recipe.journal import Journal
from compress.recipe.schema import Recipe
from compress.recipe.setting import no_bar


class Killed(BaseException):
    """Nobody catches it, as nobody survives SIGKILL."""


class Deadly(Checkpoints):
    """Kills the run once so many checkpoints are written."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder, lambda line: None)
        self.left = after

    def write(self, state: dict[str, Any], where: str) -> None:
        super().write(state, where)
        self.left -= 1
        if self.left == 0:
            raise Killed(where)


@pytest.fixture(autouse=True)
def _a_checkpoint_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SHARE", float("inf"))


class Run:
    """A recipe on weights: whole, or as far as some checkpoint."""

    def __init__(self, recipe: Recipe, source: Path, folder: Path) -> None:
        self.recipe, self.source, self.folder = recipe, source, folder

    def __call__(self, out: str, checkpoints: Checkpoints | None = None) -> dict[str, Any]:
        torch.manual_seed(len(out))  # chance is what the run makes it
        kept = Journal(checkpoints, Stop(), every=0.0, resume=True)
        setting = running.prepare(self.recipe, Path("data"), "cpu", no_bar, Clock(), kept)
        return running.apply(self.recipe, self.source, self.folder / out, setting)

    def killed(self, out: str, after: int) -> str:
        """Where the run was killed."""
        (self.folder / f"{out}.partial").mkdir(exist_ok=True)
        with pytest.raises(Killed) as caught:
            self(out, Deadly(self.folder / f"{out}.partial", after))
        assert not (self.folder / out).exists()
        return str(caught.value)

    def killed_again_and_again(self, out: str, after: int) -> tuple[dict[str, Any], int]:
        """The results, and how often it was killed."""
        (self.folder / f"{out}.partial").mkdir(exist_ok=True)
        for times in range(1000):
            try:
                return self(out, Deadly(self.folder / f"{out}.partial", after)), times
            except Killed:
                assert not (self.folder / out).exists()
        raise AssertionError("it never ends")

    def content(self, out: str) -> dict[str, bytes]:
        """Of all files but results.json and the card, which have times in them."""
        files = [path for path in (self.folder / out).rglob("*") if path.is_file()]
        timed = ("results.json", "MODEL_CARD.md")
        return {str(path.relative_to(self.folder / out)): path.read_bytes() for path in files if path.name not in timed}


def timeless(results: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(results))
    del found["timing"]
    for stage in found["stages"]:
        del stage["seconds"]
    for model in found["models"].values():
        model.pop("latency_ms", None)
    return found


@pytest.fixture
def make(npz: Path, trained: Path, tmp_path: Path) -> Callable[..., Run]:
    def run(*stages: dict[str, Any], **changes: Any) -> Run:
        recipe = {
            "name": "tiny",
            "model": {"name": "autoencoder", "latent": 8, "image": [1, 6, 6]},
            "data": {"npz": str(npz), "batch_size": 20},
            "task": "reconstruct",
            "stages": stages,
            "export": ["safetensors"],
            **changes,
        }
        return Run(Recipe.model_validate(recipe), trained, tmp_path)

    return run


def stage(removal: Any = "soft", optimizer: str = "adamw", **changes: Any) -> dict[str, Any]:
    retrain = {"epochs": 3, "optimizer": optimizer, "lr": 1e-3, **changes.pop("retrain", {})}
    return {
        "target": {"weights": ["decoder.*", "latent.*"]},
        "criterion": "magnitude",
        "sparsity": 0.6,
        "removal": removal,
        "retrain": retrain,
        **changes,
    }


GRADUAL = {"kind": "gradual", "every": "2 steps"}
GRADUAL_SOFT = {"kind": "gradual_soft", "every": "2 steps", "cohort": "4 steps"}
STAGES = {
    "hard": stage("hard"),
    "soft": stage({"kind": "soft", "over": "2 epochs"}, "sgd", retrain={"momentum": 0.9, "lr_schedule": "cosine"}),
    "soft, linear decay": stage({"kind": "soft", "decay": "linear"}, "muon"),
    "soft, learning": stage({"kind": "soft", "over": "8 steps", "learns": True}, retrain={"lr_schedule": "linear"}),
    "gradual": stage(GRADUAL, "muon", scope="layer"),
    "gradual, regrowth": stage(GRADUAL, "adam", criterion="random", regrow={"share": 0.3, "samples": 40}),
    "gradual soft": stage(GRADUAL_SOFT, retrain={"warmup": 0.3}, criterion="taylor"),
    "gradual soft, regrowth": stage(GRADUAL_SOFT, "muon", scope="erk", regrow={"share": 0.3, "samples": 40}),
    "sfp": stage({"kind": "sfp", "every": "2 steps"}, "sgd"),
    "srfp": stage({"kind": "srfp", "every": "3 steps"}),
    "greg": stage("greg", "adam", retrain={"precision": "bfloat16"}),
    "distillation": stage(retrain={"distill": {"weight": 0.5}, "batch_size": 30}),
}


@pytest.mark.parametrize("name", STAGES)
def test_killed_again_and_again_within_a_stage(make: Callable[..., Run], name: str) -> None:
    run = make(STAGES[name])
    whole = run("whole")
    resumed, times = run.killed_again_and_again("resumed", after=6)
    assert times >= 2
    assert timeless(resumed) == timeless(whole)
    assert run.content("resumed") == run.content("whole")


NODES = {"target": {"nodes": "latent"}, "criterion": "skeletonization", "sparsity": 0.5}
TWO = (
    stage({"kind": "soft", "over": "1 epoch"}, target={"weights": ["encoder.*"]}, criterion="random"),
    stage({"kind": "soft", "over": "7 steps"}, **NODES, retrain={"trainable": "adjacent"}),
)
AXES = (
    stage("hard", **{**NODES, "criterion": "principal_axes"}, retrain={"epochs": 1}),
    stage(GRADUAL, **{**NODES, "criterion": "norms", "sparsity": 0.75}, retrain={"epochs": 2}),
)
COMPENSATED = (stage("hard", **{**NODES, "criterion": "random"}, compensate=True, retrain={"epochs": 1}),)


@pytest.mark.parametrize("stages", [TWO, AXES, COMPENSATED], ids=["weights, nodes", "axes, nodes", "compensated"])
def test_killed_again_and_again_in_several_stages(make: Callable[..., Run], stages: tuple[dict[str, Any], ...]) -> None:
    run = make(*stages)
    whole = run("whole")
    resumed, times = run.killed_again_and_again("resumed", after=3)
    assert times >= 2
    assert timeless(resumed) == timeless(whole)
    assert run.content("resumed") == run.content("whole")


@pytest.mark.slow
def test_killed_at_every_checkpoint(make: Callable[..., Run]) -> None:
    """Each of them once, rather than one after the other."""
    run = make(*TWO)
    whole, places = run("whole"), []
    for after in range(1, 100):
        try:
            places.append(run.killed(f"out{after}", after))
        except pytest.fail.Exception:
            break
        resumed = run(f"out{after}", Deadly(run.folder / f"out{after}.partial", 0))
        assert timeless(resumed) == timeless(whole)
        assert run.content(f"out{after}") == run.content("whole")
    assert places[0] == "stage 1: encoder.*, step 1 of 15"
    assert places[15] == "the end of stage 1"
    assert places[-1] == "the end of stage 2"
    assert len(places) == 2 * (15 + 1)
