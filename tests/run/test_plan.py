"""A plan against the run that it is the plan of, and its estimates against a clock that ticks as the test says."""

import copy
import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from compress.files.spill import Shelved
from compress.recipe.loading import load_recipe
from compress.recipe.schema import Stage
from compress.remove.removals import Hard
from compress.run import apply as apply_module
from compress.run import plan as plan_module
from compress.run.clock import Clock
from compress.run.plan import times_chosen
from compress.run.pruning import removal_of
from compress.run.setting import unwatched

Run = Callable[..., Result]
Plan = Callable[..., dict[str, Any]]

NODES = "stages.0.criterion=magnitude"
HARD = "stages.0={target: {nodes: [encoder.*, latent]}, criterion: norms, sparsity: 0.5, removal: hard}"
WEIGHTS = "stages.0={target: {weights: ['*']}, criterion: magnitude, sparsity: 0.9, removal: hard}"
BUDGET = "stages.0={target: {nodes: ['*']}, criterion: taylor_square, scope: global, macs: 0.5, removal: hard}"
LAYERS = "stages.0={target: {weights: ['*']}, criterion: magnitude, layers: {latent.*: .75, '*': .25}, removal: hard}"
AXES = "stages.0.criterion=principal_axes"
REGROWING = (
    "stages.0={target: {weights: ['*']}, criterion: magnitude, sparsity: 0.9, removal: gradual_soft, "
    "regrow: {share: 0.3}, retrain: {epochs: 9, optimizer: sgd, lr: 1e-3, trainable: ['latent.*']}}"
)
EMPTY = (
    "stages=[{target: {nodes: latent}, criterion: magnitude, sparsity: 0.05, removal: hard},"
    " {target: {nodes: latent}, criterion: magnitude, sparsity: 0.5, removal: hard}]"
)
TWO = (
    "stages=[{target: {nodes: latent}, criterion: magnitude, sparsity: 0.5, removal: hard},"
    " {target: {weights: ['encoder.*']}, criterion: random, scope: layer, sparsity: 0.25, removal: hard}]"
)


def options(changes: tuple[str, ...]) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


@pytest.fixture
def plan(run: Run, recipe: Path, trained: Path) -> Plan:
    def command(*changes: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run("plan", recipe, trained, "--json", *options(changes)).stdout)
        return found

    return command


@pytest.fixture
def apply(run: Run, recipe: Path, trained: Path, tmp_path: Path) -> Plan:
    def command(*changes: str) -> dict[str, Any]:
        result = run("apply", recipe, trained, "-o", tmp_path / "out", "--json", *options(changes))
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return command


# --- what would go ---


@pytest.mark.parametrize(
    "changes",
    [(NODES,), (HARD,), (BUDGET,), (AXES,), (WEIGHTS,), (LAYERS,), (TWO,)],
    ids=lambda changes: changes[0][:40],
)
def test_the_plan_is_what_the_run_does(plan: Plan, apply: Plan, changes: tuple[str, ...]) -> None:
    """100 training samples: the criteria see in the plan what they see in the run."""
    planned, done = plan(*changes), apply(*changes)
    for ahead, stage in zip(planned["stages"], done["stages"], strict=True):
        for key in ("kind", "target", "criterion", "removal", "measure", "asked", "achieved", "pruned", "of"):
            assert ahead[key] == stage[key], key
        assert (ahead["steps"], ahead["removal_steps"]) == (stage["steps"], stage["removal_steps"])
        assert sum(one["goes"] for one in ahead["matched"]) == stage["pruned"]
    dense, slim = (done["models"][name] for name in ("dense", "slim"))
    assert {key: planned["now"][key] for key in ("params", "nonzero", "macs")} == {
        key: dense[key] for key in ("params", "nonzero", "macs")
    }
    last = planned["stages"][-1]["after"]
    assert (last["params"], last["macs"]) == (slim["params"], slim["macs"])
    assert last["bytes"] == 4 * slim["params"]
    # Results do not name the folder of the recipe.
    found, expected = ([(one["kind"], one["way_out"]) for one in run["warnings"]] for run in (done, planned))
    assert found == expected


def test_parameters_and_layers_are_named_with_what_goes_of_each(plan: Plan) -> None:
    """By hand: a quarter of each matrix of the encoder, the latent layer's nodes being gone by half before."""
    nodes, weights = plan(TWO)["stages"]
    assert nodes["matched"] == [{"name": "latent", "of": 8, "goes": 4, "earlier": 0, "layers": ["latent"]}]
    for one in weights["matched"]:
        assert one["goes"] == round(one["of"] / 4)
        assert one["earlier"] == 0
    again = plan(TWO.replace("encoder.*", "latent.weight"))["stages"][1]["matched"]
    assert again == [{"name": "latent.weight", "of": 8 * 128, "goes": 4 * 128, "earlier": 4 * 128}]


def test_layers_that_keep_their_width_say_why(plan: Plan) -> None:
    assert plan()["kept"] == [{"layer": "decoder.9", "reason": "it is the network's output"}]


