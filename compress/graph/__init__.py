"""The structure of a network: its trace, the sizes of its tensors, and what shrinks together."""
