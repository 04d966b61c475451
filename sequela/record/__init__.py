"""Floor 1: what happened to whom. Events, the MEDS store, ingest by declarative mapping."""
