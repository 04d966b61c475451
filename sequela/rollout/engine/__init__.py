"""Continues token sequences. Knows tokens, constraints, and trackers, but not what the tokens stand for."""
