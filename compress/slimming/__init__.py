"""Slimming: cuts zeros out of the tensors, which makes a smaller network with the same outputs."""
