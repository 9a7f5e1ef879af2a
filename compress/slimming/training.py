"""Tensors that only training reads: their widths are not followed, since the trace is in evaluation mode."""

import warnings

import torch
from torch import nn

from compress.graph.coupling import Couplings
from compress.graph.flow import UNUSED
from compress.graph.untouched import untouched
from compress.inputs import Inputs
from compress.proof.randomness import seeded
from compress.run_warnings import RunWarning

_LISTED = 3


class TrainingOnlyWarning(RunWarning):
    """A slim network does not run in training mode, which reads tensors that evaluation does not use."""

    kind = "training_only"


def warn_where_training_fails(model: nn.Module, small: nn.Module, given: Inputs, known: Couplings) -> None:
    """Warn where the network runs in training mode, and the slim one does not."""
    unused = [name for name, reason in known.kept.items() if reason == UNUSED]
    if not unused or _failure(model, given) is not None:
        return
    failure = _failure(small, given)
    if failure is not None:
        listed = ", ".join(unused[:_LISTED]) + (f" and {len(unused) - _LISTED} more" if len(unused) > _LISTED else "")
        warnings.warn(
            f"The slim network does not run in training mode, where the network itself does: {failure}. Evaluation, "
            f"which is followed, does not use {listed}; where training does, they keep the size that they have. To "
            "train on, slim the network without them (GoogLeNet: aux_logits=False; Wav2Vec2: mask_time_prob=0), or "
            "exclude the layers that they read from the nodes",
            TrainingOnlyWarning,
            stacklevel=3,
        )


def _failure(model: nn.Module, given: Inputs) -> Exception | None:
    """The error that a pass in training mode raises, or None; the network does not change."""
    with untouched(model) as network, seeded():
        for module in network.modules():
            module.training = True
        try:
            given.few().mapped(torch.clone).call(network)
        except Exception as error:
            return error
    return None
