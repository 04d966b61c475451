"""Synthetic patients with known truth: the exact risk (`markov`) or the exact entropy (`zipf`) of their records."""
