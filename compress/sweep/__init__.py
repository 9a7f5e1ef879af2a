"""Sweeps: many independent runs, as cells with cached results, computed by several workers."""
