"""Slimming: cut zeros out of the tensors, for a smaller network with the same outputs."""
