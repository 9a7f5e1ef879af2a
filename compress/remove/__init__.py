"""Removals of pruned entries: at once (hard), or by decay while the rest trains (soft)."""
