"""Raw tables to MEDS, by a declarative mapping."""
