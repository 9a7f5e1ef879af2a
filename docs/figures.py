"""Draws the figures of soft-pruning.md, of real numbers; prunes a network for it, in two minutes.

    python docs/figures.py

The autoencoder of the paper's Table IV on mnist_sample (no download), one thread, seed 0; 90 % of its decoder's weights
go.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compress import models, tasks
from compress.data import sources
from compress.data.dataset import Dataset
from compress.remove import decay
from compress.remove.pruner import Pruner
from compress.remove.removals import Gradual, GradualSoft, Hard, Removal, Soft
from compress.report import plots
from compress.train import metrics
from compress.train.loop import train
from compress.train.optimization import LRSchedule, Optimization

IMAGES = Path(__file__).parent / "images"
TARGETS, SPARSITY = ["decoder.*"], 0.9
LAYER = "decoder.7"  # 512 x 256, in the middle
BATCH_SIZE, STEPS, EVERY = 32, 600, 5


def main() -> None:
    torch.set_num_threads(1)
    draw_curves()
    data = sources.mnist_sample()
    dense = models.autoencoder(64, generator=torch.Generator().manual_seed(0))
    train_on(data, dense, 5000, "cosine")  # 40 epochs
    draw_fading(data, dense)
    draw_losses(data, dense)


def draw_curves() -> None:
    """Figure 1 of the paper, with all curves that a recipe may name."""
    figure, axes = plots.canvas()
    progress = [step / 400 for step in range(401)]
    for number, (name, curve) in enumerate(decay.CURVES.items()):
        colour, dashes = plots.style(number)
        axes.plot(progress, [curve(at) for at in progress], dashes, color=colour, label=name)
    axes.set(xlabel="share of the decay's steps that is done", ylabel="what pruned weights are multiplied by")
    axes.legend()
    plots.save(figure, "decay", IMAGES / "decay.svg")


def draw_fading(data: Dataset, dense: nn.Module) -> None:
    """The weights of one layer at five moments of a linear decay: the chosen ones move to zero, the others learn on."""
    model, moments = copy.deepcopy(dense), {}
    pruner = Pruner(model, TARGETS, sparsity=SPARSITY, removal=Soft(steps=STEPS, decay="linear"))
    weight = model.get_parameter(f"{LAYER}.weight_orig")  # the effective weight, during pruning

    def keep(step: int) -> None:
        if step % (STEPS // 4) == 0:
            moments[f"{step / STEPS:.0%}"] = weight.detach().numpy().copy().ravel()

    keep(0)
    train_on(data, model, STEPS, "constant", pruner, keep)
    figure, axes = plots.canvas()
    edges = np.linspace(-0.3, 0.3, 121)
    for number, (done, weights) in enumerate(moments.items()):
        colour, dashes = plots.style(number)
        counts, _ = np.histogram(weights, edges)
        label = f"{done}, exactly zero: {np.mean(weights == 0):.0%}"
        axes.stairs(np.maximum(counts, 0.5), edges, color=colour, linestyle=dashes, label=label)
    axes.set(xlabel=f"weight of the layer {LAYER}", ylabel="how many", yscale="log", ylim=(0.8, None))
    axes.legend(title="steps of the decay that are done")
    plots.save(figure, "fading", IMAGES / "fading.svg")


def draw_losses(data: Dataset, dense: nn.Module) -> None:
    """The test loss while weights go and the rest retrains, four ways at equal steps."""
    cohort = STEPS // 6
    ways: Mapping[str, Callable[[], Removal]] = {
        "hard": Hard,
        "soft": lambda: Soft(steps=3 * STEPS // 5),
        "gradual": lambda: Gradual(steps=3 * STEPS // 5, every=20),
        "gradual_soft": lambda: GradualSoft(steps=3 * STEPS // 5, every=20, cohort=cohort),
    }
    figure, axes = plots.canvas()
    start = test_loss(data, dense)
    axes.axhline(start, color=plots.COLOURS[-1], linestyle=":", label=f"dense: {start:.1f}")
    for number, (name, removal) in enumerate(ways.items()):
        model = copy.deepcopy(dense)
        pruner = Pruner(model, TARGETS, sparsity=SPARSITY, removal=removal())
        steps, losses = [0], [test_loss(data, model)]

        train_on(data, model, STEPS, "constant", pruner, partial(measure, data, model, steps, losses))
        pruner.finalize()
        colour, dashes = plots.style(number)
        axes.plot(steps, losses, dashes, color=colour, label=f"{name}: {test_loss(data, model):.1f} in the end")
    plots.log_losses(axes)
    axes.set(xlabel=f"steps of retraining; everything is gone after {3 * STEPS // 5}", ylabel="test loss x 10^-3")
    axes.legend()
    plots.save(figure, "losses", IMAGES / "losses.svg")


def measure(data: Dataset, model: nn.Module, steps: list[int], losses: list[float], step: int) -> None:
    """Note the test loss, every so many steps."""
    if step % EVERY == 0:
        steps.append(step)
        losses.append(test_loss(data, model))


def train_on(
    data: Dataset,
    model: nn.Module,
    steps: int,
    schedule: LRSchedule,
    pruner: Pruner | None = None,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """Reconstruct the digits for so many steps; `pruner` prunes, and `after` looks on."""

    def after_step(step: int) -> None:
        if pruner is not None:
            pruner.step()
        after(step)

    train(
        model,
        data.batches("train", BATCH_SIZE, "reconstruct"),
        tasks.loss("reconstruct"),
        steps,
        Optimization("adamw", lr=1e-3, lr_schedule=schedule),
        generator=torch.Generator().manual_seed(0),
        after_step=after_step,
    )


def test_loss(data: Dataset, model: nn.Module) -> float:
    """Mean squared error per pixel on the test images, x 10^3, of the weights as they act at this moment."""
    return 1e3 * metrics.evaluate(model, data.batches("test", 250, "reconstruct"), "reconstruct")["loss"]


if __name__ == "__main__":
    main()
