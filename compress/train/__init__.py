"""Training: the loop, optimizers, distillation, metrics, and several processes."""
