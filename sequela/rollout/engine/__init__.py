"""Continues token sequences; knows tokens, clocks and stop conditions as data, and nothing of medicine."""
