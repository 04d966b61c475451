"""The scaling study: plan runs of equal compute, fit how the loss falls, answer what to train. No torch."""
