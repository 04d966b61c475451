"""Floor 3: tokens to hidden states and logits (torch starts here)."""
