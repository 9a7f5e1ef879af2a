"""Files that are written whole or not at all: weights, YAML, and tensors put aside on disk."""
