"""The dense network on a part of the test data, before anything is pruned: is it what its owner knows?

A network that is called with other inputs than it was trained on runs all the same, and is pruned, retrained and
compared at a fraction of its accuracy. So the figure is shown, and compared with the one in the recipe's `expect`.
"""

import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from compress.batches import pair_of
from compress.data.dataset import Dataset, TrainingData
from compress.data.image_options import Normalise, Statistics
from compress.data.image_parts import rescaled
from compress.data.streaming import StreamedDataset
from compress.documents import InputRange, Measured
from compress.errors import InputError, TrainingError
from compress.ranking import kind_of
from compress.recipe import schema
from compress.report.plans import inputs
from compress.results import Metric
from compress.run.against_constant import Compared, constant_output
from compress.run.setting import Setting
from compress.run_warnings import RunWarning
from compress.select.scoring import EVALUATION_BATCH
from compress.tasks import loss
from compress.tasks.constant import ConstantOutput
from compress.train import metrics
from compress.wording import count_of, did_you_mean

BATCHES = 8
"""Of test samples that are measured: 2,000 samples tell an accuracy to about a point."""

ENOUGH = 100
"""Fewer samples do not tell a network that has learned little from one that knows nothing."""

POINTS, SHARE, ERRORS = 0.02, 0.05, 3.0
"""How far from the expected figure the measured one may be: an accuracy by two points, another metric by a twentieth
of it, and each by three standard errors."""


class ChanceWarning(RunWarning):
    """The dense network is no better than an output that does not depend on the input."""

    kind = "chance"


@dataclass(frozen=True)
class Sample:
    """What was measured of a network.

    error: the standard error of the loss, from the differences between batches; 0 where there are too few.
    """

    metric: Metric
    samples: int
    inputs: list[InputRange]
    error: float


def sample(network: nn.Module, setting: Setting, beside: Compared | None = None) -> Sample:
    """Measure the network on up to `BATCHES` batches of test samples, drawn at random where the data allow it.

    Args:
        beside: compares it with a constant output.

    Raises:
        TrainingError: a metric is not finite.
    """
    batches = setting.data.batches("test", EVALUATION_BATCH, setting.task, setting.device)
    losses: list[float] = []
    ranges: list[InputRange] = []
    count = 0

    def drawn() -> Iterator[Any]:
        nonlocal count
        for batch in islice(batches(torch.Generator().manual_seed(setting.seed)), BATCHES):
            given, _ = pair_of(batch)
            count += given.rows
            if not ranges:
                ranges.extend(_ranges(given))
            yield batch

    def seen(output: object, target: object) -> None:
        losses.append(float(loss(setting.task)(output, target)))
        if beside is not None:
            beside.dense(output, target)

    with torch.random.fork_rng([]):
        metric = metrics.evaluate(network, drawn, setting.task, seen, partial=True)
    error = statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 2 else 0.0
    return Sample(metric, count, ranges, error)


def document(found: Sample, setting: Setting, beside: Compared | None = None) -> Measured:
    """For `compress plan --json`."""
    made: Measured = {"metric": found.metric, "samples": found.samples, "inputs": found.inputs}
    if beside is not None and (constant := beside.metric) is not None:
        made["constant"] = {"output": beside.words, "metric": constant}
    if (count := setting.data.count("test")) is not None:
        made["of"] = count
    if setting.data.preparation is not None:
        made["preparation"] = setting.data.preparation.described()
    return made


def _ranges(given: Any) -> Iterator[InputRange]:
    named = {**{f"input {number}": one for number, one in enumerate(given.args)}, **given.kwargs}
    if len(given.args) == 1:
        named = {"input" if name == "input 0" else name: one for name, one in named.items()}
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.is_complex():
            continue
        values = tensor.double()
        values = values[values.isfinite()]  # additive masks are made of -inf
        if len(values):
            yield {
                "name": name,
                "min": float(values.min()),
                "max": float(values.max()),
                "mean": float(values.mean()),
            }


def _error_of_share(share: float, samples: int) -> float:
    """The standard error of a share that is estimated from so many samples."""
    return math.sqrt(share * (1 - share) / samples)


# --- what its owner knows ---


