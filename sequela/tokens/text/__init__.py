"""Records as text, for language models."""
