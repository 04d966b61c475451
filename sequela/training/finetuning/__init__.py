"""Starting from a checkpoint rather than from random weights."""