@pytest.mark.parametrize(
    ("criterion", "chosen"),
    [
        ("magnitude", {"by": "criterion", "samples": None, "again": False}),
        ("taylor", {"by": "criterion", "samples": 100, "again": False}),
        ("{kind: variance, samples: 30}", {"by": "criterion", "samples": 30, "again": False}),
        ("ablation", {"by": "even scores", "samples": None, "again": False}),
    ],
)
def test_how_it_was_chosen(plan: Plan, criterion: str, chosen: dict[str, Any]) -> None:
    (stage,) = plan(f"stages.0.criterion={criterion}")["stages"]
    assert stage["chosen"] == chosen
    assert stage["pruned"] == 6


def test_what_is_chosen_while_it_trains_says_so(plan: Plan) -> None:
    (stage,) = plan("stages.0.removal={kind: gradual, every: 2 steps}")["stages"]
    assert stage["chosen"]["again"] is True


def test_an_untrained_network_will_do(run: Run, recipe: Path) -> None:
    found = json.loads(run("plan", recipe, "--json").stdout)
    assert found["model"] is None
    assert found["stages"][0]["pruned"] == 6
    told = run("plan", recipe).stdout
    assert "no MODEL: the network is untrained" in told
    assert told.splitlines()[-1] == f"next: compress train {recipe} -o model.pt"


# --- warned of, by the plan and by the run ---


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ((EMPTY,), "stages.0.sparsity: 0.05 of 8 nodes rounds to 0, so this stage prunes nothing"),
        (
            (TWO.replace("weights: ['encoder.*']", "nodes: latent").replace("scope: layer, ", ""),),
            "stages.1.target: all 4 nodes of this stage were already pruned by an earlier one",
        ),
        (
            ("stages.0.removal={kind: soft, over: 2 epochs}",),
            "stages.0.removal: the removal ends with the last of the 10 steps",
        ),
        (
            ("stages.0.removal={kind: gradual, over: 1 epoch}",),
            "the set grows every 20 steps and has to be complete after 5",
        ),
        ((WEIGHTS.replace("0.9", "0.2"),), "nothing can be cut out: every node of every layer still has weights"),
        (
            (WEIGHTS.replace("['*']", "[latent.weight]").replace("0.9", "0.999"),),
            "latent.weight would keep 1 of its 1,024 weights: an empty layer lets nothing through",
        ),
    ],
)
def test_what_is_in_vain(plan: Plan, apply: Plan, changes: tuple[str, ...], text: str) -> None:
    planned = plan(*changes)["warnings"]
    assert sum(text in warning["text"] for warning in planned) == 1
    done = [(one["kind"], one.get("way_out")) for one in apply(*changes)["warnings"]]
    assert {(one["kind"], one.get("way_out")) for one in planned} <= {*done}


def test_apply_warns_before_it_trains(
    run: Run, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_time(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compress.run.setting.train", no_time)
    changes = options(("stages.0.removal={kind: soft, over: 2 epochs}",))
    result = run("apply", recipe, trained, "-o", tmp_path / "out", *changes, code=130)
    assert f"warning: {recipe}:" in result.stderr or "warning: --set" in result.stderr
    assert "no training follows" in result.stderr


def test_a_shipped_kind_of_recipe_is_no_reason_to_warn(plan: Plan) -> None:
    """Apart from its few steps: the tiny data have five an epoch."""
    assert {warning["kind"] for warning in plan()["warnings"]} == {"short_decay"}
    assert plan("stages.0.removal=soft", "stages.0.retrain.epochs=8")["warnings"] == []


# --- refused, by both ---


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        (("stages.0.target.nodes=nine",), 2, "There is no layer 'nine'"),
        (("stages.0.sparsity=0.01",), 1, "no entry would be pruned"),
        (("stages.0.removal={kind: soft, factor: 0.9}",), 2, "takes 132 steps"),
        ((WEIGHTS.replace("sparsity: 0.9", "sparsity: 0.9, min_keep: 0.5"),), 2, "min_keep holds"),
        (("stages.0.sparsity=2",), 2, "stages.0.sparsity"),
        (("model.latent=9",), 2, "does not fit the network"),
    ],
)
def test_what_cannot_be_run(
    run: Run,
    recipe: Path,
    trained: Path,
    tmp_path: Path,
    unchanged: Callable[[Path], AbstractContextManager[None]],
    changes: tuple[str, ...],
    code: int,
    text: str,
) -> None:
    with unchanged(tmp_path):
        planned = run("plan", recipe, trained, *options(changes), code=code)
        applied = run("apply", recipe, trained, "-o", tmp_path / "out", *options(changes), code=code)
    assert text in planned.stderr
    assert planned.stderr == applied.stderr
    assert planned.stdout == ""


# --- it leaves nothing behind ---


def test_nothing_is_written(
    run: Run,
    recipe: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unchanged: Callable[[Path], AbstractContextManager[None]],
) -> None:
    monkeypatch.chdir(tmp_path)
    with unchanged(tmp_path), unchanged(trained.parent):
        run("plan", recipe, trained)


