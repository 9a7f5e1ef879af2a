"""Zeros that pay in torch: Linear layers as CSR matrices, where that is measured to be faster."""
