"""Embeddings of questions: one vector for every patient and prediction time, on disk."""
