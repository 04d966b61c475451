"""Extends timelines: prompts, outcomes, estimators, and simulated folders."""
