"""The proof that a changed network, or a file made from one, computes the same; no other code decides this."""

from compress.proof.drawing import inputs_like, paired
from compress.proof.prove import FILE_BATCHES, ConstantOutputsWarning, Proven, prove_file, prove_same
from compress.proof.running import Passes

__all__ = [
    "FILE_BATCHES",
    "ConstantOutputsWarning",
    "Passes",
    "Proven",
    "inputs_like",
    "paired",
    "prove_file",
    "prove_same",
]
