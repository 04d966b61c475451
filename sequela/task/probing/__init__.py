"""Probes: plain heads on frozen embeddings, along the course of a disease."""
