"""Tokens to hidden states and logits (torch starts here)."""
