"""A run: recipe, building, steps, checkpoints, monitor, and what it leaves."""
