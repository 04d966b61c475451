"""The folder that a stage writes: whole or not at all, locked, and with a manifest of what it was made from."""
