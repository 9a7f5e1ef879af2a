"""softprune: make a trained PyTorch network small, and prove that it computes the same.

pruner = compress.Pruner(model, "decoder.*", sparsity=0.9, removal=compress.Soft(steps=1000))
...                                                  # the training loop, with pruner.step() after optimizer.step()
pruner.finalize()                                    # exactly zero, plain parameter names again
small = compress.slim(model, example)                # really smaller; raises unless small(x) == model(x)
compress.export.onnx(small, "small.onnx", example)   # raises unless onnxruntime agrees
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress import export as export
    from compress.batches import Attributed as Attributed
    from compress.errors import CheckpointError as CheckpointError
    from compress.errors import CompressError as CompressError
    from compress.errors import ConstantOutputError as ConstantOutputError
    from compress.errors import DataError as DataError
    from compress.errors import DivergedError as DivergedError
    from compress.errors import InputError as InputError
    from compress.errors import Interrupted as Interrupted
    from compress.errors import LostProcessError as LostProcessError
    from compress.errors import LostWorkerError as LostWorkerError
    from compress.errors import MissingPackageError as MissingPackageError
    from compress.errors import NothingFoundError as NothingFoundError
    from compress.errors import NothingPrunedError as NothingPrunedError
    from compress.errors import OutputError as OutputError
    from compress.errors import ProofError as ProofError
    from compress.errors import RecipeError as RecipeError
    from compress.errors import RunError as RunError
    from compress.errors import SweepError as SweepError
    from compress.errors import TargetError as TargetError
    from compress.errors import TrainingError as TrainingError
    from compress.errors import UnsupportedModelError as UnsupportedModelError
    from compress.files.checkpoint import load as load
    from compress.graph.coupling import couplings as couplings
    from compress.inputs import Inputs as Inputs
    from compress.loops.accelerate_loop import AcceleratePruning as AcceleratePruning
    from compress.loops.lightning_callback import LightningPruning as LightningPruning
    from compress.loops.pruning import TrainingLength as TrainingLength
    from compress.loops.trainer_callback import TrainerPruning as TrainerPruning
    from compress.proof import ConstantOutputsWarning as ConstantOutputsWarning
    from compress.remove.masks import SoftPruningMethod as SoftPruningMethod
    from compress.remove.prune import prune as prune
    from compress.remove.pruner import Pruner as Pruner
    from compress.remove.removals import SFP as SFP
    from compress.remove.removals import SRFP as SRFP
    from compress.remove.removals import Gradual as Gradual
    from compress.remove.removals import GradualSoft as GradualSoft
    from compress.remove.removals import GReg as GReg
    from compress.remove.removals import Hard as Hard
    from compress.remove.removals import Removal as Removal
    from compress.remove.removals import Soft as Soft
    from compress.remove.remover import EarlyRemovalWarning as EarlyRemovalWarning
    from compress.select.choose import LayerCollapseWarning as LayerCollapseWarning
    from compress.select.criteria import OBD as OBD
    from compress.select.criteria import OBS as OBS
    from compress.select.criteria import Ablation as Ablation
    from compress.select.criteria import Criterion as Criterion
    from compress.select.criteria import Lamp as Lamp
    from compress.select.criteria import Magnitude as Magnitude
    from compress.select.criteria import Norms as Norms
    from compress.select.criteria import PrincipalAxes as PrincipalAxes
    from compress.select.criteria import Random as Random
    from compress.select.criteria import ScaledMagnitude as ScaledMagnitude
    from compress.select.criteria import Skeletonization as Skeletonization
    from compress.select.criteria import Snip as Snip
    from compress.select.criteria import Taylor as Taylor
    from compress.select.criteria import Variance as Variance
    from compress.select.regrow import Regrowth as Regrowth
    from compress.select.targets import branches as branches
    from compress.select.targets import nodes as nodes
    from compress.select.targets import weights as weights
    from compress.slimming.shrink import slim as slim
    from compress.slimming.slim_graph import SlimGraph as SlimGraph
    from compress.slimming.slim_graph import SlimGraphWarning as SlimGraphWarning
    from compress.slimming.training import TrainingOnlyWarning as TrainingOnlyWarning
    from compress.sparsify.decisions import SparseReport as SparseReport
    from compress.sparsify.layer import SparseLinear as SparseLinear
    from compress.sparsify.sparse import sparse as sparse
    from compress.train.latents import codes as codes
    from compress.train.probes import Codes as Codes
    from compress.train.probes import probe as probe
    from compress.train.recalibrate import recalibrate as recalibrate
    from compress.train.shaping import Shaping as Shaping

__version__ = "0.1.0"

_CRITERIA = (
    *("Ablation", "Criterion", "Lamp", "Magnitude", "Norms", "OBD", "OBS", "PrincipalAxes", "Random"),
    *("ScaledMagnitude", "Skeletonization", "Snip", "Taylor", "Variance"),
)
_REMOVALS = ("GReg", "Gradual", "GradualSoft", "Hard", "Removal", "SFP", "SRFP", "Soft")
_ERRORS = (
    *("CheckpointError", "CompressError", "DataError", "DivergedError", "InputError", "Interrupted"),
    *("LostProcessError", "LostWorkerError"),
    *("ConstantOutputError", "MissingPackageError", "NothingFoundError", "NothingPrunedError", "OutputError"),
    *("ProofError", "RecipeError"),
    *("RunError", "SweepError", "TargetError", "TrainingError", "UnsupportedModelError"),
)

# Importing torch takes seconds, which `compress --help` and a recipe's mistakes need not wait for: each name is
# imported from its home when it is first used.
_HOMES = {
    "prune": "compress.remove.prune",
    "Pruner": "compress.remove.pruner",
    "branches": "compress.select.targets",
    "nodes": "compress.select.targets",
    "weights": "compress.select.targets",
    "Regrowth": "compress.select.regrow",
    "slim": "compress.slimming.shrink",
    "SlimGraph": "compress.slimming.slim_graph",
    "SlimGraphWarning": "compress.slimming.slim_graph",
    "TrainingOnlyWarning": "compress.slimming.training",
    "sparse": "compress.sparsify.sparse",
    "SparseLinear": "compress.sparsify.layer",
    "SparseReport": "compress.sparsify.decisions",
    "recalibrate": "compress.train.recalibrate",
    "Shaping": "compress.train.shaping",
    "Attributed": "compress.batches",
    "codes": "compress.train.latents",
    "Codes": "compress.train.probes",
    "probe": "compress.train.probes",
    "couplings": "compress.graph.coupling",
    "Inputs": "compress.inputs",
    "load": "compress.files.checkpoint",
    "ConstantOutputsWarning": "compress.proof",
    "SoftPruningMethod": "compress.remove.masks",
    "EarlyRemovalWarning": "compress.remove.remover",
    "LayerCollapseWarning": "compress.select.choose",
    "AcceleratePruning": "compress.loops.accelerate_loop",
    "LightningPruning": "compress.loops.lightning_callback",
    "TrainerPruning": "compress.loops.trainer_callback",
    "TrainingLength": "compress.loops.pruning",
    **dict.fromkeys(_CRITERIA, "compress.select.criteria"),
    **dict.fromkeys(_REMOVALS, "compress.remove.removals"),
    **dict.fromkeys(_ERRORS, "compress.errors"),
}

__all__ = ["__version__", "export", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "export":
        return import_module("compress.export")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
