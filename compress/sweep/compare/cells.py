"""One cell of a comparison: prune the trained network by one recipe stage, or train its shape, and measure it."""

import warnings
from dataclasses import dataclass, replace

import torch
from torch import nn

from compress.errors import InputError, TrainingError
from compress.graph.twin import copied
from compress.recipe import schema
from compress.results import ScratchLength
from compress.run.rivals import from_scratch, parts_of, train
from compress.run.setting import Setting
from compress.run.stage import run_stage
from compress.select.choose import LayerCollapseWarning
from compress.select.pruned import Pruned
from compress.slimming.shrink import dead_in, slim
from compress.sweep.cells import Basis, determinants, network, prepare
from compress.sweep.jobs import fingerprint
from compress.sweep.trained import Trained
from compress.sweep_results import ComparedCell

SCRATCH_REVISION = 1
REVISION = 3  # raised when the code computes something different, so that cached cells are computed again


@dataclass(frozen=True)
class StageCell:
    """One run of one stage, or the dense network itself without a stage.

    tuning: trains without the held-out part and is measured on it; the test samples are not used. Otherwise it trains
        on all training samples and is measured on the test samples.
    number: the stage's place in its recipe, on which its random numbers depend.
    """

    trained: Trained
    stage: schema.Stage | None
    seed: int
    tuning: bool = False
    number: int = 0

    def key(self, basis: Basis) -> str:
        return fingerprint(
            {
                "revision": REVISION,
                **determinants(self.trained, basis, tuning=self.tuning),
                "seed": self.seed,
                "number": self.number,
                "stage": None if self.stage is None else self.stage.model_dump(mode="json", exclude_defaults=True),
                **({"recalibrates": True} if self.stage is not None and self.stage.recalibrates else {}),
            }
        )

    def run(self, basis: Basis) -> ComparedCell:
        """The outcome: `dense` metrics without a stage, else `before_removal` and `after_removal`.

        If training diverges, `diverged` has the error, and there are no metrics: that is a valid result.
        """
        torch.manual_seed(self.seed)
        setting = prepare(basis, self.seed, tuning=self.tuning)
        model = network(self.trained, basis, self.seed)
        if self.stage is None:
            return {"dense": setting.evaluate(model)}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LayerCollapseWarning)  # the metric shows it
                found = run_stage(model, self.stage, self.number, Pruned(), setting)
        except TrainingError as error:
            return {"diverged": str(error)}
        return {
            "achieved": found["achieved"],
            "before_removal": found["before_removal"],
            "after_removal": found["after_removal"],
            "steps": found["steps"],
            "removal_steps": found["removal_steps"],
        }


@dataclass(frozen=True)
class ScratchCell:
    """The shape that a stage leaves, trained from random weights on the same samples.

    cell: of the stage. length: of the training.
    """

    cell: StageCell
    length: ScratchLength

    def key(self, basis: Basis) -> str:
        return fingerprint(
            {
                "scratch": SCRATCH_REVISION,
                "cell": self.cell.key(basis),
                "length": self.length,
                "train": basis.recipe.model_dump(mode="json", include={"train"}, exclude_defaults=True)
                if self.length == "total"
                else None,
            }
        )

    def run(self, basis: Basis) -> ComparedCell:
        """`after_removal` is the metric of the trained network, from which nothing was removed.

        Raises:
            InputError: the stage leaves the shape as it was.
            UnsupportedModelError: the shape cannot be trained (see `fresh`).
        """
        cell, stage = self.cell, self.cell.stage
        assert stage is not None
        dense = network(cell.trained, basis, cell.seed)
        setting = replace(prepare(basis, cell.seed, tuning=cell.tuning), dense=lambda: dense)
        try:
            small = _shape(copied(dense), cell, setting)
            rival = from_scratch(basis.recipe, small, setting)
            recipe = basis.recipe.model_copy(update={"stages": (stage,)})
            done = [train(rival, part, setting) for part in parts_of(recipe, self.length)]
            return {"after_removal": setting.evaluate(rival), "steps": sum(found["steps"] for found in done)}
        except TrainingError as error:
            return {"diverged": str(error)}


def _shape(model: nn.Module, cell: StageCell, setting: Setting) -> nn.Module:
    """The slim network that the stage leaves."""
    assert cell.stage is not None
    torch.manual_seed(cell.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)
        run_stage(model, cell.stage, cell.number, Pruned(), setting)
    require_cut(model.eval(), setting)
    return slim(model, setting.example, known=setting.couplings(model))


def require_cut(model: nn.Module, setting: Setting) -> None:
    """Raises InputError if `slim` would leave the pruned network as large as it is."""
    if not dead_in(model, setting.couplings(model)):
        raise InputError(
            "--rival scratch: nothing can be cut out of the pruned network, so its shape is the dense network's: prune "
            "nodes, or more of the weights"
        )
