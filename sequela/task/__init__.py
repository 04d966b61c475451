"""What is asked of timelines, and how well it is answered."""
