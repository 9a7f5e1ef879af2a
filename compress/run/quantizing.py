"""int8 of a run's ONNX files: made from its training data, and measured on its test data in onnxruntime."""

from pathlib import Path

import torch
from torch import Tensor, nn

from compress.batches import Batches, Subset
from compress.evaluation_mode import evaluation_mode
from compress.export.onnx_network import OnnxNetwork
from compress.quantize.agreement import agreement
from compress.quantize.choosing import Quantized, quantize
from compress.quantize.settings import Quantization
from compress.quantize.training_data import Split
from compress.recipe import schema
from compress.results import Agreement, Metric
from compress.run.setting import Setting
from compress.select.scoring import EVALUATION_BATCH
from compress.train import metrics


def quantized(recipe: schema.Recipe, setting: Setting, network: nn.Module, file: Path, out: Path) -> Quantized:
    """Make int8 of the ONNX file of `network`, as the recipe's `quantize` and `benchmark` say.

    Raises:
        InputError, ProofError, OutputError: as `compress.quantize.choosing.quantize`.
    """
    wanted = Quantization() if recipe.quantize is None else recipe.quantize.build()
    batches, like = _batches(setting, "train"), _output(network, setting)
    data = Split(lambda: batches(torch.Generator().manual_seed(recipe.seed)), wanted.calibration.samples)
    return quantize(
        file,
        out,
        data.feeds(file),
        wanted,
        lambda candidate: data.metric(candidate, setting.task, like),
        batch_sizes=recipe.benchmark.batch_sizes,
        threads=recipe.benchmark.threads,
    )


def metric_of_file(setting: Setting, network: nn.Module, file: Path) -> Metric:
    """The metric of an ONNX file of `network` on all test data, as onnxruntime computes it."""
    model = OnnxNetwork(file, like=_output(network, setting))
    return metrics.evaluate(model, _batches(setting, "test"), setting.task)


def agreement_of_files(setting: Setting, int8: Path, float_file: Path) -> Agreement:
    """How much two ONNX files agree on all test data."""
    return agreement(OnnxNetwork(float_file), OnnxNetwork(int8), _batches(setting, "test")(), setting.task)


def _batches(setting: Setting, subset: Subset) -> Batches:
    return setting.data.batches(subset, EVALUATION_BATCH, setting.task, "cpu")


def _output(network: nn.Module, setting: Setting) -> object:
    """What the network returns for the example, on the CPU."""
    with evaluation_mode(network):
        return setting.example.mapped(Tensor.cpu).call(network)
