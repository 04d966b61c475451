"""Floor 2: events to integers and back."""
