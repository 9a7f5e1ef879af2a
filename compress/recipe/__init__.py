"""Recipes: what they may say (schema), how they are read (loading), and how they run."""
