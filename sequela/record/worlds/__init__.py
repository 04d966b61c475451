"""Synthetic patients whose true risks are known."""
