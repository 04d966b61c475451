"""Sequela: an open medical-event world model."""
