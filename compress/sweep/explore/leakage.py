"""Whether the dense network knows the held-out images: a bound relative to it is then stricter than it looks."""

import warnings

from compress.results import Metric
from compress.sweep.cell_store import Cells
from compress.sweep.cells import HELD_OUT, Basis, compute, load
from compress.sweep.engines import ONE
from compress.sweep.explore.bounds import Bound
from compress.sweep.explore.trial import Trial, network_of
from compress.sweep.trained import Trained

BETTER = 1.3
"""Times the loss on the held-out images is the loss on the test images, where a network has to have learnt the former:
beyond what chance makes of some hundred images."""


class FamiliarDataWarning(UserWarning):
    """The dense network is so much better on the held-out images than on the test images that it knows them."""


def warn_if_familiar(bound: Bound, held_out: Metric, trained: Trained, basis: Basis, cells: Cells) -> None:
    """Measure the dense network on the test images, which decides nothing but whether to warn.

    Args:
        bound: what is relative to the dense network.
        held_out: its metric on the held-out images.
    """
    dense = Trial(trained, (), basis.recipe.seed, tuning=False)
    (found,) = compute([("dense, on the test images", dense)], basis, cells, ONE)
    metric = network_of(found)["metric"]
    if metric["loss"] > BETTER * held_out["loss"]:
        images = load(basis.recipe.data, basis.data_root, True).count("train")
        warnings.warn(
            f"the dense network's loss is {held_out['loss']:.4g} on the held-out training images and "
            f"{metric['loss']:.4g} on the test images: it seems to have been trained on the former, and {bound.text} "
            f"is then stricter than it looks; train it on the others alone (compress train --set data.train={images}, "
            f"the last {HELD_OUT:.0%} being held out)",
            FamiliarDataWarning,
            stacklevel=2,
        )
