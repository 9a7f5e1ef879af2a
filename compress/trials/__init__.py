"""What all cells of sweeps over a recipe have in common: the trained network, the images they may see, their keys."""