@pytest.mark.filterwarnings("ignore::compress.run_warnings.RunWarning")  # the tiny data have few steps
def test_the_rehearsal_does_not_change_the_run(recipe: Path, trained: Path) -> None:
    """Neither the network nor the order of chance."""
    loaded = load_recipe(recipe)
    setting = apply_module.prepare(loaded, Path("data"), "cpu", unwatched, Clock())
    network, _ = apply_module.load_dense(loaded, trained, setting)
    before = copy.deepcopy(network.state_dict())
    torch.manual_seed(3)
    apply_module.rehearse.check(loaded, Shelved(network).copy(), setting)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert {name for name, _ in network.named_parameters()} == set(before)


# --- how long ---


def ticking(*changes: str, recipe: Path, trained: Path) -> dict[str, Any]:
    """A plan by a clock on which a second passes whenever it is looked at."""
    seconds: Iterator[int] = itertools.count()
    loaded = load_recipe(recipe, changes)
    setting = apply_module.prepare(loaded, Path("data"), "cpu", unwatched, Clock())
    with warnings.catch_warnings(action="ignore"):
        return plan_module.plan(loaded, trained, setting, now=lambda: float(next(seconds)))


def test_the_estimate_is_steps_times_the_time_of_a_step(recipe: Path, trained: Path) -> None:
    """20 test images are one batch, so an evaluation takes a second here, as does everything else that is timed."""
    found = ticking(recipe=recipe, trained=trained)
    (stage,) = found["stages"]
    assert stage["seconds"] == {
        "training": 10.0,
        "selection": 2.0,  # the stage's analysis, and one choice
        "evaluation": 2.0,
        "total": 14.0,
        "timed_steps": 2,
    }
    assert found["seconds"] == {"stages": 14.0, "closing": 3.0, "total": 17.0, "without": "export and benchmark"}


def test_rivals_take_as_long_as_their_epochs_and_three_evaluations(recipe: Path, trained: Path) -> None:
    found = ticking("rivals.scratch=true", recipe=recipe, trained=trained)
    epochs = load_recipe(recipe).train.epochs  # type: ignore[union-attr]
    assert found["seconds"]["rivals"] == 5.0 * (epochs + 2 + 2) + 3
    assert found["seconds"]["total"] == 17.0 + found["seconds"]["rivals"]


def test_choices_that_are_made_again_and_on_more_images_take_longer(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, trained: Path
) -> None:
    monkeypatch.setattr("compress.run.rehearse.SAMPLES", 20)
    (stage,) = ticking(
        "stages.0.criterion={kind: taylor, samples: 60}",
        "stages.0.removal={kind: gradual, over: 8 steps, every: 2 steps}",
        recipe=recipe,
        trained=trained,
    )["stages"]
    # At steps 2, 4, 6 and 8, where it is complete and settled once more; on three times as many images.
    assert stage["chosen"]["samples"] == 20
    assert stage["seconds"]["selection"] == pytest.approx(1.0 + 4 * 3.0)


def test_no_retraining_takes_no_training(recipe: Path, trained: Path) -> None:
    (stage,) = ticking(HARD, recipe=recipe, trained=trained)["stages"]
    assert (stage["seconds"]["training"], stage["seconds"]["timed_steps"]) == (0.0, 0)


@pytest.mark.parametrize(
    ("removal", "times"),
    [
        ({"kind": "soft"}, 1),
        ({"kind": "greg"}, 1),
        ({"kind": "gradual", "over": "10 steps", "every": "4 steps"}, 3),  # 4, 8, and 10 at the end
        ({"kind": "sfp", "over": "10 steps", "every": "4 steps"}, 4),  # 0, 4, 8, and 10 at the end
    ],
)
def test_how_often_a_removal_chooses(removal: dict[str, Any], times: int) -> None:
    stage = {"target": {"nodes": ["1"]}, "criterion": "magnitude", "sparsity": 0.5, "removal": removal}
    stage["retrain"] = {"epochs": 2, "optimizer": "sgd", "lr": 0.01}
    assert times_chosen(removal_of(Stage.model_validate(stage), 10)[1]) == times
    assert times_chosen(Hard()) == 1


def test_every_kind_of_retraining_can_be_timed(plan: Plan) -> None:
    """For real: with a teacher, in other batches, with removals that learn, of weights and of parts of the network."""
    for changes in (
        ("stages.0.retrain.distill={weight: 0.5}", "stages.0.retrain.batch_size=7", "stages.0.removal=sfp"),
        ("stages.0.removal=greg", "stages.0.retrain.optimizer=muon"),
        (REGROWING,),
    ):
        (stage,) = plan(*changes)["stages"]
        assert stage["seconds"]["training"] > 0
        assert stage["seconds"]["timed_steps"] >= 2


# --- for people ---


def test_the_terminal_and_the_next_command(run: Run, recipe: Path, trained: Path) -> None:
    result = run("plan", recipe, trained, "--set", "stages.0.sparsity=0.5", "--seed", 4)
    assert "tiny: what would be pruned" in result.stdout
    assert "estimated time of the run: " in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last == f"next: compress apply {recipe} {trained} --set stages.0.sparsity=0.5 --seed 4 -o tiny"
