"""Ways to choose and to remove, compared at equal steps: the grid, its cells, what they say, and how it is shown."""
