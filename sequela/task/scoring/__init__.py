"""How good answers are: metrics, bootstrap intervals, censoring weights, verdicts."""
