"""Floor 4: learns from tokens."""
