"""What happened to whom: events, MEDS datasets, questions."""
