"""Pruning in the training loops of other libraries: Lightning, the Trainer of Hugging Face, Accelerate.

Each file is for one of them, and needs it to be installed. All do the same: create a pruner when the loop's length is
known, step it after the optimizer, keep its state in the loop's own checkpoints, and finalize it at the end.
"""
