"""Floor 4: extends timelines."""
