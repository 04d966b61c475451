"""Scaling laws: which runs to make, what follows from them."""
