"""Floor 5: what is asked of timelines, and how well it is answered. Tasks, labels, baselines, metrics."""
