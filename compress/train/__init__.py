"""Training: the loop, optimizers, distillation, metrics, and distributed processes."""
