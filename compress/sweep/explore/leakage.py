"""Detect that the dense network was trained on the held-out samples, on which bounds are judged."""

import warnings

from compress.results import Metric
from compress.run_warnings import RunWarning
from compress.sweep.cell_store import Cells
from compress.sweep.cells import HELD_OUT, Basis, compute, load, tunes_on_validation
from compress.sweep.engines import ONE
from compress.sweep.explore.bounds import Bound
from compress.sweep.explore.trial import Trial, network_of
from compress.sweep.trained import Trained

BETTER = 1.3
"""The ratio of test loss to held-out loss from which a network must have been trained on the held-out samples: more
than chance explains for some hundred of them."""


class FamiliarDataWarning(RunWarning):
    """The dense network is so much better on the held-out samples that it was probably trained on them."""

    kind = "known_data"


def warn_if_familiar(bound: Bound, held_out: Metric, trained: Trained, basis: Basis, cells: Cells) -> None:
    """Measure the dense network on the test samples, only to decide whether to warn.

    Args:
        bound: the bound on quality.
        held_out: the dense network's metric on the held-out samples.
    """
    dense = Trial(trained, (), basis.recipe.seed, tuning=False)
    (found,) = compute([("dense, on the test samples", dense)], basis, cells, ONE)
    metric = network_of(found)["metric"]
    if metric["loss"] > BETTER * held_out["loss"]:
        warnings.warn(
            FamiliarDataWarning(
                f"the dense network's loss is {held_out['loss']:.4g} on the held-out samples and "
                f"{metric['loss']:.4g} on the test samples: it was probably trained on the former, which makes "
                f"{bound.text} {'stricter' if bound.relative_quality else 'less strict'} than it looks",
                _way_out(basis),
            ),
            stacklevel=2,
        )


def _way_out(basis: Basis) -> str:
    way_out = "give samples as `data.validation` that it was not trained on"
    if tunes_on_validation(basis) or basis.recipe.train is None:
        return way_out
    samples = load(basis.recipe.data, basis.data_root, True).count("train")
    return (
        f"{way_out}, or, if this recipe has trained it, train it again without them (--set data.train={samples}; the "
        f"last {HELD_OUT:.0%} of the training samples are held out)"
    )
