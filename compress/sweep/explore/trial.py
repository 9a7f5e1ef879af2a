"""One trial of a search: run all stages of a recipe at given levels, like `compress apply`, and measure the network."""

import dataclasses
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import compress.export
from compress.errors import InputError, TrainingError
from compress.export import latency
from compress.graph import stats
from compress.graph.twin import copied
from compress.recipe import schema
from compress.results import StageResult
from compress.run.apply import TOLERANCE
from compress.run.stage import run_stage
from compress.select.choose import LayerCollapseWarning
from compress.select.pruned import Pruned
from compress.slimming.shrink import slim
from compress.sweep.cells import Basis, determinants, network, prepare
from compress.sweep.jobs import fingerprint
from compress.sweep.trained import Trained
from compress.sweep_results import FoundNetwork, TrialLatency, TrialResult, TrialStage

REVISION = 2  # raised when the code computes something different


@dataclass(frozen=True)
class Trial:
    """The stages, one after the other, on the trained network; without stages, that network itself.

    tuning: train without the held-out part and measure on it; else train on all training samples, and measure on the
        test samples.
    timed: also measure the latency.
    """

    trained: Trained
    stages: tuple[schema.Stage, ...]
    seed: int
    tuning: bool = True
    timed: bool = False

    def key(self, basis: Basis) -> str:
        timing = basis.recipe.benchmark.model_dump(mode="json") if self.timed else None
        return fingerprint(
            {
                "search": REVISION,
                **determinants(self.trained, basis, tuning=self.tuning),
                "stages": [stage.model_dump(mode="json", exclude_defaults=True) for stage in self.stages],
                "seed": self.seed,
                "timing": timing,
                **({"recalibrates": True} if any(stage.recalibrates for stage in self.stages) else {}),
            }
        )

    def run(self, basis: Basis) -> TrialResult:
        """`metric`, `params`, `nonzero` and `macs` of the slim network, and what every stage pruned.

        Or `failed`, with the reason: training diverged or a level cannot be reached.
        """
        torch.manual_seed(self.seed)
        setting = prepare(basis, self.seed, tuning=self.tuning)
        model = network(self.trained, basis, self.seed)
        dense = copied(model).eval()
        setting, pruned = dataclasses.replace(setting, dense=lambda: dense), Pruned()
        found: list[StageResult] = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LayerCollapseWarning)  # the metric shows it
                for number, stage in enumerate(self.stages):
                    found.append(run_stage(model, stage, number, pruned, setting))
        except (TrainingError, InputError) as error:
            return {"failed": str(error)}
        if self.stages and not any(stage["pruned"] for stage in found):
            return {"failed": "nothing is pruned at a level this low"}
        small = (
            slim(model.eval(), setting.example, tolerance=TOLERANCE, known=setting.couplings(model))
            if self.stages
            else dense
        )
        example = setting.example.mapped(Tensor.cpu)
        size = stats.measure(small.cpu(), example)
        came_to: FoundNetwork = {
            "metric": found[-1]["after_removal"] if found else setting.evaluate(small.to(setting.device)),
            "params": size.params,
            "nonzero": size.nonzero,
            "macs": size.macs,
            "stages": [_stage(stage) for stage in found],
        }
        if self.timed:
            came_to["latency"] = _latency(dense.cpu(), small.cpu(), example, basis.recipe.benchmark)
        return came_to


def network_of(result: TrialResult) -> FoundNetwork:
    """The network of a trial that prunes nothing, and so cannot fail."""
    assert "failed" not in result
    return result


def _stage(found: StageResult) -> TrialStage:
    return {"achieved": found["achieved"], "pruned": found["pruned"], "of": found["of"], "steps": found["steps"]}


def _latency(dense: nn.Module, small: nn.Module, example: object, wanted: schema.Benchmark) -> TrialLatency:
    """p50 of both in ms at the first batch size, timed in turns, and the ratio of slim to dense."""
    batch = wanted.batch_sizes[0]
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / f"{name}.onnx" for name in ("dense", "slim")}
        for name, model in (("dense", dense), ("slim", small)):
            compress.export.onnx(model, files[name], example)
        timings = latency.measure(files, batch_sizes=[batch], threads=wanted.threads)
    found = timings.summary()
    return {
        "batch": batch,
        "ratio": timings.ratio("slim", "dense", batch),
        "dense": found["dense"][str(batch)].p50,
        "slim": found["slim"][str(batch)].p50,
    }
