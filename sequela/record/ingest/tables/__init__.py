"""Reads raw tables: CSV, Parquet, JSON and databases."""
