"""From rollouts to answers: estimates with intervals, incidence curves, contrasts, predictions on disk."""
