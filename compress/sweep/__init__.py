"""Many independent runs: cells with cached results, computed by several workers."""
