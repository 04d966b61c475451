"""What a state says by itself: risks read off it without rollouts, and how they steady those of rollouts."""
