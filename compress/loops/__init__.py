"""Pruning in other people's training loops: Lightning, the Trainer of Hugging Face, Accelerate.

Each file is for one of them, and needs it to be installed. All do the same: make a pruner when the loop knows how long
it is, step it after the optimizer's, keep its state in the loop's own checkpoints, and finalize it at the end.
"""
