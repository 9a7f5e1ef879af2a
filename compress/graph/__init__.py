"""What a network is made of: its trace, the sizes of its tensors, and what shrinks together."""
