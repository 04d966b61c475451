"""What a run minimizes; the loop knows none of them by name."""
