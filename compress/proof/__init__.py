"""The proof that a changed network, or a file made of one, computes the same: the only place that says so."""

from compress.proof.drawing import inputs_like
from compress.proof.prove import FILE_BATCHES, ConstantOutputsWarning, Proven, prove_file, prove_same

__all__ = ["FILE_BATCHES", "ConstantOutputsWarning", "Proven", "inputs_like", "prove_file", "prove_same"]
