"""Which parameters or nodes are pruned: targets, scores, and the exact choice of the lowest."""
