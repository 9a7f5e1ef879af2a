"""Data sets: in memory, streamed from folders, or a user's own loaders."""