def require_expected(recipe: schema.Recipe, network: nn.Module, setting: Setting) -> ConstantOutput | None:
    """Compare the dense network with the recipe's `expect` and with a constant output, on a part of the test data.

    Returns:
        The constant output, such as the mean image; None where the network's figures are not finite, of which the run
        itself speaks.

    Raises:
        InputError: it is another network than its owner knows, or `expect` names a metric that there is not.

    Warns:
        ChanceWarning: it is no better than the constant output.
    """
    with setting.clock.phase("evaluation"):
        try:
            constant = constant_output(network, setting)
            beside = Compared(setting.task, constant)
            found = sample(network, setting, beside)
        except TrainingError as error:
            if recipe.expect is None:
                return None
            raise InputError(f"expect: {error}") from error
        judge(recipe, network, setting, found, beside)
        return constant


def judge(recipe: schema.Recipe, network: nn.Module, setting: Setting, found: Sample, beside: Compared) -> None:
    """`require_expected`, of a network that has been measured."""
    missed = [name for name, wanted in (recipe.expect or {}).items() if not _holds(name, wanted, found)]
    if missed:
        name = missed[0]
        told = "; ".join(_told(name, wanted, found) for name, wanted in (recipe.expect or {}).items() if name in missed)
        raise InputError(
            f"expect: {told}. {_inputs(setting, found)}. Was it trained that way? {_ways_out(network, setting, name)}"
        )
    constant = beside.metric
    if recipe.expect is not None or constant is None or found.samples < ENOUGH:
        return
    for kind in beside.judged:
        if kind.name in constant and kind.name in found.metric and beside.is_chance(kind):
            warnings.warn(
                ChanceWarning(
                    f"the dense network is no better than a constant output: its {kind.name} is "
                    f"{kind.text(found.metric[kind.name])} on {count_of(found.samples, 'test sample')}, and that of "
                    f"{beside.words} is {kind.text(constant[kind.name])}; {inputs(document(found, setting))}",
                    f"was it trained that way? {_ways_out(network, setting, kind.name).rstrip('.')}",
                ),
                stacklevel=3,
            )
            return


def _holds(name: str, wanted: float | schema.Bound, found: Sample) -> bool:
    if name not in found.metric:
        near = did_you_mean(name, found.metric)
        raise InputError(f"expect: the task has no metric {name!r}; it has {', '.join(found.metric)}{near}")
    value = found.metric[name]
    if isinstance(wanted, schema.Bound):
        low = -math.inf if wanted.at_least is None else wanted.at_least
        high = math.inf if wanted.at_most is None else wanted.at_most
        return low <= value <= high
    return abs(value - wanted) <= _tolerance(name, wanted, found)


def _tolerance(name: str, wanted: float, found: Sample) -> float:
    if kind_of(name).form == "share":
        return max(POINTS, ERRORS * _error_of_share(min(max(wanted, 0.0), 1.0), found.samples))
    return max(SHARE * abs(wanted), ERRORS * found.error if name == "loss" else 0.0)


def _told(name: str, wanted: float | schema.Bound, found: Sample) -> str:
    if isinstance(wanted, schema.Bound):
        bounds = {"at least": wanted.at_least, "at most": wanted.at_most}
        owner = " and ".join(f"{words} {value:.4g}" for words, value in bounds.items() if value is not None)
    else:
        owner = f"{wanted:.4g} \N{PLUS-MINUS SIGN} {_tolerance(name, wanted, found):.2g}"
    return (
        f"the dense network's {name} is {found.metric[name]:.4g} on {count_of(found.samples, 'test sample')}, and the "
        f"recipe expects {owner}"
    )


def _inputs(setting: Setting, found: Sample) -> str:
    text = inputs(document(found, setting))
    return text[0].upper() + text[1:]


def _ways_out(network: nn.Module, setting: Setting, name: str) -> str:
    """The keys to try; where images can be normalised in another way, with what the network then has."""
    data = setting.data
    if not isinstance(data, Dataset | StreamedDataset):
        return "Compare the data of the recipe with those of its own script, and `task` and the weights."
    tried: list[str] = []
    for way, other in _other_scales(data):
        try:
            value = sample(network, replace(setting, data=other)).metric[name]
        except TrainingError:
            continue
        tried.append(f"{way} {value:.4g}")
    return (
        f"Its {name} with other values of `data.normalise`: {', '.join(tried)}. If none fits, compare `data.channels`, "
        "`resize` and `crop`, the order of the classes, and the weights."
    )


def _other_scales(data: Dataset | StreamedDataset) -> Iterator[tuple[str, TrainingData]]:
    words: Sequence[Normalise | Statistics] = ("none", "dataset", "imagenet", Statistics((0.5,), (0.5,)))
    for way in words:
        if way == data.options.normalise or (way == "imagenet" and data.shape[0] != 3):
            continue
        if (found := rescaled(data, way)) is not None:
            yield (way if isinstance(way, str) else "{mean: [0.5], std: [0.5]}"), found
