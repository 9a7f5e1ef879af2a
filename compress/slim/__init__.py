"""What is zero is cut out: coupling (what shrinks together), shrink (smaller tensors), proof (the same outputs)."""
