"""Which parameters or nodes go: targets, scores, and the exact choice of the lowest."""
