"""Learns from tokens."""
