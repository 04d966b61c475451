"""Patients' events: MEDS datasets on disk, timelines in memory, and questions about them."""
