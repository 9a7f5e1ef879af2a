"""Explore how far a network can be pruned: what each layer tolerates, and the smallest network within a bound."""
