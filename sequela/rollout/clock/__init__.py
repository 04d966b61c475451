"""The clock of rollouts: how far tokens move it, and which ages and periods follow from it."""
