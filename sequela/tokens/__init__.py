"""Events to integers and back."""
