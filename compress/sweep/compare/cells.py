"""One cell of a comparison: prune the trained network by one recipe stage, and measure it."""

import warnings
from dataclasses import dataclass

import torch

from compress.errors import TrainingError
from compress.recipe import schema
from compress.run.stage import run_stage
from compress.select.choose import LayerCollapseWarning
from compress.select.pruned import Pruned
from compress.sweep.cells import Basis, determinants, network, prepare
from compress.sweep.jobs import fingerprint
from compress.sweep.trained import Trained
from compress.sweep_results import ComparedCell

REVISION = 2  # raised when the code computes something different, so that cached cells are computed again


@dataclass(frozen=True)
class StageCell:
    """One run of one stage, or the dense network itself without a stage.

    tuning: trains on all but the held-out part of the training images, and is measured on that part; the test images
        are not used. Otherwise it trains on all training images and is measured on the test images.
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
