"""What is foreseen in latent space: one window of time, given what will be done, or several in a row."""
