"""Compare criteria and removals at equal steps: the grid, its cells, their summary, and its documents."""
