"""What people ask about: the outcomes among the tokens, and how much a run cares for them."""
