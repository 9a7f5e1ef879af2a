"""Run a recipe from beginning to end: train the dense network; prune it stage by stage, slim, prove, write, time."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.batches import pair_of, without_labels
from compress.documents import TrainedNetwork
from compress.errors import DivergedError, InputError
from compress.files.checkpoint import write_weights
from compress.files.spill import Shelved
from compress.proof import prove_same
from compress.recipe import schema
from compress.report.choices import refusals
from compress.report.page import page
from compress.results import Metric, ModelName, Outcome, Parity, Quality, Results, RivalResults, StageResult, Warned
from compress.run import cautions, rehearse
from compress.run.against_constant import Compared
from compress.run.artefacts import FILES, three_networks, write_artefacts
from compress.run.building import (
    build_model,
    build_task,
    choose_device,
    require_fit,
    require_inputs,
    trained_model,
)
from compress.run.choices import RefusedWarning
from compress.run.clock import Clock
from compress.run.continuing import continued
from compress.run.data_sets import build_data
from compress.run.journal import Journal
from compress.run.looks import Looks, compared
from compress.run.measuring import require_expected
from compress.run.output import added, begin, free, placing, require_seen, seen, whole_folder
from compress.run.probing import probed
from compress.run.provenance import describe_data, fingerprint
from compress.run.rivals import against_scratch
from compress.run.sampling import quality
from compress.run.setting import Setting, Watcher, optimization
from compress.run.stage import describe_target, run_stage
from compress.run.witness import Reach, Witness
from compress.select.pruned import Pruned
from compress.slimming.edits import apply_edits, edits_from_json, edits_to_json
from compress.slimming.shrink import slim
from compress.slimming.slim_graph import warn_of_graph
from compress.tasks import OwnTask
from compress.tasks.sampling import Samples
from compress.train import random_state
from compress.train.ranks import ALONE, Ranks

TOLERANCE = 1e-5

State = Mapping[str, Tensor]


def prepare(
    recipe: schema.Recipe,
    data_root: Path,
    device: str,
    watcher: Watcher,
    clock: Clock,
    journal: Journal | None = None,
    ranks: Ranks = ALONE,
) -> Setting:
    """Load the data and check that it fits the recipe's network.

    Args:
        journal: saves the run, so that it can be resumed.
        ranks: this process among those that train together.

    Raises:
        DataError, InputError: the data are missing or do not fit, or the device does not exist.
    """
    chosen, task = choose_device(device), build_task(recipe.task)
    with clock.phase("data"), ranks.first_before_others():
        dataset = build_data(recipe.data, data_root)
    require_fit(recipe, dataset)
    journal = journal or Journal()
    return Setting(
        dataset,
        task,
        recipe.data.batch_size,
        chosen,
        recipe.seed,
        watcher,
        clock,
        journal,
        ranks,
        dynamic=recipe.dynamic,
    )


def train_dense(
    recipe: schema.Recipe, out: Path, setting: Setting, write: Callable[[State, Path], None] = write_weights
) -> TrainedNetwork | None:
    """Train the recipe's network from the start and write its state_dict to `out`.

    Args:
        write: writes the weights; a folder of results has to record them in its mark.

    Returns:
        A record of the training: data, steps, seconds, mean loss of each epoch, metric on the test samples. None in
        all processes but the first.

    Raises:
        InputError: the recipe has no `train` section.
        DivergedError: the loss became NaN; the last good weights are beside `out`.
        Interrupted: by a signal.
    """
    if recipe.train is None:
        raise InputError(
            f"the recipe {recipe.name} has no `train` section, so there is nothing to train; give `compress "
            "apply` a file of trained weights"
        )
    torch.manual_seed(recipe.seed)
    before = seen(out)
    model = build_model(recipe.model, recipe.seed).to(setting.device)
    require_inputs(model, setting.example, recipe)
    cautions.warn_of_batch(setting)
    steps = recipe.train.epochs * setting.steps_per_epoch
    settings, journal = recipe.train, setting.journal
    journal.open(fingerprint(recipe, None, setting), setting.clock)
    setting.ranks.wait()  # all processes read the checkpoint before the first one writes
    journal.follow("clock", setting.clock)
    journal.follow("model", model)
    journal.follow("chance", random_state)
    with _keep_last_good(model, lambda weights: _beside(weights, out), setting.ranks):
        setting.watcher.begin("train", f"train {recipe.name}")
        training = journal.chapter(
            "the training", lambda: dataclasses.asdict(setting.train(model, steps, optimization(settings)))
        )
    setting.ranks.require_same(model)
    if not setting.ranks.first:
        return None
    samples = Samples(setting.task)
    metric = setting.evaluate(model, samples)
    setting.watcher.measured("test", metric, training["steps"])
    out.parent.mkdir(parents=True, exist_ok=True)
    require_seen(out, before)
    placing(journal.folder)
    write(model.state_dict(), out)
    figures = quality(metric, samples)
    found: TrainedNetwork = {
        "model": str(out),
        "data": describe_data(setting),
        "steps": training["steps"],
        "seconds": setting.clock.spent("training"),
        "epoch_losses": training["losses"],
        "metric": metric,
    }
    if "error" in figures:
        found["error"] = figures["error"]
    return found


def load_dense(recipe: schema.Recipe, source: Path | None, setting: Setting) -> tuple[nn.Module, str | None]:
    """The recipe's network with the weights in `source`, and what was unwrapped; without a source, an untrained one.

    Raises:
        CheckpointError: the weights do not fit.
        DataError: the data do not fit.
    """
    if source is None:
        model, unwrapped = build_model(recipe.model, recipe.seed), None
    else:
        model, unwrapped = trained_model(recipe.model, recipe.seed, source)
    model.to(setting.device)
    require_inputs(model, setting.example, recipe)
    return model, unwrapped


def apply(
    recipe: schema.Recipe,
    source: Path,
    out: Path,
    setting: Setting,
    *,
    warned: list[Warned] | None = None,
    place: Callable[[str], str] = str,
) -> Results | None:
    """Run all stages on the weights in `source` and write artefacts, proofs and figures to the folder `out`.

    Args:
        warned: a list that collects warnings during the run; its final content is written to the results.
        place: where a key of the recipe, such as "stages.0.target", was written, for the error text.

    Returns:
        The content of results.json; None in all processes but the first.

    Raises:
        InputError: the weights do not fit, the network is not what the recipe expects, or a stage cannot be run on it;
            nothing is written.
        DivergedError: the loss became NaN; the last good weights are in `out`/checkpoint.
        NothingPrunedError: no entry was selected for pruning.
        ProofError: slim differs from masked in outputs or figures, or a file differs from slim; nothing is written.
        RunError: the test data change between two evaluations; nothing is written.
        Interrupted: by a signal.

    Warns:
        ChanceWarning: the dense network is no better than a constant output.
        RefusedWarning: a file that the recipe asks for is not worth it, such as int8; all others are there.
    """
    torch.manual_seed(recipe.seed)
    clock, journal, before = setting.clock, setting.journal, seen(out)
    warned = [] if warned is None else warned
    with clock.phase("load"):
        loaded, unwrapped = load_dense(recipe, source, setting)
        dense = Shelved(loaded)
        del loaded  # it may be on the disk now
    constant = require_expected(recipe, dense.copy(), setting)
    with clock.phase("selection"):
        rehearse.check(recipe, dense.copy(), setting, place)
    with clock.phase("load"):
        model = dense.copy()
    setting, pruned = dataclasses.replace(setting, dense=dense.copy), Pruned()
    journal.open(fingerprint(recipe, source, setting), clock)
    setting.ranks.wait()  # all processes read the checkpoint before the first one writes
    setting = dataclasses.replace(setting, witness=(witness := Witness()))
    _follow(journal, clock, warned, pruned, model, witness)
    with _keep_last_good(model, lambda weights: _within(weights, out), setting.ranks):
        stages = [
            journal.chapter(
                f"stage {number + 1}", partial(_stage, recipe, number, model, pruned, setting, warned, place)
            )
            for number in range(len(recipe.stages))
        ]
    setting.ranks.require_same(model)
    if not setting.ranks.first:
        return None
    setting.watcher.begin("slim", "slim network")
    with clock.phase("slim"):
        small, parity = _slim(model, setting)
        masked = Shelved(model)
    rivals = _rivals(recipe, small, model, setting)
    latents = probed(recipe, stages, dense.copy, small, model, setting)
    journal.close()
    del model  # from here on, only the network being evaluated is in memory
    looks = {name: Looks(setting.task, setting.data.count("test")) for name in ("dense", "slim")}
    beside, samples = None if constant is None else Compared(setting.task, constant), Samples(setting.task)
    figures = _measured(dense, stages[-1]["after_removal"], small, setting, looks, samples, beside)
    networks = three_networks(dense, masked, Shelved(small))
    del small
    shown = compared(**looks, names=setting.data.class_names)
    shown |= continued(setting, networks["dense"](), networks["slim"]())
    evaluated = witness.document()
    outcome: Outcome = {"stages": stages, "evaluated": evaluated, "parity": parity, "warnings": list(warned)}
    if latents:
        outcome["latents"] = latents
    if rivals is not None:
        outcome["rivals"] = rivals
    if beside is not None:
        outcome["constant"] = beside.document()
    if unwrapped is not None:
        outcome["weights"] = unwrapped
    with whole_folder(out, FILES, "apply", within=journal.folder, before=before) as folder:
        results = write_artefacts(recipe, source, networks, folder, setting, figures, samples, outcome, shown)
    # The results are already in place: a page that fails can be made again, hours of training cannot.
    with added(out, "report.html") as draft:
        draft.write_text(page(results), encoding="utf-8", newline="\n")
    for refused in refusals(results.get("choices", {})):
        warnings.warn(RefusedWarning(refused), stacklevel=2)
    return results


def _follow(
    journal: Journal, clock: Clock, warned: list[Warned], pruned: Pruned, model: nn.Module, witness: Witness
) -> None:
    """Follow everything that a checkpoint between two stages holds, in the order in which it is restored."""
    journal.follow("clock", clock)
    journal.follow("warnings", _Warned(warned))
    journal.follow("witness", witness)
    journal.follow("pruned", pruned)
    journal.follow("shapes", _Shapes(model))
    journal.follow("model", model)
    journal.follow("chance", random_state)


def _stage(
    recipe: schema.Recipe,
    number: int,
    model: nn.Module,
    pruned: Pruned,
    setting: Setting,
    warned: list[Warned],
    place: Callable[[str], str],
) -> StageResult:
    stage, earlier = recipe.stages[number], pruned.copy()
    setting.watcher.begin(
        f"stage_{number + 1}", f"stage {number + 1} of {len(recipe.stages)}, {describe_target(stage)}"
    )
    found = run_stage(model, stage, number, pruned, setting)
    cautions.look_again(stage, number, earlier, pruned, model, setting, place, warned)
    return found


@dataclasses.dataclass(frozen=True)
class _Warned:
    """The warnings issued before an interruption; the same ones were issued again since."""

    said: list[Warned]

    def state_dict(self) -> dict[str, Any]:
        return {"said": self.said}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.said[:] = state["said"]


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """The layers that stages have put into the network."""

    model: nn.Module

    def state_dict(self) -> dict[str, Any]:
        return {"edits": edits_to_json(getattr(self.model, "shape_edits", ()))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        apply_edits(self.model, edits_from_json(state["edits"]))


def _slim(masked: nn.Module, setting: Setting) -> tuple[nn.Module, Parity]:
    """Cut out the zeros, and prove the result on random and on real inputs."""
    masked.eval()
    known, dynamic = setting.couplings(masked), setting.dynamic
    small = slim(masked, setting.example, tolerance=TOLERANCE, known=known, dynamic=dynamic)
    warn_of_graph(small)
    real, _ = pair_of(next(iter(setting.data.batches("test", 100, setting.task, setting.device)())))
    proven = prove_same(masked, small, [setting.example, without_labels(real)], TOLERANCE)
    return small, {
        "masked_vs_slim": proven.difference,
        "inputs": real.rows + setting.example.rows,
        "tolerance": TOLERANCE,
        "precision": proven.precision,
        "constant": list(proven.constant),
    }


def _rivals(recipe: schema.Recipe, small: nn.Module, masked: nn.Module, setting: Setting) -> RivalResults | None:
    if not recipe.rivals.scratch:
        return None
    found = against_scratch(recipe, small, masked, setting)
    setting.watcher.begin("files", "results")
    return {"scratch": found}


def _measured(
    dense: Shelved,
    masked: Metric,
    small: nn.Module,
    setting: Setting,
    looks: dict[str, Looks],
    samples: Samples,
    beside: Compared | None,
) -> dict[ModelName, Quality]:
    """The figures of the three networks on the test samples; those of masked and slim have to agree.

    Args:
        samples: watch the evaluation of the dense network.
        beside: compares both networks with a constant output.
    """
    reach, slim_samples = Reach(TOLERANCE), Samples(setting.task)

    def evaluated(network: nn.Module, *watchers: Callable[[Any, Any], None]) -> Metric:
        def seen(output: Any, target: Any) -> None:
            for watcher in watchers:
                watcher(output, target)

        return setting.evaluate(network, seen)

    constant = ([], []) if beside is None else ([beside.dense], [beside.slim])
    before = evaluated(dense.copy(), looks["dense"], samples, *constant[0])
    after = evaluated(small, looks["slim"], reach, slim_samples, *constant[1])
    reach.require_agreement(masked, after, own=isinstance(setting.task, OwnTask))
    with setting.clock.phase("evaluation"):
        slim_quality = quality(after, slim_samples, samples)
        return {"dense": quality(before, samples), "masked": {**slim_quality, "metric": masked}, "slim": slim_quality}


@contextmanager
def _keep_last_good(model: nn.Module, write: Callable[[State], Path], ranks: Ranks) -> Iterator[None]:
    """If training ends in NaN, `write` the last good weights; `write` returns their file."""
    try:
        yield
    except DivergedError as error:
        if not ranks.first:
            raise
        raise DivergedError(f"{error}; they are in {write(model.state_dict())}") from error


def _beside(weights: State, out: Path) -> Path:
    """Write the last good weights of a training under a new name."""
    path = free(out.with_name(f"{out.stem}.last_good.pt"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(weights, path)
    return path


def _within(weights: State, out: Path) -> Path:
    """Write the last good weights of a retraining, among the results."""
    begin(out, "apply")
    path = free(out / "checkpoint" / "last_good.safetensors")
    with added(out, f"checkpoint/{path.name}") as draft:
        write_weights(weights, draft)
    return path
